"""COCO: whole records come back, COCO's own readers agree, files of others are read."""

import json
import re
from dataclasses import replace
from pathlib import Path

import faster_coco_eval
import pytest
from format_law import assert_boxes_near, assert_law
from supervision import DetectionDataset

from examples import KNOWN_BOX, KNOWN_PIXELS, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.coco import COCO, read, write
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "coco", Writing(pictures=Pictures(folder)))
    return folder / "coco"


def read_again(path: Path) -> list[GroundedRecord]:
    return list(read(path, Reading()))


def document(folder: Path, **changes: object) -> Path:
    """Write a COCO file as others have it: no key of ours, the known box, an image 40 x 30."""
    image = {"id": 139, "file_name": "1-known.png", "width": 40, "height": 30}
    box = {"id": 1, "image_id": 139, "category_id": 18, "bbox": [10, 5, 20, 15], "iscrowd": 0}
    whole: dict[str, object] = {
        "info": {},
        "images": [image],
        "annotations": [box],
        "categories": [{"id": 18, "name": "dog"}],
        **changes,
    }
    path = folder / "instances_val.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def test_records_come_back_whole_but_for_the_last_digit_of_boxes(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    again = read_again(written(examples, tmp_path))
    assert_law(COCO, examples, again)
    assert_boxes_near(examples, again, pixels=1e-8)


