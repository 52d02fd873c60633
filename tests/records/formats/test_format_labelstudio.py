"""Label Studio tasks: percent and spans going out, what people did coming back."""

import json
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from format_law import assert_boxes_near, assert_law

from examples import KNOWN_BOX, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.labelstudio import INTERFACE, LABEL_STUDIO, read, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

Task = dict[str, Any]


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "tasks.json", Writing(pictures=Pictures(folder)))
    return folder / "tasks.json"


def tasks_of(path: Path) -> list[Task]:
    found: list[Task] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_tasks(tasks: list[Task], folder: Path) -> list[GroundedRecord]:
    (folder / "export.json").write_text(json.dumps(tasks, indent=1), encoding="utf-8")
    return list(read(folder / "export.json", Reading()))


def known_task(folder: Path) -> Task:
    """Return the task of the known record as an export has it once somebody submitted it."""
    (task,) = tasks_of(written([known_record(folder)], folder))
    result = deepcopy(task["predictions"][0]["result"])
    return {**task, "id": 901, "annotations": [{"id": 5, "was_cancelled": False, "result": result}]}


def of_type(task: Task, kind: str) -> list[Any]:
    return [each for each in task["annotations"][0]["result"] if each["type"] == kind]


def test_records_come_back_whole(examples: list[GroundedRecord], tmp_path: Path) -> None:
    again = list(read(written(examples, tmp_path), Reading()))
    assert_law(LABEL_STUDIO, examples, again)
    assert_boxes_near(examples, again, pixels=1e-8)


def test_the_known_box_is_written_in_percent(tmp_path: Path) -> None:
    task = known_task(tmp_path)
    (box,) = of_type(task, "rectanglelabels")
    value = box["value"]
    assert (value["x"], value["width"], value["height"]) == (25, 50, 50)
    assert value["y"] == pytest.approx(100 / 6)
    assert (box["original_width"], box["original_height"]) == (40, 30)
    assert value["rectanglelabels"] == ["a white square"]
    assert task["data"]["image"] == "/data/local-files/?d=1-known.png"


