"""`supervision.Detections`, the Python object that annotators, trackers and metrics work on.

    detections = to_detections(record, size)     # data["phrase"], data["span"], data["score"]
    record = from_detections(detections[detections.confidence > 0.5], size)

Boxes are `xyxy` in pixels. The caption and all else that is one for the picture go along in
`metadata["record"]`, so that what filters leave over becomes a record again. There is no file of
its own; `supervision` reads the folders of COCO, YOLO and Pascal VOC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kosmos2.boxes import Box
from kosmos2.errors import MissingExtraError
from kosmos2.records.formats import carried
from kosmos2.records.formats.format import KEPT, Feature, Format
from kosmos2.records.formats.labels import caption_of, class_name
from kosmos2.records.formats.objects import located
from kosmos2.records.record import Grounded, GroundedRecord

Detections = Any
"""A `supervision.Detections`; the library need not be there to import this module."""


def to_detections(record: GroundedRecord, size: tuple[int, int]) -> Detections:
    """Return the entries of a record for a picture of width and height `size` in pixels.

    `class_id` counts the class names of this picture; `confidence` is None where a score is not
    known, and data["score"] is not a number for those boxes alone.
    """
    try:
        import supervision
    except ImportError as error:
        raise MissingExtraError(
            "Detections need the library supervision; `pip install supervision`"
        ) from error
    entries = record.entries
    corners = [entry.box.to_pixels(width=size[0], height=size[1]) for entry in entries]
    phrases = [record.caption[entry.start : entry.end] for entry in entries]
    names = [class_name(phrase) for phrase in phrases]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    scores = [np.nan if entry.score is None else entry.score for entry in entries]
    known = bool(entries) and all(entry.score is not None for entry in entries)
    return supervision.Detections(
        xyxy=np.array(corners, dtype=np.float64).reshape(-1, 4),
        class_id=np.array([numbers[name] for name in names], dtype=int),
        confidence=np.array(scores, dtype=np.float64) if known else None,
        data={
            "class_name": np.array(names, dtype=object),
            "phrase": np.array(phrases, dtype=object),
            "span": np.array([entry[:2] for entry in entries], dtype=int).reshape(-1, 2),
            "score": np.array(scores, dtype=np.float64),
        },
        metadata={"record": json.dumps(carried.rest(record))},
    )


def from_detections(detections: Detections, size: tuple[int, int]) -> GroundedRecord:
    """Return the record of detections in a picture of width and height `size` in pixels.

    Of detections that `to_detections` did not make, the caption lists the class names (or "class
    3" where there are none); boxes are cut off at the edges of the picture.
    """
    data: Mapping[str, Any] = detections.data
    boxes = [
        carried.clipped_box(f"detection {number}", [float(corner) for corner in corners], size)
        for number, corners in enumerate(detections.xyxy)
    ]
    scores = list(_scores(detections))
    kept = detections.metadata.get("record")
    if kept is None or ("span" not in data and boxes):
        labelled = list(zip(_names(detections), boxes, scores, strict=True))
        if kept is None:
            caption, entries = caption_of(labelled)
            said = {"width": size[0], "height": size[1], "caption": caption}
            return carried.whole({**carried.NOTHING, **said}, entries)
        rest = json.loads(kept)
        caption, entries = located(rest["caption"], labelled)
        return carried.whole({**rest, "caption": caption}, entries)
    spans = data.get("span", ())
    return carried.whole(json.loads(kept), _rows(spans, boxes, scores))


def _rows(spans: Any, boxes: list[Box], scores: list[float | None]) -> Iterator[Grounded]:  # noqa: ANN401
    for span, box, score in zip(spans, boxes, scores, strict=True):
        yield Grounded(int(span[0]), int(span[1]), *box.corners, score)


def _scores(detections: Detections) -> Iterator[float | None]:
    """Yield a score or None for each detection: the confidence, or what `to_detections` noted."""
    numbers = detections.confidence
    if numbers is None:
        numbers = detections.data.get("score", [np.nan] * len(detections.xyxy))
    for number in numbers:
        yield None if np.isnan(number) else float(number)


def _names(detections: Detections) -> list[str]:
    names = detections.data.get("class_name")
    if names is None and detections.class_id is not None:
        return [f"class {number}" for number in detections.class_id]
    return ["object"] * len(detections.xyxy) if names is None else [str(name) for name in names]


SUPERVISION = Format(
    name="supervision",
    title="supervision Detections",
    layout="a Python object: to_detections and from_detections; there is no file of its own",
    coordinates="xyxy: x0, y0, x1, y1 in pixels, floats",
    carries={**dict.fromkeys(Feature, KEPT), Feature.BOXES: "in pixels as floats"},
)
