"""Captions beside pictures: one text for each picture, as it was."""

from dataclasses import replace
from pathlib import Path

import pytest
from format_law import assert_law

from examples import draw, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.captions import CAPTIONS, read, write
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "captions", Writing(pictures=Pictures(folder)))
    return folder / "captions"


def test_captions_come_back_and_boxes_are_lost(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(examples, tmp_path)
    again = list(read(path, Reading()))
    assert_law(CAPTIONS, examples, again)
    for old, new in zip(examples, again, strict=True):
        assert Pictures(path).read(new) == Pictures(tmp_path).read(old)


def test_a_text_has_the_name_of_its_picture_and_ends_its_line(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    assert sorted(each.name for each in path.iterdir()) == ["1-known.png", "1-known.txt"]
    assert (path / "1-known.txt").read_bytes() == b"a white square\n"


@pytest.mark.parametrize("caption", ["", "one\ntwo", " blanks ", "line\n", "größer 狗"])
def test_every_caption_comes_back_to_the_letter(caption: str, tmp_path: Path) -> None:
    record = replace(known_record(tmp_path), caption=caption, ref_exps=None)
    (again,) = read(written([record], tmp_path), Reading())
    assert again.caption == caption


def test_texts_of_others_are_read_with_their_marks_and_ends_of_lines(tmp_path: Path) -> None:
    for name, content in {"a": b"no end", "b": b"\xef\xbb\xbfmarked\r\n"}.items():
        draw(tmp_path / "deep" / f"{name}.jpg")
        (tmp_path / "deep" / f"{name}.txt").write_bytes(content)
    draw(tmp_path / "uncaptioned.jpg")
    records = list(read(tmp_path, Reading()))
    assert [(record.image, record.caption) for record in records] == [
        ("deep/a.jpg", "no end"),
        ("deep/b.jpg", "marked"),
    ]


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    draw(tmp_path / "pictures" / "a.jpg")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a square")
    (record,) = read(tmp_path / "texts", Reading(images=tmp_path / "pictures"))
    assert (record.image, record.caption) == ("../pictures/a.jpg", "a square")


def test_a_text_in_another_alphabet_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    for name, content in {"bad": b"\xff\xfe\x00", "good": b"good"}.items():
        draw(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_bytes(content)
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(str(error)))
    assert [record.caption for record in read(tmp_path, reading)] == ["good"]
    assert "bad.txt" in refused[0]


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nowhere"):
        list(read(tmp_path / "nowhere", Reading()))
