"""Label Studio tasks: a JSON list to import, and the same list exported after people edited it.

    [{"data": {"image": "/data/local-files/?d=dog.jpg", "text": "a dog by a fire",
               "labels": [{"value": "a dog"}]},
      "predictions": [{"model_version": "kosmos2", "result": [
        {"id": "span-0", "type": "labels", "from_name": "phrase", "to_name": "text",
         "value": {"start": 0, "end": 5, "text": "a dog", "labels": ["phrase"]}},
        {"id": "box-0", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
         "original_width": 640, "original_height": 480, "image_rotation": 0, "score": 0.9,
         "value": {"x": 10.0, "y": 5.0, "width": 50.0, "height": 90.0, "rotation": 0,
                   "rectanglelabels": ["a dog"]}},
        {"type": "relation", "from_id": "box-0", "to_id": "span-0", "direction": "right"}]}]}]

x, y, width and height are percent of the picture. A span is a region of the text, and a relation
ties a box to it; a box that has none belongs to the words of its label. Labels are the phrases of
each task, so the project needs the interface `INTERFACE`. Read back, a task's newest annotation
that nobody cancelled counts, or else its newest prediction. Local files are served where
`LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED` and `LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` are set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

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
from kosmos2.records.formats.objects import (
    FOREIGN,
    beside,
    image_of,
    located,
    read_objects,
    understood,
    write_list,
)
from kosmos2.records.record import Grounded, GroundedRecord

INTERFACE = """\
<View>
  <Text name="text" value="$text"/>
  <Labels name="phrase" toName="text"><Label value="phrase"/></Labels>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" value="$labels"/>
