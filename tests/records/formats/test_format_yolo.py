"""YOLO: labels as Ultralytics defines them, checked by `supervision`, and folders of others."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from format_law import assert_law
from supervision import DetectionDataset

from examples import KNOWN_BOX, KNOWN_PIXELS, draw, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.labels import class_name
from kosmos2.records.formats.yolo import YOLO, read, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

KNOWN_LINE = "0 0.500000 0.416667 0.500000 0.500000\n"


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "yolo", Writing(pictures=Pictures(folder)))
    return folder / "yolo"


def others(folder: Path, labels: dict[str, str], names: object = ("dog", "cat")) -> Path:
    """Write a folder of others; a picture for each label file."""
    for name, text in labels.items():
        draw(folder / "images" / f"{name}.jpg")
        target = folder / "labels" / f"{name}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    body = {"names": list(names) if isinstance(names, tuple) else names}
    (folder / "data.yaml").write_text(yaml.safe_dump(body))
    return folder


def classes_and_boxes(record: GroundedRecord) -> list[tuple[str, tuple[float, ...]]]:
    """Return class name and rounded corners of each box, sorted: the order of classes is lost."""
    return sorted(
        (
            class_name(record.caption[entry.start : entry.end]),
            tuple(round(corner, 5) + 0.0 for corner in entry.box.corners),
        )
        for entry in record.entries
    )


def test_classes_and_boxes_come_back_and_the_rest_is_lost(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = list(read(written(examples, tmp_path), Reading()))
    assert_law(YOLO, examples, again)
    for old, new in zip(examples, again, strict=True):
        assert classes_and_boxes(new) == classes_and_boxes(old)


def test_the_known_box_is_centre_and_size_as_shares_of_the_picture(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    assert (path / "labels" / "1-known.txt").read_text() == KNOWN_LINE
    assert yaml.safe_load((path / "data.yaml").read_text())["names"] == {0: "white square"}


def test_supervision_sees_the_boxes_where_they_are(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(examples, tmp_path)
    seen = DetectionDataset.from_yolo(
        str(path / "images"), str(path / "labels"), str(path / "data.yaml")
    )
    assert len(seen) == len(examples)
    found = seen.annotations[str(path / "images" / "1-known.png")]
    assert found.xyxy[0].tolist() == pytest.approx(KNOWN_PIXELS, abs=1e-4)
    assert seen.classes[found.class_id[0]] == "white square"
    assert sum(len(each) for each in seen.annotations.values()) == sum(
        len(record.entries) for record in examples
    )


def test_pictures_are_the_same_bytes(examples: list[GroundedRecord], tmp_path: Path) -> None:
    path = written(examples, tmp_path)
    for record, again in zip(examples, read(path, Reading()), strict=True):
        assert Pictures(path).read(again) == Pictures(tmp_path).read(record)


def test_pictures_of_one_name_keep_apart_with_their_labels(tmp_path: Path) -> None:
    first, second = known_record(tmp_path / "a"), known_record(tmp_path / "b")
    records = [
        replace(first, image="a/1-known.png"),
        replace(second, image="b/1-known.png", caption="two white squares", ref_exps=()),
        replace(second, image="b/1-known.png"),
    ]
    again = list(read(written(records, tmp_path), Reading()))
    assert sorted(str(record.image) for record in again) == [
        "images/1-known-2.png",
        "images/1-known.png",
        "images/b-1-known.png",
    ]
    assert [len(record.entries) for record in again] == [1, 1, 0]


@pytest.mark.parametrize("names", [("dog", "cat"), {0: "dog", 1: "cat"}, {"0": "dog", "1": "cat"}])
def test_names_may_be_a_list_or_a_mapping(names: object, tmp_path: Path) -> None:
    (record,) = read(others(tmp_path, {"a": "1 0.5 0.416667 0.5 0.5"}, names), Reading())
    assert record.caption == "cat"
    assert record.entries[0].box.corners == pytest.approx(KNOWN_BOX.corners, abs=1e-6)


def test_splits_and_pictures_without_labels_are_read(tmp_path: Path) -> None:
    others(tmp_path, {"train/a": "0 0.5 0.5 1 1", "val/b": "0 0.5 0.5 1 1"})
    draw(tmp_path / "images" / "val" / "empty.jpg")
    draw(tmp_path / "results.png")
    records = list(read(tmp_path / "data.yaml", Reading()))
    assert [(record.image, len(record.entries)) for record in records] == [
        ("images/train/a.jpg", 1),
        ("images/val/b.jpg", 1),
        ("images/val/empty.jpg", 0),
    ]


def test_the_splits_of_roboflow_are_read(tmp_path: Path) -> None:
    others(tmp_path / "train", {"a": "0 0.5 0.5 1 1"})
    (tmp_path / "train" / "data.yaml").rename(tmp_path / "data.yaml")
    (record,) = read(tmp_path, Reading())
    assert (record.image, record.caption) == ("train/images/a.jpg", "dog")


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = others(tmp_path / "labels only", {"a": "0 0.5 0.5 1 1"})
    (path / "images").rename(tmp_path / "elsewhere")
    (record,) = read(path, Reading(images=tmp_path / "elsewhere"))
    assert (record.image, len(record.entries)) == ("../elsewhere/a.jpg", 1)


def test_labels_beside_pictures_are_read_with_a_list_of_names(tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg")
    (tmp_path / "a.txt").write_text("1 0.5 0.5 1 1")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    (record,) = read(tmp_path, Reading())
    assert (record.image, record.caption) == ("a.jpg", "cat")


def test_a_sixth_number_is_a_score_and_more_are_a_polygon(tmp_path: Path) -> None:
    lines = "0 0.5 0.5 1 1 0.25\n1 0.25 0.5 0.75 0.25 0.5 0.75\n"
    (record,) = read(others(tmp_path, {"a": lines}), Reading())
    assert [(entry.box.corners, entry.score) for entry in record.entries] == [
        ((0, 0, 1, 1), 0.25),
        ((0.25, 0.25, 0.75, 0.75), None),
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("7 0.5 0.5 1 1", "class 7"),
        ("0.5 0.5 0.5 1 1", "class 0.5"),
        ("inf 0.5 0.5 1 1", "class inf"),
        ("0 0.5 0.5 1", "must be class, x, y"),
        ("0 0.5 0.5 1 nan", "must be class, x, y"),
        ("dog 0.5 0.5 1 1", "must be numbers"),
        ("0 0.5 0.5 -1 1", "a box needs"),
        ("0 20 12.5 20 15", "a box needs"),
    ],
)
def test_a_bad_line_is_refused_by_file_and_line(line: str, named: str, tmp_path: Path) -> None:
    path = others(tmp_path, {"bad": f"\n{line}\n", "good": "0 0.5 0.5 1 1"})
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(str(error)))
    assert [record.id for record in read(path, reading)] == ["good"]
    assert "bad.txt:2: " in refused[0]
    assert named in refused[0]


def test_a_folder_that_names_no_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"data\.yaml"):
        list(read(tmp_path, Reading()))
