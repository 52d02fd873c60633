"""Stores: what is written is read, a kill at any byte costs what was unfinished and no more."""

import gzip
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from examples import example_records
from kosmos2.errors import MissingExtraError, RecordError
from kosmos2.records.jsonl import JsonlWriter
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import Kind, Writer, folder_writer, kind_of, parts_of, read, root_of

LINES = ["records.jsonl", "records.ndjson", "records.json", "records.jsonl.gz", "records.jsonl.zst"]
RECORDS = [
    GroundedRecord(id=number, caption=f"a café {number}", noun_chunks=(), ref_exps=None)
    for number in range(4)
]


def append(path: Path, records: Sequence[GroundedRecord]) -> None:
    with Writer(path) as writer:
        for record in records:
            writer.write(record)


def read_quietly(path: Path) -> list[GroundedRecord]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(read(path))


@pytest.mark.parametrize("name", LINES)
def test_what_is_appended_is_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    append(path, RECORDS[:1])
    append(path, RECORDS[1:])
    assert list(read(path)) == RECORDS


@pytest.mark.parametrize("name", [*LINES, "records.parquet"])
def test_every_feature_of_a_record_is_kept(tmp_path: Path, name: str) -> None:
    records = example_records(tmp_path)
    append(tmp_path / name, records)
    assert list(read(tmp_path / name)) == records


@pytest.mark.parametrize("name", ["records.jsonl", "records.jsonl.gz", "records.jsonl.zst"])
def test_a_kill_at_any_byte_leaves_the_whole_records_and_appending_goes_on(
    tmp_path: Path, name: str
) -> None:
    path, cut = tmp_path / name, tmp_path / "cut" / name
    ends = [0]  # of what was surely written: each append is closed
    for record in RECORDS[:3]:
        append(path, [record])
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    cut.parent.mkdir()
    for length in range(len(whole) + 1):
        cut.write_bytes(whole[:length])
        left = read_quietly(cut)
        assert left == RECORDS[: len(left)]
        assert len(left) >= sum(end <= length for end in ends[1:])
        append(cut, RECORDS[3:])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(read(cut)) == [*left, *RECORDS[3:]]


