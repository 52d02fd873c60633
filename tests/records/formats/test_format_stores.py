"""Our stores and GRIT as formats: nothing is lost, GRIT's own bytes come back."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from format_law import assert_law

from examples import KNOWN_BOX, example_records, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Format, Reading, Writing
from kosmos2.records.formats.grit import GRIT, GRIT_PARQUET
from kosmos2.records.formats.stores import JSONL, PARQUET, WEBDATASET
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

PLACES = [
    (GRIT, "grit.jsonl"),
    (GRIT_PARQUET, "grit.parquet"),
    (GRIT_PARQUET, "grit-20m"),
    (JSONL, "a.jsonl"),
    (JSONL, "a.jsonl.gz"),
    (JSONL, "a.jsonl.zst"),
    (PARQUET, "a.parquet"),
    (PARQUET, "a-folder"),
    (WEBDATASET, "a.tar"),
    (WEBDATASET, "a-folder"),
]


def there_and_back(
    form: Format, records: list[GroundedRecord], path: Path, pictures: Path
) -> list[GroundedRecord]:
    assert form.write is not None
    assert form.read is not None
    form.write(iter(records), path, Writing(pictures=Pictures(pictures)))
    return list(form.read(path, Reading()))


@pytest.mark.parametrize(("form", "name"), PLACES)
def test_records_come_back_with_what_the_store_keeps(
    form: Format, name: str, examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = there_and_back(form, examples, tmp_path / name, tmp_path)
    assert_law(form, examples, again)
    if form is not WEBDATASET:
        assert again == examples


@pytest.mark.parametrize("name", ["a.tar", "a-folder"])
def test_tars_give_the_bytes_of_the_pictures_back(name: str, tmp_path: Path) -> None:
    records = example_records(tmp_path / "pictures")
    again = there_and_back(WEBDATASET, records, tmp_path / name, tmp_path / "pictures")
    root = tmp_path if name.endswith(".tar") else tmp_path / name
    assert [Pictures(root).read(record) for record in again] == [
        Pictures(tmp_path / "pictures").read(record) for record in records
    ]


def test_the_known_box_is_written_as_shares(tmp_path: Path) -> None:
    record = known_record(tmp_path)
    entry = [0, 14, 0.25, 5 / 30, 0.75, 20 / 30, None]
    assert tuple(entry[2:6]) == KNOWN_BOX.corners
    there_and_back(GRIT, [record], tmp_path / "a.jsonl", tmp_path)
    assert json.loads((tmp_path / "a.jsonl").read_text())["ref_exps"] == [entry]
    there_and_back(GRIT_PARQUET, [record], tmp_path / "grit.parquet", tmp_path)
    assert pq.read_table(tmp_path / "grit.parquet")["ref_exps"].to_pylist() == [[entry]]
    there_and_back(PARQUET, [record], tmp_path / "a.parquet", tmp_path)
    (row,) = pq.read_table(tmp_path / "a.parquet")["ref_exps"].to_pylist()
    assert [list(each.values()) for each in row] == [entry]
    there_and_back(WEBDATASET, [record], tmp_path / "a.tar", tmp_path)
    with tarfile.open(tmp_path / "a.tar") as tar:
        file = tar.extractfile("000000.json")
        assert file is not None
        assert json.load(file)["ref_exps"] == [entry]


def test_published_lines_of_grit_come_back_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "grit-records.jsonl"
    assert GRIT.read is not None
    records = list(GRIT.read(source, Reading()))
    there_and_back(GRIT, records, tmp_path / "a.jsonl", tmp_path)
    assert (tmp_path / "a.jsonl").read_bytes() == source.read_bytes()


def test_published_lines_survive_the_released_columns(shared_data: Path, tmp_path: Path) -> None:
    assert GRIT.read is not None
    records = list(GRIT.read(shared_data / "grit-records.jsonl", Reading()))
    assert there_and_back(GRIT_PARQUET, records, tmp_path / "a.parquet", tmp_path) == records
    assert there_and_back(PARQUET, records, tmp_path / "b.parquet", tmp_path) == records


@pytest.mark.parametrize("form", [JSONL, PARQUET])
def test_pictures_may_lie_elsewhere(form: Format, tmp_path: Path) -> None:
    record = known_record(tmp_path)
    there_and_back(form, [record], tmp_path / "records", tmp_path)
    assert form.read is not None
    reading = Reading(images=tmp_path / "elsewhere")
    (again,) = form.read(tmp_path / "records", reading)
    folder = tmp_path if form is JSONL else tmp_path / "records"
    assert (folder / str(again.image)).resolve() == tmp_path / "elsewhere" / "1-known.png"


def test_a_bad_line_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    there_and_back(JSONL, example_records(tmp_path), path, tmp_path)
    with path.open("a") as file:
        file.write('{"caption": "no views"}\n')
    refused: list[tuple[str, str]] = []
    assert JSONL.read is not None
    reading = Reading(refuse=lambda where, error: refused.append((where, str(error))))
    assert len(list(JSONL.read(path, reading))) == len(example_records(tmp_path))
    ((where, why),) = refused
    assert where == f"{path}:9"
    assert "missing ['noun_chunks', 'ref_exps']" in why


def test_a_picture_that_cannot_be_copied_is_refused_and_the_others_are(tmp_path: Path) -> None:
    records = example_records(tmp_path)
    (tmp_path / "2-several.png").unlink()
    refused: list[str] = []
    writing = Writing(
        pictures=Pictures(tmp_path), refuse=lambda where, error: refused.append(where)
    )
    assert WEBDATASET.write is not None
    assert WEBDATASET.read is not None
    WEBDATASET.write(records, tmp_path / "a.tar", writing)
    assert refused == ["record 2"]
    assert len(list(WEBDATASET.read(tmp_path / "a.tar", Reading()))) == len(records) - 1


@pytest.mark.parametrize("form", [GRIT, GRIT_PARQUET, JSONL, PARQUET, WEBDATASET])
def test_a_folder_without_such_files_is_refused(form: Format, tmp_path: Path) -> None:
    assert form.read is not None
    with pytest.raises(RecordError, match="has no file of the kind"):
        list(form.read(tmp_path, Reading()))
