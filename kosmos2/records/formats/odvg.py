"""ODVG, the JSON lines that MMDetection's grounding detectors (MM-Grounding-DINO) learn from.

    {"filename": "dog.jpg", "height": 480, "width": 640, "grounding": {"caption": "a dog and a cat",
     "regions": [{"bbox": [64.0, 48.0, 320.0, 432.0], "phrase": "a dog",
                  "tokens_positive": [[0, 5]]}]}}

`bbox` is x0, y0, x1, y1 in pixels, or a list of those where a phrase has several boxes;
`tokens_positive` counts characters, the end exclusive. MMDetection reads the size from the line
and leaves out boxes that are less than a pixel wide or high. The detection form of ODVG, boxes
with categories and without a caption, is read, not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.format import (
    KEPT,
    Feature,
    Format,
    Reading,
    Writing,
    by_span,
    each,
)
from kosmos2.records.formats.labels import caption_of, class_name
from kosmos2.records.formats.objects import (
    FOREIGN,
    beside,
    image_of,
    pixels,
    read_objects,
    understood,
    write_lines,
)
from kosmos2.records.record import Grounded, GroundedRecord


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield the records of a file of ODVG lines."""

    def record(line: dict[str, Any]) -> GroundedRecord:
        if "grounding" in line:
            caption, entries = _grounding(line)
        elif "detection" in line:
            caption, entries = _detection(line)
        else:
            raise RecordError(f"an ODVG line has `grounding` or `detection`, got {sorted(line)}")
        said = {
            "image": image_of(line["filename"], path, reading),
            "width": line["width"],
            "height": line["height"],
            "caption": caption,
        }
        return carried.whole({**line.get("record", FOREIGN), **said}, entries)

    yield from each(read_objects(path), understood(record, "ODVG"), reading.refuse)


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write a line for each record, with the boxes of its entries."""

    def line(record: GroundedRecord) -> dict[str, Any]:
        if record.image is None:
            raise RecordError(
                f"record {record.id}: ODVG needs the file of a picture, this one has only its url "
                f"{record.url}; download the pictures and name them in the records' `image`"
            )
        width, height = writing.pictures.size(record)
        return {
            "filename": record.image,
            "height": height,
            "width": width,
            "grounding": {
                "caption": record.caption,
                "regions": [
                    _region(record.caption, span, group, (width, height))
                    for span, group in by_span(record.entries).items()
                ],
            },
            "record": beside(record, "image", "width", "height", "caption"),
        }

    named = ((f"record {record.id}", record) for record in records)
    write_lines(each(named, line, writing.refuse), path)


def _region(
    caption: str, span: tuple[int, int], group: list[Grounded], size: tuple[int, int]
) -> dict[str, Any]:
    boxes = [pixels(entry.box, size) for entry in group]
    scores = [entry.score for entry in group]
    measured = any(score is not None for score in scores)
    return {
        "bbox": boxes if len(boxes) > 1 else boxes[0],
        "phrase": caption[slice(*span)],
        "tokens_positive": [list(span)],
        **({"score": scores} if measured else {}),
    }


def _grounding(line: Mapping[str, Any]) -> tuple[str, tuple[Grounded, ...]]:
    caption = line["grounding"]["caption"]
    entries = []
    for region in line["grounding"]["regions"]:
        corners = region["bbox"]
        several = corners if isinstance(corners[0], list) else [corners]
        scores = region.get("score", [None] * len(several))
        for box, score in zip(several, scores, strict=True):
            inside = _inside(box, line)
            entries += [
                Grounded(start, end, *inside.corners, score)
                for start, end in region["tokens_positive"]
            ]
    return caption, tuple(entries)


def _detection(line: Mapping[str, Any]) -> tuple[str, tuple[Grounded, ...]]:
    return caption_of(
        (
            class_name(str(item.get("category", f"class {item['label']}"))),
            _inside(item["bbox"], line),
            item.get("score"),
        )
        for item in line["detection"]["instances"]
    )


def _inside(corners: list[float], line: Mapping[str, Any]) -> Box:
    return carried.clipped_box("region", corners, (line["width"], line["height"]))


ODVG = Format(
    name="odvg",
    title="ODVG of MMDetection (grounding)",
    layout="a file of JSON lines (.jsonl); pictures stay where they are",
    coordinates="pixels x0, y0, x1, y1 from the upper left corner, with decimals",
    carries={**dict.fromkeys(Feature, KEPT), Feature.BOXES: "in pixels, with 9 decimals"},
    read=read,
    write=write,
)