</View>
"""
"""What to paste under Settings, Labeling Interface, Code."""

_LOCAL = "/data/local-files/?d="
_URLS = ("http://", "https://")
_PERCENT = 100

Result = Mapping[str, Any]


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write a task for each record, its boxes as a prediction for people to correct."""

    def task(record: GroundedRecord) -> dict[str, Any]:
        if record.image is None and record.url is None:
            raise RecordError(f"record {record.id}: a task needs a picture or its url")
        spans = by_span(record.entries)
        size = writing.pictures.size(record) if spans else None
        phrases = dict.fromkeys(record.caption[start:end] for start, end in spans)
        model = record.provenance.model if record.provenance else "kosmos2"
        results = [
            result
            for number, (span, group) in enumerate(spans.items())
            for result in _results(number, record.caption, span, group, size)
        ]
        return {
            "data": {
                "image": _LOCAL + quote(record.image) if record.image else record.url,
                "text": record.caption,
                "labels": [{"value": phrase} for phrase in phrases],
                "record": beside(record, "image", "caption"),
            },
            "predictions": [{"model_version": model, "result": results}],
        }

    named = ((f"record {record.id}", record) for record in records)
    write_list(each(named, task, writing.refuse), path)


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield the records of exported (JSON, not JSON-MIN) or of imported tasks."""

    def record(task: dict[str, Any]) -> GroundedRecord:
        data = task["data"]
        kept = dict(data.get("record", {**FOREIGN, "id": task.get("id")}))
        if data["image"].startswith(_URLS):
            kept["url"] = data["image"]
        else:
            name = unquote(data["image"].removeprefix(_LOCAL))
            kept["image"] = image_of(name, path, reading)
        results = _newest(task)
        caption = _caption(data.get("text", ""), results)
        caption, entries = _entries(caption, results)
        return carried.whole({**kept, "caption": caption}, entries)

    yield from each(read_objects(path), understood(record, "a Label Studio task"), reading.refuse)


def _results(
    number: int,
    caption: str,
    span: tuple[int, int],
    group: Sequence[Grounded],
    size: tuple[int, int] | None,
) -> Iterator[dict[str, Any]]:
    """Yield the region of the text, the rectangles and what ties them together."""
    assert size is not None, "boxes are written with the size of their picture"
    phrase, region = caption[slice(*span)], f"span-{number}"
    words = {"start": span[0], "end": span[1], "text": phrase, "labels": ["phrase"]}
    yield {
        "id": region,
        "type": "labels",
        "from_name": "phrase",
        "to_name": "text",
        "value": words,
    }
    for place, entry in enumerate(group):
        box = f"box-{number}-{place}"
        x, y, width, height = (round(_PERCENT * value, 9) for value in entry.box.to_xywh())
        scored = {} if entry.score is None else {"score": entry.score}
        yield {
            "id": box,
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": size[0],
            "original_height": size[1],
            "image_rotation": 0,
            "value": {
                "x": x,
                "y": y,
                "width": width,
                "height": height,
                "rotation": 0,
                "rectanglelabels": [phrase],
            },
            **scored,
        }
        yield {"type": "relation", "from_id": box, "to_id": region, "direction": "right"}


def _newest(task: Mapping[str, Any]) -> Sequence[Result]:
    made = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
    made = made or [each for each in task.get("predictions", ()) if isinstance(each, dict)]
    if not made:
        return ()
    newest: Sequence[Result] = max(made, key=lambda item: item.get("updated_at") or "")["result"]
    return newest


def _caption(text: str, results: Iterable[Result]) -> str:
    """Return the caption as somebody rewrote it in a text area, or as it was."""
    for result in results:
        if result.get("type") == "textarea":
            return str(result["value"]["text"][0])
    return text


def _entries(caption: str, results: Sequence[Result]) -> tuple[str, tuple[Grounded, ...]]:
    regions = {
        result["id"]: _span(caption, result["value"])
        for result in results
        if result.get("type") == "labels"
    }
    ties = _ties(results, regions)
    entries: list[Grounded] = []
    for result in results:
        if result.get("type") != "rectanglelabels":
            continue
        box, score = _box(result), result.get("score")
        spans = [span for region in ties.get(result["id"], ()) if (span := regions[region])]
        if spans:
            entries += [Grounded(*span, *box.corners, score) for span in spans]
        else:
            labels = result["value"]["rectanglelabels"]
            caption, found = located(caption, [(label, box, score) for label in labels])
            entries += found
    return caption, tuple(entries)


def _ties(results: Iterable[Result], regions: Mapping[str, object]) -> dict[str, list[str]]:
    """Return box -> regions of the text, whichever of the two a relation starts from."""
    ties: dict[str, list[str]] = {}
    drawn = [item for item in results if item.get("type") == "relation"]
    for box, region in [(item["from_id"], item["to_id"]) for item in drawn] + [
        (item["to_id"], item["from_id"]) for item in drawn
    ]:
        if region in regions:
            ties.setdefault(box, []).append(region)
    return ties


def _span(caption: str, value: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the span of a region; where its words are elsewhere, or None if the caption lost them.

    The end of a region is exclusive, as in the text itself.
    """
    start, end, words = value["start"], value["end"], value.get("text")
    if words is None or caption[start:end] == words:
        return start, end
    place = caption.find(words)
    return (place, place + len(words)) if words and place >= 0 else None


def _box(result: Result) -> Box:
    """Return the box, the smallest upright one around it where somebody rotated it."""
    value = result["value"]
    x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
    if not value.get("rotation"):
        right, bottom = x + width, y + height
        return carried.clipped_box("region", (x, y, right, bottom), (_PERCENT, _PERCENT))
    # It turns clockwise around its upper left corner, on the picture as it looks, not in percent.
    wide, high = result["original_width"], result["original_height"]
    turn = math.radians(value["rotation"])
    sides = [(0.0, 0.0), (width * wide, 0.0), (0.0, height * high), (width * wide, height * high)]
    xs = [x * wide + u * math.cos(turn) - v * math.sin(turn) for u, v in sides]
    ys = [y * high + u * math.sin(turn) + v * math.cos(turn) for u, v in sides]
    corners = (min(xs), min(ys), max(xs), max(ys))
    return carried.clipped_box("region", corners, (_PERCENT * wide, _PERCENT * high))


LABEL_STUDIO = Format(
    name="labelstudio",
    title="Label Studio tasks",
    layout="a JSON file with a list of tasks; pictures stay where they are, served as local files",
    coordinates="x, y, width, height in percent of the picture, from its upper left corner",
    carries={**dict.fromkeys(Feature, KEPT), Feature.BOXES: "in percent, with 9 decimals"},
    read=read,
    write=write,
)
