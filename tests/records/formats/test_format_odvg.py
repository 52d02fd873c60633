"""ODVG: what MMDetection's reader takes from a line is what a record holds, and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from format_law import assert_boxes_near, assert_law

from examples import KNOWN_BOX, KNOWN_PIXELS, known_record
from kosmos2.errors import Kosmos2Error, RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.odvg import ODVG, read, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "odvg.jsonl", Writing(pictures=Pictures(folder)))
    return folder / "odvg.jsonl"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def foreign(folder: Path, **fields: object) -> list[GroundedRecord]:
    path = folder / "theirs.jsonl"
    line = {"filename": "1-known.png", "height": 30, "width": 40, **fields}
    path.write_text(json.dumps(line), encoding="utf-8")
    return list(read(path, Reading()))


def as_mmdetection_reads(line: dict[str, Any]) -> list[tuple[list[float], str, list[list[int]]]]:
    """What `ODVGDataset.load_data_list` makes of a line (mmdet 3.3, written anew from its rules).

    A region's bbox is one box or a list of them; boxes without a pixel inside the picture, or
    narrower or lower than a pixel, are left out.
    """
    found = []
    for region in line["grounding"]["regions"]:
        boxes = region["bbox"] if isinstance(region["bbox"][0], list) else [region["bbox"]]
        for x0, y0, x1, y1 in boxes:
            inside_x = max(0, min(x1, line["width"]) - max(x0, 0))
            inside_y = max(0, min(y1, line["height"]) - max(y0, 0))
            if inside_x * inside_y and x1 - x0 >= 1 and y1 - y0 >= 1:
                found.append(([x0, y0, x1, y1], region["phrase"], region["tokens_positive"]))
    return found


def test_records_come_back_whole(examples: list[GroundedRecord], tmp_path: Path) -> None:
    again = list(read(written(examples, tmp_path), Reading()))
    assert_law(ODVG, examples, again)
    assert_boxes_near(examples, again, pixels=1e-8)


def test_the_known_box_is_written_as_its_pixel_corners(tmp_path: Path) -> None:
    (line,) = lines_of(written([known_record(tmp_path)], tmp_path))
    assert (line["filename"], line["width"], line["height"]) == ("1-known.png", 40, 30)
    (region,) = line["grounding"]["regions"]
    assert region["bbox"] == list(KNOWN_PIXELS)
    assert region["phrase"] == "a white square"
    assert region["tokens_positive"] == [[0, 14]]


def test_mmdetection_finds_every_box_with_its_words(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    for record, line in zip(examples, lines_of(written(examples, tmp_path)), strict=True):
        found = as_mmdetection_reads(line)
        assert len(found) == len(record.entries)
        caption = line["grounding"]["caption"]
        for _, phrase, ((start, end),) in found:
            assert caption[start:end] == phrase


def test_the_boxes_of_one_span_are_one_region(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    regions = lines_of(written(examples, tmp_path))[1]["grounding"]["regions"]
    assert [region["phrase"] for region in regions] == ["two cats", "a red chair"]
    assert [len(region["bbox"]) for region in regions] == [2, 4]


def test_lines_of_others_are_read(tmp_path: Path) -> None:
    regions = [
        {"bbox": [10, 5, 30, 20], "phrase": "a dog", "tokens_positive": [[0, 5]]},
        {"bbox": [[0, 0, 4, 3], [-3, 0, 45, 30]], "phrase": "cats", "tokens_positive": [[10, 14]]},
    ]
    (record,) = foreign(tmp_path, grounding={"caption": "a dog and cats", "regions": regions})
    assert record.image == "1-known.png"
    assert record.entries[0].box == KNOWN_BOX
    # What lies outside the picture is cut off.
    assert record.entries[2].box.corners == (0, 0, 1, 1)
    assert [record.caption[e.start : e.end] for e in record.entries] == ["a dog", "cats", "cats"]


def test_the_detection_form_becomes_a_list_of_its_categories(tmp_path: Path) -> None:
    box = [10, 5, 30, 20]
    instances = [
        {"bbox": box, "label": 3, "category": "dog"},
        {"bbox": box, "label": 4, "category": "cat"},
    ]
    (record,) = foreign(tmp_path, detection={"instances": instances})
    assert record.caption == "dog; cat"
    assert [entry.box for entry in record.entries] == [KNOWN_BOX, KNOWN_BOX]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"grounding": {"regions": []}},
        {"grounding": {"caption": "a", "regions": [{"bbox": [1, 2, 3]}]}},
        {"grounding": {"caption": "a", "regions": "none"}},
        {
            "grounding": {
                "caption": "a",
                "regions": [{"bbox": [9, 2, 3, 9], "phrase": "a", "tokens_positive": [[0, 1]]}],
            }
        },
        {
            "grounding": {
                "caption": "a",
                "regions": [{"bbox": [1, 2, 3, 4], "phrase": "a", "tokens_positive": [[0, 9]]}],
            }
        },
        {"width": 0, "detection": {"instances": [{"bbox": [1, 2, 3, 4], "label": 1}]}},
    ],
)
def test_a_line_that_is_wrong_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        foreign(tmp_path, **fields)


def test_a_wrong_line_ends_nothing(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    path.write_text(f"no json\n{path.read_text()}[1]\n", encoding="utf-8")
    refused: list[tuple[str, Kosmos2Error]] = []
    records = list(read(path, Reading(refuse=lambda where, error: refused.append((where, error)))))
    assert len(records) == 1
    assert [where for where, _ in refused] == [f"{path}:1", f"{path}:3"]


def test_a_record_without_a_file_is_refused_with_its_url(tmp_path: Path) -> None:
    record = replace(known_record(tmp_path), image=None, url="https://example.com/a.png")
    with pytest.raises(RecordError, match=r"https://example.com/a.png.*download"):
        written([record], tmp_path)


def test_names_of_pictures_may_start_from_another_folder(tmp_path: Path) -> None:
    path = written([known_record(tmp_path)], tmp_path)
    (record,) = read(path, Reading(images=tmp_path / "pictures"))
    assert record.image == "pictures/1-known.png"