@pytest.mark.parametrize("name", ["records.jsonl.gz", "records.jsonl.zst"])
def test_of_a_member_of_many_records_a_kill_leaves_those_that_can_be_unpacked(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    append(path, RECORDS[:3])
    whole = path.read_bytes()
    found = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        left = read_quietly(path)
        assert left == RECORDS[: len(left)]
        found.append(len(left))
        append(path, RECORDS[3:])
        assert list(read(path)) == [*left, *RECORDS[3:]]
    assert found == sorted(found)
    assert found[-1] == 3


def test_a_whole_last_line_is_read_though_its_end_and_that_of_the_member_are_cut_off(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl.gz"
    text = b"\n".join(json.dumps(record.to_dict()).encode() for record in RECORDS[:3])
    path.write_bytes(gzip.compress(text)[:-8])
    assert read_quietly(path) == RECORDS[:3]
    append(path, RECORDS[3:])
    assert list(read(path)) == RECORDS


@pytest.mark.parametrize("name", ["records.jsonl", "records.jsonl.gz"])
def test_an_unfinished_end_is_warned_of(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    append(path, RECORDS)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"records\.jsonl.*:\d.*(unfinished|middle)"):
        list(read(path))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_lines_that_others_wrote_are_kept_when_more_are_appended(
    tmp_path: Path, pack: type[bytes], ending: bytes
) -> None:
    names = {"compress": "a.jsonl.gz", "bytes": "a.jsonl"}
    path = tmp_path / names[pack.__name__]
    if pack.__name__ == "compress" and pack is not gzip.compress:
        path = tmp_path / "a.jsonl.zst"
    text = b"\n".join(json.dumps(record.to_dict()).encode() for record in RECORDS[:3])
    path.write_bytes(pack(text + ending))
    append(path, RECORDS[3:])
    assert list(read(path)) == RECORDS


def test_the_end_of_a_long_file_is_mended_by_its_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"x" * 300_000 + b"\n" + b'{"caption": "' + b"y" * 200_000)
    append(path, RECORDS[:1])
    lines = path.read_bytes().split(b"\n")
    assert lines[0] == b"x" * 300_000
    assert json.loads(lines[1])["id"] == 0


def test_members_are_as_others_read_them(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.jsonl.zst"):
        append(tmp_path / name, RECORDS[:2])
        append(tmp_path / name, RECORDS[2:])
    with gzip.open(tmp_path / "a.jsonl.gz", "rt", encoding="utf-8") as lines:
        assert [json.loads(line)["id"] for line in lines] == [0, 1, 2, 3]
    with zstandard.open(tmp_path / "a.jsonl.zst", "rt", encoding="utf-8") as lines:
        assert [json.loads(line)["id"] for line in lines] == [0, 1, 2, 3]


def test_each_line_is_one_write(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with JsonlWriter(path) as writer:
        for count, record in enumerate(RECORDS, start=1):
            writer.write(record)
            assert list(read(path)) == RECORDS[:count]


@pytest.mark.parametrize("name", ["records.jsonl.gz", "records.jsonl.zst"])
def test_damage_in_the_middle_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    append(path, RECORDS[:2])
    data = bytearray(path.read_bytes())
    append(path, RECORDS[2:])
    data[12:20] = b"\xff" * 8
    path.write_bytes(bytes(data) + path.read_bytes()[len(data) :])
    with pytest.raises(RecordError, match=r"records\.jsonl.*damaged"):
        list(read(path))


@pytest.mark.parametrize("line", ['{"caption": ', "[1, 2]", '{"caption": "a dog"}'])
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    append(path, RECORDS)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecordError, match=r"records\.jsonl:5"):
        list(read(path))


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.parquet", "nowhere.tar", "nowhere"])
def test_a_missing_store_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match="nowhere"):
        list(read(tmp_path / name))


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


def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    record = GroundedRecord(id=1, caption="odd \ud83d text", noun_chunks=(), ref_exps=None)
    append(tmp_path / "records.jsonl", [record])
    assert list(read(tmp_path / "records.jsonl")) == [record]


@pytest.mark.parametrize("kind", Kind)
def test_a_folder_grows_by_parts(tmp_path: Path, kind: Kind) -> None:
    folder, pictures = tmp_path / "store", Pictures(tmp_path)
    for records in (RECORDS[:2], RECORDS[2:]):
        with folder_writer(folder, kind, pictures) as writer:
            for record in records:
                writer.write(record)
    assert kind_of(folder) is kind
    assert len(parts_of(folder, kind)) == 2
    assert list(read(folder)) == RECORDS
    assert root_of(folder) == folder
    with Writer(folder, pictures) as more:
        more.write(RECORDS[0])
    assert list(read(folder)) == [*RECORDS, RECORDS[0]]


def test_a_folder_of_many_records_has_many_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kosmos2.records.store.PART_RECORDS", 3)
    with folder_writer(tmp_path / "store", Kind.PARQUET) as writer:
        for record in RECORDS:
            writer.write(record)
    names = [part.name for part in parts_of(tmp_path / "store", Kind.PARQUET)]
    assert names == ["000000.parquet", "000001.parquet"]
    assert list(read(tmp_path / "store")) == RECORDS


@pytest.mark.parametrize("kind", [Kind.PARQUET, Kind.WEBDATASET])
def test_a_kill_at_any_byte_of_a_part_leaves_the_parts_before_it(
    tmp_path: Path, kind: Kind
) -> None:
    folder, pictures = tmp_path / "store", Pictures(tmp_path)
    with folder_writer(folder, kind, pictures) as writer:
        writer.write(RECORDS[0])
    part = parts_of(folder, kind)[0]
    data = part.read_bytes()
    for length in range(0, len(data), 37):  # as a kill leaves it: under its other name
        left = folder / f".000001{part.suffix}.partial"
        left.write_bytes(data[:length])
        assert list(read(folder)) == RECORDS[:1]
    with Writer(folder, pictures) as more:
        more.write(RECORDS[1])
    assert list(read(folder)) == RECORDS[:2]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", ["records.parquet", "records.tar"])
def test_one_file_appears_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    path, pictures = tmp_path / name, Pictures(tmp_path)
    with pytest.raises(KeyboardInterrupt), Writer(path, pictures) as writer:
        writer.write(RECORDS[0])
        assert not path.exists()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with Writer(path, pictures) as writer:
        writer.write(RECORDS[0])
    with pytest.raises(RecordError, match="is there already"), Writer(path, pictures):
        pytest.fail("no work is done before the refusal")
    assert list(read(path)) == RECORDS[:1]


@pytest.mark.parametrize("name", ["records.parquet", "records.tar", "records.jsonl.gz"])
def test_a_store_of_no_records_can_be_read(tmp_path: Path, name: str) -> None:
    with Writer(tmp_path / name, Pictures(tmp_path)):
        pass
    assert list(read(tmp_path / name)) == []


def test_of_img2dataset_folders_the_tars_are_read(tmp_path: Path) -> None:
    (tmp_path / "00000_stats.json").write_text("{}")
    with folder_writer(tmp_path, Kind.PARQUET) as writer:
        writer.write(RECORDS[0])
    assert kind_of(tmp_path) is Kind.PARQUET
    with Writer(tmp_path / "00000.tar", Pictures(tmp_path)) as writer:
        writer.write(RECORDS[1])
    assert list(read(tmp_path)) == [RECORDS[1]]


def test_a_folder_without_records_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")  # lines of records are .jsonl in a folder
    with pytest.raises(RecordError, match="has no file of records"):
        kind_of(tmp_path)


@pytest.mark.parametrize(
    ("library", "name"), [("pyarrow", "a.parquet"), ("zstandard", "a.jsonl.zst")]
)
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).touch()
    with pytest.raises(MissingExtraError, match=rf"{library}.*kosmos2\[records\]"):
        list(read(tmp_path / name))
