"""Files of records."""

from pathlib import Path

import pytest

from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import Writer, read

RECORDS = [
    GroundedRecord(id=number, caption=f"a café {number}", noun_chunks=(), ref_exps=None)
    for number in range(3)
]


def append(path: Path, records: list[GroundedRecord]) -> None:
    with Writer(path) as writer:
        for record in records:
            writer.write(record)


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    append(path, RECORDS[:1])
    append(path, RECORDS[1:])
    assert list(read(path)) == RECORDS


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, RECORDS)
    path.write_bytes(path.read_bytes()[:-5])
    append(path, RECORDS[2:])
    assert list(read(path)) == RECORDS


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, RECORDS[:2])
    path.write_bytes(path.read_bytes()[:-1])
    append(path, RECORDS[2:])
    assert list(read(path)) == RECORDS


@pytest.mark.parametrize("line", ['{"caption": ', "[1, 2]", '{"caption": "a dog"}'])
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    append(path, RECORDS)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecordError, match=r"records\.jsonl:4"):
        list(read(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nowhere"):
        list(read(tmp_path / "nowhere.jsonl"))


def test_a_line_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, RECORDS[:1])
    path.write_bytes(path.read_bytes() + b'{"caption": "\xff"}\n')
    with pytest.raises(RecordError, match=r"records\.jsonl:2: no UTF-8"):
        list(read(path))


def test_an_image_that_is_no_path_is_named() -> None:
    fields = {"caption": "a dog", "noun_chunks": [], "ref_exps": [], "id": 5, "image": 12}
    with pytest.raises(RecordError, match="record 5: image must be text, got 12"):
        GroundedRecord.from_dict(fields)
