"""FiftyOne: the documented layout of FiftyOneImageDetectionDataset, and labels of others."""

import json
from pathlib import Path
from typing import Any

import pytest
from format_law import assert_boxes_near, assert_law

from examples import KNOWN_BOX, draw, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.fiftyone import FIFTYONE, read, write
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "fiftyone", Writing(pictures=Pictures(folder)))
    return folder / "fiftyone"


def others(folder: Path, labels: dict[str, Any], **more: object) -> Path:
    for name in labels:
        draw(folder / "data" / f"{name}.jpg")
    (folder / "labels.json").write_text(json.dumps({"labels": labels, **more}))
    return folder


def imported(folder: Path) -> dict[Path, list[dict[str, Any]]]:
    """Return pictures and detections as FiftyOne's own importer and parser make them.

    A restatement of what `FiftyOneImageDetectionDatasetImporter` (fiftyone 1.22) does with a
    folder: pictures by name without suffix, samples by sorted name, attributes beside the label.
    """
    paths = {
        str(path.relative_to(folder / "data").with_suffix("")): path
        for path in (folder / "data").rglob("*")
    }
    document = json.loads((folder / "labels.json").read_text())
    return {
        paths[name]: [
            {
                "label": each["label"],
                "bounding_box": each["bounding_box"],
                "confidence": each.get("confidence"),
                **each.get("attributes", {}),
            }
            for each in document["labels"][name]
        ]
        for name in sorted(document["labels"])
    }


def test_records_come_back_whole(examples: list[GroundedRecord], tmp_path: Path) -> None:
    path = written(examples, tmp_path)
    again = list(read(path, Reading()))
    assert_law(FIFTYONE, examples, again)
    assert_boxes_near(examples, again, pixels=1e-9)
    for old, new in zip(examples, again, strict=True):
        assert Pictures(path).read(new) == Pictures(tmp_path).read(old)


def test_the_known_box_is_corner_and_size_as_shares_of_the_picture(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    (detection,) = json.loads((path / "labels.json").read_text())["labels"]["1-known"]
    assert detection["bounding_box"] == pytest.approx([10 / 40, 5 / 30, 20 / 40, 15 / 30])
    assert detection["label"] == "white square"
    assert detection["attributes"] == {"phrase": "a white square", "start": 0, "end": 14}
    assert "confidence" not in detection


def test_an_importer_finds_every_picture_and_box(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(examples, tmp_path)
    found = imported(path)
    assert len(found) == len(examples)
    assert sum(map(len, found.values())) == sum(len(record.entries) for record in examples)
    # Names of attributes must not be those of FiftyOne's own fields of a detection.
    reserved = {"id", "label", "bounding_box", "confidence", "index", "mask", "tags", "attributes"}
    for detections in found.values():
        assert all(set(each) - reserved == {"phrase", "start", "end"} for each in detections)


def test_labels_of_others_give_class_names_as_the_caption(tmp_path: Path) -> None:
    box = [10 / 40, 5 / 30, 20 / 40, 15 / 30]
    labels = {
        "a": [{"label": "dog", "bounding_box": box, "confidence": 0.5}],
        "b": [{"label": 1, "bounding_box": box, "attributes": {"colour": "red"}}],
        "c": None,
    }
    records = list(read(others(tmp_path, labels, classes=["dog", "cat"]), Reading()))
    assert [(record.image, record.caption) for record in records] == [
        ("data/a.jpg", "dog"),
        ("data/b.jpg", "cat"),
        ("data/c.jpg", ""),
    ]
    assert records[0].entries[0].box.corners == pytest.approx(KNOWN_BOX.corners)
    assert records[0].entries[0].score == 0.5


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = others(tmp_path / "labels", {"a": []})
    (path / "data").rename(tmp_path / "pictures")
    (record,) = read(path, Reading(images=tmp_path / "pictures"))
    assert record.image == "../pictures/a.jpg"


def test_a_list_of_pictures_may_stand_for_their_folder(tmp_path: Path) -> None:
    path = others(tmp_path, {"a": []})
    (path / "data.json").write_text(json.dumps({"a": "elsewhere/a.png"}))
    (record,) = read(path / "labels.json", Reading())
    assert record.image == "elsewhere/a.png"


def test_bad_labels_are_refused_by_name_and_the_others_are_read(tmp_path: Path) -> None:
    labels = {
        "bad": [{"label": "dog", "bounding_box": [10, 5, 20, 15]}],
        "worse": [{"label": "dog"}],
        "good": [],
        "gone": [],
    }
    path = others(tmp_path, labels)
    (path / "data" / "gone.jpg").unlink()
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(f"{where}: {error}"))
    assert [record.id for record in read(path, reading)] == ["good"]
    assert [text.split(": ")[1] for text in refused] == ["bad", "worse", "gone"]


def test_another_export_of_fiftyone_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"samples": []}))
    with pytest.raises(RecordError, match="FiftyOneImageDetectionDataset"):
        list(read(tmp_path, Reading()))