def test_results_name_the_parts_of_the_interface(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    # As Label Studio checks predictions: from_name is a control, to_name what that control labels,
    # and its own keys stand in `value` under the name of the type.
    interface = ET.fromstring(INTERFACE)
    controls = {each.get("name"): each for each in interface if each.get("toName")}
    shown = {each.get("name"): (each.get("value") or "").lstrip("$") for each in interface}
    for task in tasks_of(written(examples, tmp_path)):
        assert {shown["text"], shown["image"], shown["label"]} <= set(task["data"])
        offered = {each["value"] for each in task["data"]["labels"]}
        ids = []
        for result in task["predictions"][0]["result"]:
            if result["type"] == "relation":
                assert {result["from_id"], result["to_id"]} <= set(ids)
                continue
            ids.append(result["id"])
            control = controls[result["from_name"]]
            assert control.tag.lower() == result["type"]
            assert control.get("toName") == result["to_name"]
            if result["type"] == "rectanglelabels":
                assert set(result["value"]["rectanglelabels"]) <= offered
        assert len(ids) == len(set(ids))


def test_a_moved_and_a_new_box_come_back(tmp_path: Path) -> None:
    task = known_task(tmp_path)
    (box,) = of_type(task, "rectanglelabels")
    box["value"] |= {"x": 50.0, "y": 50.0}
    new = {**deepcopy(box), "id": "xY3"}
    new["value"] |= {"x": 0, "y": 0, "rectanglelabels": ["square"]}
    task["annotations"][0]["result"].append(new)
    (record,) = read_tasks([task], tmp_path)
    moved, added = record.entries
    assert moved.box.corners == (0.5, 0.5, 1, 1)
    assert (moved.start, moved.end) == (0, 14)
    assert added.box.corners == (0, 0, 0.5, 0.5)
    assert record.caption[added.start : added.end] == "square"
    assert record.id == 1, "ours, not the number that Label Studio gave the task"


def test_a_box_tied_to_other_words_changes_its_span(tmp_path: Path) -> None:
    task = known_task(tmp_path)
    (region,) = of_type(task, "labels")
    region["value"] |= {"start": 2, "end": 7, "text": "white"}
    (record,) = read_tasks([task], tmp_path)
    assert [(each.start, each.end) for each in record.entries] == [(2, 7)]


def test_a_rewritten_caption_keeps_spans_whose_words_it_has(tmp_path: Path) -> None:
    task = known_task(tmp_path)
    area = {"type": "textarea", "from_name": "caption", "to_name": "image", "id": "t"}
    text = "here is a white square"
    task["annotations"][0]["result"].append({**area, "value": {"text": [text]}})
    (record,) = read_tasks([task], tmp_path)
    assert record.caption == text
    assert [(each.start, each.end) for each in record.entries] == [(8, 22)]


def test_the_newest_annotation_that_was_not_cancelled_counts(tmp_path: Path) -> None:
    task = known_task(tmp_path)
    empty = {"result": [], "was_cancelled": False, "updated_at": "2026-02-01T00:00:00Z"}
    task["annotations"][0]["updated_at"] = "2026-01-01T00:00:00Z"
    task["annotations"].append(empty)
    assert read_tasks([task], tmp_path)[0].entries == ()
    task["annotations"][1]["was_cancelled"] = True
    assert len(read_tasks([task], tmp_path)[0].entries) == 1
    task["annotations"] = []
    assert len(read_tasks([task], tmp_path)[0].entries) == 1, "the prediction is left"


def test_a_rotated_box_becomes_the_upright_one_around_it(tmp_path: Path) -> None:
    task = known_task(tmp_path)
    (box,) = of_type(task, "rectanglelabels")
    # On 40 x 30 pixels: the corner (20, 6), 10 wide and 6 high, a quarter turn clockwise around
    # the corner: it then reaches 6 to the left and 10 down.
    box["value"] |= {"x": 50, "y": 20, "width": 25, "height": 20, "rotation": 90}
    (record,) = read_tasks([task], tmp_path)
    expected = (14 / 40, 6 / 30, 20 / 40, 16 / 30)
    for corner, wanted in zip(record.entries[0].box.corners, expected, strict=True):
        assert math.isclose(corner, wanted, abs_tol=1e-9)


def test_tasks_of_others_are_read(tmp_path: Path) -> None:
    value = {"x": 25, "y": 100 / 6, "width": 50, "height": 50, "rectanglelabels": ["dog"]}
    result = {"id": "a", "type": "rectanglelabels", "from_name": "b", "to_name": "c"}
    task = {
        "id": 7,
        "data": {"image": "https://example.com/a.jpg"},
        "annotations": [{"result": [{**result, "value": value}]}],
    }
    (record,) = read_tasks([task], tmp_path)
    assert (record.id, record.url, record.image) == (7, "https://example.com/a.jpg", None)
    assert record.caption == "dog"
    for corner, wanted in zip(record.entries[0].box.corners, KNOWN_BOX.corners, strict=True):
        assert math.isclose(corner, wanted)


@pytest.mark.parametrize("broken", [{"data": {}}, {}, {"data": {"image": 5}}, [1]])
def test_what_is_no_task_is_refused(broken: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="Label Studio"):
        read_tasks([broken], tmp_path)


def test_a_list_that_breaks_off_is_refused_with_its_place(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)] * 2, tmp_path)
    path.write_text(path.read_text()[:-40])
    records = read(path, Reading())
    next(records)
    with pytest.raises(RecordError, match="item 1"):
        next(records)


def test_names_with_blanks_and_letters_survive_the_url(tmp_path: Path) -> None:
    record = replace(known_record(tmp_path), image="ünicode/a b#?.png")
    path = written([record], tmp_path)
    assert tasks_of(path)[0]["data"]["image"].isascii()
    assert next(read(path, Reading())).image == record.image
