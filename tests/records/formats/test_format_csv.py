"""CSV: a row for each box, units in the names of columns."""

import csv
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from format_law import assert_law

from examples import KNOWN_BOX, KNOWN_PIXELS, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.table import CSV, read, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


def written(records: list[GroundedRecord], folder: Path) -> Path:
    path = folder / "records.csv"
    write(records, path, Writing(pictures=Pictures(folder)))
    return path


def table(folder: Path, text: str) -> Path:
    path = folder / "others.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_records_come_back_with_what_the_table_keeps(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = list(read(written(examples, tmp_path), Reading()))
    assert_law(CSV, examples, again)
    assert [record.id for record in again] == [record.id for record in examples]


def test_the_known_box_is_written_as_shares_and_as_pixels(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert [float(row[name]) for name in ("x0_px", "y0_px", "x1_px", "y1_px")] == [*KNOWN_PIXELS]
    assert tuple(float(row[name]) for name in ("x0", "y0", "x1", "y1")) == KNOWN_BOX.corners
    assert (row["caption"], row["start"], row["end"]) == ("a white square", "0", "14")


def test_pandas_sees_a_row_for_each_box(examples: list[GroundedRecord], tmp_path: Path) -> None:
    frame = pd.read_csv(written(examples, tmp_path))
    assert len(frame) == sum(max(1, len(record.entries)) for record in examples)
    assert list(frame.groupby("record")["caption"].first()) == [
        record.caption for record in examples
    ]


def test_captions_of_several_lines_and_with_marks_come_back(tmp_path: Path) -> None:
    known = known_record(tmp_path)
    records = [
        replace(known, id=number, caption=caption, ref_exps=())
        for number, caption in enumerate(['one\ntwo, "three"', "", "line\r\nend\n", "; ="])
    ]
    again = read(written(records, tmp_path), Reading())
    assert [record.caption for record in again] == [record.caption for record in records]


def test_two_records_of_one_picture_keep_apart(tmp_path: Path) -> None:
    known = replace(known_record(tmp_path), id=None)
    assert len(list(read(written([known, known], tmp_path), Reading()))) == 2


def test_pixels_alone_are_read_with_the_size_of_the_picture(tmp_path: Path) -> None:
    head = "image,width_px,height_px,phrase,x0_px,y0_px,x1_px,y1_px\n"
    path = table(tmp_path, f"{head}a.png,40,30,dog,10,5,30,20\na.png,40,30,cat,0,0,40,30\n")
    (record,) = read(path, Reading())
    assert record.caption == "dog; cat"
    assert record.entries[0].box == KNOWN_BOX


def test_a_phrase_without_a_span_is_looked_for_in_the_caption(tmp_path: Path) -> None:
    path = table(tmp_path, "caption,phrase,x0,y0,x1,y1\nthe red dog,red dog,0,0,1,1\n")
    (record,) = read(path, Reading())
    assert [(entry.start, entry.end) for entry in record.entries] == [(4, 11)]


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = table(tmp_path, "image,caption,x0,y0,x1,y1\na.png,a dog,,,,\n")
    (record,) = read(path, Reading(images=tmp_path / "pictures"))
    assert (record.image, record.entries) == ("pictures/a.png", ())


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("many,0,1,1,0,3", "x0 must be a number, got 'many'"),
        ("0.5,0,0.25,1,0,3", "a box needs"),
        ("10,5,30,20,0,3", "a box needs"),
        ("0,0,1,1,0,99", r"\[0, 99\)"),
        ("0,0,1,1,0,2.5", "end must be a whole number, got '2.5'"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(row: str, named: str, tmp_path: Path) -> None:
    head = "record,caption,x0,y0,x1,y1,start,end\n"
    path = table(tmp_path, f"{head}0,a dog,0,0,1,1,0,5\n1,bad,{row}\n2,a cat,0,0,1,1,0,5\n")
    refused: list[tuple[str, str]] = []
    reading = Reading(refuse=lambda where, error: refused.append((where, str(error))))
    assert [record.caption for record in read(path, reading)] == ["a dog", "a cat"]
    ((where, error),) = refused
    assert where == f"{path}:3"
    with pytest.raises(RecordError, match=named):
        raise RecordError(error)


def test_a_table_without_the_columns_of_a_box_is_refused_by_what_it_has(tmp_path: Path) -> None:
    path = table(tmp_path, "filename,xmin\na.png,3\n")
    with pytest.raises(RecordError, match=r"x0_px.*got filename, xmin"):
        list(read(path, Reading()))
