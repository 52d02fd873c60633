"""Pascal VOC: first and last pixels counted from 1, safe XML, files of others."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from format_law import assert_boxes_near, assert_law
from hypothesis import example, given
from supervision import DetectionDataset

from examples import KNOWN_BOX, KNOWN_PIXELS, draw, known_record
from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.voc import VOC, first_and_last_pixels, read, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

KNOWN_OBJECT = """<object><name>dog</name><bndbox>
    <xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"""
SIZE = "<size><width>40</width><height>30</height><depth>3</depth></size>"


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "voc", Writing(pictures=Pictures(folder)))
    return folder / "voc"


def other(folder: Path, inside: str, name: str = "dog") -> Path:
    """Write an annotation of somebody else; its picture lies beside it."""
    draw(folder / f"{name}.jpg")
    path = folder / f"{name}.xml"
    path.write_text(f"<annotation><filename>{name}.jpg</filename>{inside}</annotation>")
    return path


def test_records_come_back_whole_but_for_parts_of_pixels(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = list(read(written(examples, tmp_path), Reading()))
    assert_law(VOC, examples, again)
    assert_boxes_near(examples, again, pixels=0.5 + 1e-9)


def test_the_known_box_names_its_first_and_last_pixel_counted_from_1(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    box = ET.parse(path / "Annotations" / "1-known.xml").find("object/bndbox")
    assert box is not None
    assert [(each.tag, each.text) for each in box] == [
        ("xmin", "11"),
        ("ymin", "6"),
        ("xmax", "30"),
        ("ymax", "20"),
    ]


def test_supervision_sees_the_boxes_where_they_are(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(examples, tmp_path)
    seen = DetectionDataset.from_pascal_voc(str(path / "JPEGImages"), str(path / "Annotations"))
    assert len(seen) == len(examples)
    found = seen.annotations[str(path / "JPEGImages" / "1-known.png")]
    assert found.xyxy[0].tolist() == list(KNOWN_PIXELS)
    assert seen.classes[found.class_id[0]] == "white square"


@given(...)
@example(Box(1, 1, 1, 1))
def test_every_box_covers_a_pixel_of_the_picture(box: Box) -> None:
    xmin, ymin, xmax, ymax = first_and_last_pixels(box, (40, 30))
    assert 1 <= xmin <= xmax <= 40
    assert 1 <= ymin <= ymax <= 30


@given(...)
def test_edges_move_by_half_a_pixel_at_most_where_boxes_are_wider(box: Box) -> None:
    x0, _, x1, _ = box.to_pixels(width=40, height=30)
    xmin, _, xmax, _ = first_and_last_pixels(box, (40, 30))
    allowed = 0.5 if x1 - x0 >= 1 else 1
    assert abs(xmin - 1 - x0) <= allowed + 1e-9
    assert abs(xmax - x1) <= allowed + 1e-9


def test_files_of_others_give_class_names_as_the_caption(tmp_path: Path) -> None:
    path = other(tmp_path, SIZE + KNOWN_OBJECT)
    for where in (path, tmp_path):
        (record,) = read(where, Reading())
        assert (record.id, record.image, record.caption) == ("dog", "dog.jpg", "dog")
        assert record.entries[0].box == KNOWN_BOX


def test_sizes_that_a_file_lacks_are_those_of_the_picture(tmp_path: Path) -> None:
    for size in ("", "<size><width>0</width><height>0</height></size>"):
        (record,) = read(other(tmp_path, size + KNOWN_OBJECT), Reading())
        assert (record.width, record.height) == (40, 30)
        assert record.entries[0].box == KNOWN_BOX


def test_a_file_name_reaches_no_other_folder(tmp_path: Path) -> None:
    path = other(tmp_path, SIZE)
    path.write_text(path.read_text().replace("dog.jpg", "../../secret/dog.jpg"))
    (record,) = read(path, Reading())
    assert record.image == "dog.jpg"


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = other(tmp_path / "labels", KNOWN_OBJECT)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "labels" / "dog.jpg").rename(tmp_path / "pictures" / "dog.jpg")
    (record,) = read(path, Reading(images=tmp_path / "pictures"))
    assert record.image == "../pictures/dog.jpg"
    assert record.entries[0].box == KNOWN_BOX


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_grow(encoding: str, tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>'
        f'<!DOCTYPE annotation [<!ENTITY e0 "boom">{bomb}]>'
        "<annotation><filename>&e11;</filename></annotation>"
    )
    (tmp_path / "bomb.xml").write_bytes(text.encode(encoding))
    with pytest.raises(RecordError, match=r"bomb\.xml.*DOCTYPE"):
        list(read(tmp_path, Reading()))


@pytest.mark.parametrize(
    ("inside", "named"),
    [
        (SIZE + KNOWN_OBJECT.replace("11", "many"), "object 0: <bndbox> needs 4 numbers"),
        (SIZE + KNOWN_OBJECT.replace("11", "35"), "object 0: a box needs"),
        (SIZE + KNOWN_OBJECT.replace("<name>dog</name>", ""), "no label"),
        ("<size><width>wide</width></size>", "<size> needs 2 numbers"),
        ("<object>", "cannot be read as XML"),
        (SIZE + "<record>{</record>", "<record> is no JSON"),
    ],
)
def test_a_bad_file_is_refused_and_the_others_are_read(
    inside: str, named: str, tmp_path: Path
) -> None:
    other(tmp_path, inside, "bad")
    other(tmp_path, SIZE, "good")
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(f"{where}: {error}"))
    assert [record.id for record in read(tmp_path, reading)] == ["good"]
    assert "bad.xml" in refused[0]
    assert named in refused[0]