def test_the_known_box_is_written_as_corner_and_size_in_pixels(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    annotation = json.loads((path / "instances.json").read_text())["annotations"][0]
    assert annotation["bbox"] == [10, 5, 20, 15]
    assert annotation["area"] == 300
    assert annotation["phrase"] == "a white square"
    assert annotation["span"] == [0, 14]


def test_the_library_of_coco_reads_both_files(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(examples, tmp_path)
    instances, captions = (
        faster_coco_eval.COCO(path / "instances.json"),
        faster_coco_eval.COCO(path / "captions.json"),
    )
    assert len(instances.getImgIds()) == len(captions.getImgIds()) == len(examples)
    assert len(instances.getAnnIds()) == sum(len(record.entries) for record in examples)
    names = {each["name"] for each in instances.loadCats(instances.getCatIds())}
    assert {"white square", "two cats", "fire"} <= names
    spoken = [each["caption"] for each in captions.loadAnns(captions.getAnnIds())]
    assert spoken == [record.caption for record in examples]


def test_supervision_sees_the_boxes_where_they_are(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    path = written(examples, tmp_path)
    seen = DetectionDataset.from_coco(str(tmp_path), str(path / "instances.json"))
    found = seen.annotations[str(tmp_path / "1-known.png")]
    assert found.xyxy.tolist() == [list(KNOWN_PIXELS)]
    assert [seen.classes[each] for each in found.class_id] == ["white square"]


def test_a_file_of_others_gives_class_names_as_the_caption(tmp_path: Path) -> None:
    (record,) = read_again(document(tmp_path))
    assert record.id == 139
    assert (record.width, record.height) == (40, 30)
    assert record.caption == "dog"
    assert record.entries[0].box == KNOWN_BOX


def test_sizes_that_a_file_lacks_are_those_of_the_pictures(tmp_path: Path) -> None:
    known_record(tmp_path / "elsewhere")
    path = document(tmp_path, images=[{"id": 139, "file_name": "1-known.png"}])
    (record,) = read(path, Reading(images=tmp_path / "elsewhere"))
    assert record.image == "elsewhere/1-known.png"
    assert record.entries[0].box == KNOWN_BOX


def test_boxes_over_the_edge_are_cut_off_there(tmp_path: Path) -> None:
    box = {"id": 1, "image_id": 139, "category_id": 18, "bbox": [-2.5, 10, 80, 20.5]}
    (record,) = read_again(document(tmp_path, annotations=[box]))
    assert record.entries[0].box.to_pixels(width=40, height=30) == (0, 10, 40, 30)


def test_captions_alone_give_a_record_for_each(tmp_path: Path) -> None:
    spoken = [{"id": n, "image_id": 139, "caption": f"sentence {n}"} for n in (1, 2)]
    path = document(tmp_path, annotations=spoken)
    records = read_again(path)
    assert [record.caption for record in records] == ["sentence 1", "sentence 2"]
    assert [record.image for record in records] == ["1-known.png"] * 2
    assert all(record.entries == () for record in records)


def test_captions_of_others_go_along_with_their_boxes(tmp_path: Path) -> None:
    path = document(tmp_path)
    captions = {
        "images": json.loads(path.read_text())["images"],
        "annotations": [{"id": 1, "image_id": 139, "caption": "A dog runs."}],
    }
    (tmp_path / "captions_val.json").write_text(json.dumps(captions))
    (record,) = read_again(tmp_path)
    assert record.caption == "dog"
    assert record.extra == {"captions": ["A dog runs."]}


def test_boxes_that_a_tool_added_are_appended_to_the_caption(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path) / "instances.json"
    whole = json.loads(path.read_text())
    whole["categories"].append({"id": 2, "name": "lamp"})
    added = {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 3]}
    whole["annotations"].append(added)
    path.write_text(json.dumps(whole))
    (record,) = read_again(path)
    assert record.caption == "a white square; lamp"
    assert [record.caption[each.start : each.end] for each in record.entries] == [
        "a white square",
        "lamp",
    ]


@pytest.mark.parametrize(
    ("box", "named"),
    [
        ({"bbox": [1, 2, 3]}, r"annotation 5: bbox must be .*\[1, 2, 3\]"),
        ({"bbox": [1, 2, -3, 4]}, r"annotation 5: a box needs"),
        ({"bbox": [1, 2, 3, 4], "category_id": 99}, r"annotation 5 has the category 99"),
    ],
)
def test_a_bad_annotation_is_refused_by_image_and_number(
    box: dict[str, object], named: str, tmp_path: Path
) -> None:
    path = document(tmp_path, annotations=[{"id": 5, "image_id": 139, "category_id": 18, **box}])
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(f"{where}: {error}"))
    assert list(read(path, reading)) == []
    assert re.search(f"instances_val.json: image 139: {named}", refused[0])


def test_records_with_a_url_alone_come_back_without_a_picture(tmp_path: Path) -> None:
    record = replace(known_record(tmp_path), image=None, url="https://example.com/a.jpg")
    path = written([record], tmp_path)
    (image,) = json.loads((path / "captions.json").read_text())["images"]
    assert image["coco_url"] == "https://example.com/a.jpg"
    (again,) = read_again(path)
    assert (again.image, again.url) == (None, "https://example.com/a.jpg")


def test_a_record_of_unknown_size_is_refused_and_the_others_are_written(tmp_path: Path) -> None:
    known = known_record(tmp_path)
    refused: list[str] = []
    writing = Writing(
        pictures=Pictures(tmp_path), refuse=lambda where, error: refused.append(where)
    )
    unknown = replace(known, id="gone", image="gone.png", width=None, height=None)
    write([unknown, known], tmp_path / "coco", writing)
    assert refused == ["record gone"]
    assert [record.id for record in read_again(tmp_path / "coco")] == [1]


def test_annotations_of_an_image_that_is_not_listed_are_refused_not_forgotten(
    tmp_path: Path,
) -> None:
    stray = {"id": 5, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]}
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(str(error)))
    assert len(list(read(document(tmp_path, annotations=[stray, stray]), reading))) == 1
    assert refused == ["no image 7 is listed for 2 annotations"]


@pytest.mark.parametrize(
    "changes",
    [{"images": {}}, {"annotations": [3]}, {"images": [{"id": [1]}]}, {"categories": [None]}],
)
def test_a_file_that_is_no_coco_is_refused_by_list_and_value(
    changes: dict[str, object], tmp_path: Path
) -> None:
    (name,) = changes
    with pytest.raises(RecordError, match=rf"instances_val\.json.*{name}"):
        read_again(document(tmp_path, **changes))


def test_a_folder_without_a_file_of_coco_is_refused_by_what_it_has(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RecordError, match=r"a\.json.*name one JSON file"):
        read_again(tmp_path)
