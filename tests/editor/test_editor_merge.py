"""A merge writes the store anew with its edits: whole or not at all, and nothing else changes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from editor_cases import BALL, LONG_DOG, RIGHT, dog, write_store

from kosmos2.editor.changes import Delete, Move, Reword
from kosmos2.editor.history import MARK
from kosmos2.editor.journal import journal_of
from kosmos2.editor.merge import Rejected, merge
from kosmos2.editor.session import Decide, Edit, Session, Undo
from kosmos2.errors import RecordError
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import Writer, read

MIDDLE = (0.3, 0.3, 0.5, 0.5)
EDITS: tuple[tuple[int, Edit], ...] = (
    (1, Move(view="ref_exps", entry=0, corners=MIDDLE)),
    (2, Decide(status="accepted")),
    (3, Decide(status="rejected")),
    (4, Reword(caption="A dog.")),
    (4, Undo()),
)
STORES = ("lines.jsonl", "lines.jsonl.gz", "lines.jsonl.zst", "rows.parquet", "pairs.tar")


def original() -> list[GroundedRecord]:
    return [dog(number) for number in range(5)]


def written(path: Path) -> Path:
    if path.suffix in (".zst", ".parquet"):
        pytest.importorskip("pyarrow" if path.suffix == ".parquet" else "zstandard")
    write_store(path.parent / "unused.jsonl", dog())
    with Writer(path, Pictures(path.parent)) as writer:
        for record in original():
            writer.write(record)
    return path


def make(store: Path, *edits: tuple[int, Edit]) -> None:
    with Session.open(store) as session:
        for number, edit in edits:
            assert session.edit(number, edit, session.history(number).version) is None


def merged(store: Path, rejected: Rejected = "keep") -> list[GroundedRecord]:
    with Session.open(store) as session:
        merge(session, rejected)
    return list(read(store))


def marked(record: GroundedRecord, status: str) -> GroundedRecord:
    return replace(record, extra={**record.extra, MARK: status})


def expected(before: list[GroundedRecord]) -> list[GroundedRecord]:
    """What the edits make of five records."""
    moved = replace(
        before[1],
        noun_chunks=(Grounded(0, 5, *MIDDLE, None), Grounded(*BALL, *RIGHT, 0.4)),
        ref_exps=(Grounded(*LONG_DOG, *MIDDLE, None), Grounded(*BALL, *RIGHT, 0.4)),
        extra={**before[1].extra, "round_trip": [None, 0.3]},
    )
    return [
        before[0],
        marked(moved, "edited"),
        marked(before[2], "accepted"),
        marked(before[3], "rejected"),
        before[4],
    ]


@pytest.mark.parametrize("name", STORES)
def test_a_merged_store_is_the_edited_one(tmp_path: Path, name: str) -> None:
    store = written(tmp_path / name)
    before = list(read(store))
    make(store, *EDITS)
    assert list(read(store)) == before
    assert merged(store) == expected(before)
    assert not journal_of(store).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [name, f"{name}.edits.1", "dog.png", "unused.jsonl"]
    )


@pytest.mark.parametrize("name", STORES)
def test_rejected_records_go_where_that_is_asked_for(tmp_path: Path, name: str) -> None:
    store = written(tmp_path / name)
    wanted = [record for record in expected(list(read(store))) if record.id != 3]
    make(store, *EDITS)
    assert merged(store, "drop") == wanted


def test_rejected_records_that_stayed_can_go_later(tmp_path: Path) -> None:
    store = written(tmp_path / "lines.jsonl")
    make(store, *EDITS)
    assert merged(store) == expected(original())
    assert [record.id for record in merged(store, "drop")] == [0, 1, 2, 4]


def test_lines_that_were_not_edited_stay_byte_for_byte(tmp_path: Path) -> None:
    store = write_store(tmp_path / "lines.jsonl", *original())
    odd = b'{"caption":"x", "noun_chunks":null,"ref_exps":[],"n":1.0e3}\r\n\n'
    store.write_bytes(odd + store.read_bytes())
    before = store.read_bytes().splitlines(keepends=True)
    make(store, (2, Delete(view="ref_exps", entry=0)))
    merged(store)
    after = store.read_bytes().splitlines(keepends=True)
    assert [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [3]


def test_members_of_a_tar_that_were_not_edited_stay_as_they_are(tmp_path: Path) -> None:
    store = tmp_path / "made.tar"
    fields = {"caption": "a dog", "noun_chunks": None, "ref_exps": [[0, 5, 0, 0, 1, 1, None]]}
    members = {
        "a/1.cls": b"4",
        "a/1.json": json.dumps(fields).encode(),
        "a/1.txt": b"a dog",
        "a/2.txt": b"a cat",
        "a/3.JSON": json.dumps(fields).encode(),
    }
    with tarfile.open(store, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    make(store, (0, Reword(caption="a dog here")), (1, Reword(caption="a black cat")))
    assert [record.caption for record in merged(store)] == ["a dog here", "a black cat", "a dog"]
    with tarfile.open(store) as tar:
        after = {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]
    assert list(after) == ["a/1.cls", "a/1.json", "a/1.txt", "a/2.txt", "a/2.json", "a/3.JSON"]
    assert {name: after[name] for name in ("a/1.cls", "a/3.JSON")} == {
        name: members[name] for name in ("a/1.cls", "a/3.JSON")
    }
    assert (after["a/1.txt"], after["a/2.txt"]) == (b"a dog here", b"a black cat")


def test_columns_of_parquet_keep_their_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    store = tmp_path / "rows.parquet"
    when = datetime(2026, 1, 2)
    table = pyarrow.table(
        {
            "caption": ["a dog"],
            "noun_chunks": [None],
            "ref_exps": [[[0.0, 5.0, 0.0, 0.0, 1.0, 1.0, 0.5]]],
            "when": pyarrow.array([when], pyarrow.timestamp("ms")),
        }
    )
    parquet.write_table(table, store)
    make(store, (0, Reword(caption="a dog here")))
    [record] = merged(store)
    assert (record.caption, record.extra["when"]) == ("a dog here", when)
    assert parquet.read_schema(store).field("when").type == pyarrow.timestamp("ms")


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    for number, record in enumerate(original()):
        write_store(folder / f"{number:06}.jsonl", record)
    return folder


def test_parts_of_a_folder_without_edits_are_not_written(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    make(folder, *EDITS)
    assert merged(folder) == expected(original())
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    changed = [name for name, inode in after.items() if before[name] != inode]
    assert sorted(changed) == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]


@pytest.mark.parametrize("renamed", range(3))
def test_a_merge_that_is_killed_between_two_parts_is_finished_by_the_next_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    folder = _folder(tmp_path)
    make(folder, *EDITS)
    real, left = os.replace, [renamed]

    def replace_some(source: Path, target: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_some)
    with pytest.raises(KeyboardInterrupt):
        merged(folder)
    monkeypatch.setattr(os, "replace", real)
    with Session.open(folder) as session:
        assert not session.changed()
    assert list(read(folder)) == expected(original())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "parts.edits.1"]


def test_a_merge_that_is_killed_while_it_writes_has_done_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "lines.jsonl", *original())
    before = store.read_bytes()
    make(store, *EDITS)
    with monkeypatch.context() as patched:
        patched.setattr("kosmos2.editor.merge.take_place", _killed)
        with pytest.raises(KeyboardInterrupt):
            merged(store)
    assert store.read_bytes() == before
    assert merged(store) == expected(original())


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_store_that_somebody_else_wrote_meanwhile_is_not_merged(tmp_path: Path) -> None:
    store = write_store(tmp_path / "lines.jsonl", *original())
    make(store, *EDITS)
    with Session.open(store) as session:
        write_store(store, *reversed(original()))
        with pytest.raises(RecordError, match="is not the one that was edited"):
            merge(session, "keep")
    assert [record.id for record in read(store)] == [4, 3, 2, 1, 0]
    assert journal_of(store).exists()


def test_a_store_without_edits_is_left_alone(tmp_path: Path) -> None:
    store = write_store(tmp_path / "lines.jsonl", *original())
    make(store, (0, Decide(status="accepted")), (0, Undo()))
    before = store.stat().st_ino
    with Session.open(store) as session:
        assert merge(session, "keep") is None
    assert store.stat().st_ino == before


def test_what_was_decided_is_known_when_the_merged_store_is_edited_again(tmp_path: Path) -> None:
    store = write_store(tmp_path / "lines.jsonl", *original())
    make(store, *EDITS)
    merged(store)
    with Session.open(store) as session:
        statuses = [str(session.state(number).status) for number in range(5)]
    assert statuses == ["untouched", "edited", "accepted", "rejected", "untouched"]
