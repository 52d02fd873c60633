"""FiftyOne: a folder that its `FiftyOneImageDetectionDataset` imports.

    data/dog.jpg
    labels.json   {"labels": {"dog": [{"label": "white square", "confidence": 0.5,
                    "bounding_box": [0.25, 0.1667, 0.5, 0.5],
                    "attributes": {"phrase": "a white square", "start": 0, "end": 14}}]},
                   "records": {"dog": {"id": 7, "caption": "a white square", ...}},
                   "classes": ["white square"]}

    dataset = fiftyone.Dataset.from_dir(folder, fiftyone.types.FiftyOneImageDetectionDataset)

A box is its top left corner, width and height as shares of the picture. FiftyOne passes over
"records"; `sample["caption"] = records[stem]["caption"]` shows captions there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.document import Document, load
from kosmos2.records.formats.folder import pictures_in, place
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.labels import class_name
from kosmos2.records.formats.objects import image_of, located, understood
from kosmos2.records.record import Grounded, GroundedRecord

LABELS = "labels.json"
_DATA = "data"


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write pictures and labels into a new folder; only the class names are held in memory."""
    data = path / _DATA
    data.mkdir(parents=True)

    def placed(record: GroundedRecord) -> tuple[str, GroundedRecord]:
        return Path(place(record, writing.pictures, data)).stem, record

    named = ((f"record {record.id}", record) for record in records)
    classes: dict[str, None] = {}
    with Document(path / LABELS, maps=("labels", "records"), lists=("classes",)) as labels:
        for name, record in each(named, placed, writing.refuse):
            detections = [_detection(record, entry) for entry in record.entries]
            classes.update(dict.fromkeys(detection["label"] for detection in detections))
            labels.put("labels", name, detections)
            labels.put("records", name, carried.rest(record))
        for known in classes:
            labels.append("classes", known)


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield the records of a folder, or of its labels file, in the order of the labels.

    The labels are held in memory, as their format asks for.
    """
    file = path / LABELS if path.is_dir() else path
    document = load(file)
    labels, records = document.get("labels"), document.get("records", {})
    if not isinstance(labels, dict) or not isinstance(records, dict):
        raise RecordError(
            f'{file}: labels of FiftyOne have a map "labels", got {sorted(document)}. Datasets '
            "exported as FiftyOneDataset are another layout: export FiftyOneImageDetectionDataset"
        )
    pictures = _pictures(file.parent, reading)
    classes = document.get("classes") or []

    def record(item: dict[str, Any]) -> GroundedRecord:
        name = item["name"]
        if name not in pictures:
            raise RecordError(f"has labels, but no picture {name}.* is in {_DATA}/")
        rest = records.get(name, {**carried.NOTHING, "id": name, "caption": ""})
        entries, added = [], []
        for detection in item["detections"] or ():
            box, score = _box(detection), detection.get("confidence")
            known = detection.get("attributes") or {}
            if "start" in known and "end" in known:
                entries.append(Grounded(known["start"], known["end"], *box.corners, score))
            else:
                added.append((_label(detection["label"], classes), box, score))
        caption, found = located(rest["caption"], added)
        said = {"image": pictures[name], "shard": None, "caption": caption}
        return carried.whole({**rest, **said}, [*entries, *found])

    named = (
        (f"{file}: {name}", {"name": name, "detections": detections})
        for name, detections in labels.items()
    )
    yield from each(named, understood(record, "FiftyOne"), reading.refuse)


def _detection(record: GroundedRecord, entry: Grounded) -> dict[str, Any]:
    phrase = record.caption[entry.start : entry.end]
    scored = {} if entry.score is None else {"confidence": entry.score}
    return {
        "label": class_name(phrase),
        "bounding_box": list(entry.box.to_xywh()),
        **scored,
        "attributes": {"phrase": phrase, "start": entry.start, "end": entry.end},
    }


def _pictures(folder: Path, reading: Reading) -> Mapping[str, str]:
    """Return name without suffix -> path from the folder on; `data.json` may list them instead."""
    manifest = folder / f"{_DATA}.json"
    if reading.images is None and manifest.is_file():
        return {str(name): str(path) for name, path in load(manifest).items()}
    data = reading.images or folder / _DATA
    found: dict[str, str] = {}
    for picture in pictures_in(data):
        inside = picture.relative_to(data)
        place_ = inside.as_posix() if reading.images else f"{_DATA}/{inside.as_posix()}"
        found[inside.with_suffix("").as_posix()] = image_of(place_, folder / LABELS, reading)
    return found


def _label(label: object, classes: list[Any]) -> str:
    """Return a class name: labels are names, or numbers of `classes`."""
    if isinstance(label, int) and 0 <= label < len(classes):
        return str(classes[label])
    return str(label)


def _box(detection: Mapping[str, Any]) -> Box:
    x, y, width, height = detection["bounding_box"]
    return carried.clipped_box("bounding_box", (x, y, x + width, y + height), (1, 1))


FIFTYONE = Format(
    name="fiftyone",
    title="FiftyOne image detections",
    layout=f"a folder with {_DATA}/, which holds the pictures, and {LABELS}",
    coordinates="bounding_box: [x, y, width, height] as shares of the picture, from the top left",
    carries={
        **dict.fromkeys(Feature, KEPT),
        Feature.PICTURE: f"in {_DATA}/, under its file's name",
        Feature.BOXES: "as shares of the picture, but for the last digit",
    },
    read=read,
    write=write,
)
