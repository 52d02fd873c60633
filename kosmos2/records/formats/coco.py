"""COCO: boxes of classes in `instances.json`, sentences in `captions.json`.

    {"images": [{"id": 1, "file_name": "dog.jpg", "width": 40, "height": 30}],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10.0, 5.0, 20.0, 15.0]}],
     "categories": [{"id": 1, "name": "white square"}]}

What we write has extra keys, which COCO tools pass over: "phrase", "span" and "score" of an
annotation, "record" of an image. The pictures stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.document import Document, load
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.labels import caption_of, class_name
from kosmos2.records.formats.objects import image_of, located, pixels, understood
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord

INSTANCES, CAPTIONS = "instances.json", "captions.json"

_NO_BOXES = {"noun_chunks": None, "ref_exps": None}

Object = Mapping[str, Any]
Size = tuple[int, int]
_Found = tuple[Object, str, Box]
"""An annotation, the name of its category, its box."""


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write both files into a new folder; only the class names are held in memory."""

    def sized(record: GroundedRecord) -> tuple[GroundedRecord, Size]:
        return record, writing.pictures.size(record)

    named = ((f"record {record.id}", record) for record in records)
    path.mkdir(parents=True)
    classes: dict[str, int] = {}
    number = 0
    with ExitStack() as files:
        instances = files.enter_context(
            Document(path / INSTANCES, lists=("images", "annotations", "categories"))
        )
        captions = files.enter_context(Document(path / CAPTIONS, lists=("images", "annotations")))
        for image_id, (record, size) in enumerate(each(named, sized, writing.refuse), start=1):
            image = _image(image_id, record, size)
            instances.append("images", {**image, "record": carried.rest(record)})
            captions.append("images", image)
            spoken = {"id": image_id, "image_id": image_id, "caption": record.caption}
            captions.append("annotations", spoken)
            for entry in record.entries:
                number += 1
                name = class_name(record.caption[entry.start : entry.end])
                category = classes.setdefault(name, len(classes) + 1)
                ids = {"id": number, "image_id": image_id, "category_id": category}
                instances.append("annotations", {**ids, **_annotation(record, entry, size)})
        for name, category in classes.items():
            instances.append("categories", {"id": category, "name": name, "supercategory": ""})


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield the records of a folder, or of one JSON file of instances or captions.

    The document is held in memory, as its format asks for.
    """
    folder = path if path.is_dir() else path.parent
    instances, captions = _documents(path)
    if instances is None:
        yield from _captioned(path, captions, folder, reading)
        return
    annotations, sentences = _by_image(instances), _by_image(captions)
    names = {item.get("id"): str(item.get("name")) for item in instances["categories"]}
    pictures = Pictures(folder)

    def record(image: dict[str, Any]) -> GroundedRecord:
        if name := image.get("file_name"):
            image["file_name"] = image_of(name, folder / INSTANCES, reading)
        found = annotations.get(image["id"], [])
        size = _size(image, pictures) if found else (1, 1)
        boxes = [(item, _name(item, names), _box(item, size)) for item in found]
        if isinstance(image.get("record"), dict):
            return _ours(image, boxes)
        return _foreign(image, boxes, [item["caption"] for item in sentences.get(image["id"], ())])

    named = ((f"{path}: image {image.get('id')}", image) for image in instances["images"])
    yield from each(named, understood(record, "COCO"), reading.refuse)
    for image_id in annotations.keys() - {image.get("id") for image in instances["images"]}:
        count = len(annotations[image_id])
        fault = RecordError(f"no image {image_id!r} is listed for {count} annotations")
        reading.refuse(str(path), fault)


def _image(image_id: int, record: GroundedRecord, size: Size) -> dict[str, Any]:
    image = {
        "id": image_id,
        "file_name": record.image or "",
        "width": size[0],
        "height": size[1],
    }
    return image if record.url is None else {**image, "coco_url": record.url}


def _annotation(record: GroundedRecord, entry: Grounded, size: Size) -> dict[str, Any]:
    x0, y0, x1, y1 = pixels(entry.box, size)
    width, height = round(x1 - x0, 9), round(y1 - y0, 9)
    scored = {} if entry.score is None else {"score": entry.score}
    return {
        "bbox": [x0, y0, width, height],
        "area": round(width * height, 9),
        "iscrowd": 0,
        "segmentation": [],
        "phrase": record.caption[entry.start : entry.end],
        "span": [entry.start, entry.end],
        **scored,
    }


def _documents(path: Path) -> tuple[Object | None, Object]:
    """Return the documents with boxes (None where there is none) and with sentences."""
    instances: Object | None = None
    captions: Object = {}
    for file in _files(path):
        document = load(file)
        known = {"categories": [], **document}
        for name in ("images", "annotations", "categories"):
            _check_objects(file, name, known.get(name))
        if any("caption" in item for item in known["annotations"][:1]):
            captions = known
        else:
            instances = known
    return instances, captions


def _check_objects(file: Path, name: str, items: object) -> None:
    """Demand a list of objects whose ids can be looked up."""
    if not isinstance(items, list):
        raise RecordError(f'{file}: COCO has a list "{name}", got {type(items).__name__}')
    for number, item in enumerate(items):
        ids = [item.get("id"), item.get("image_id")] if isinstance(item, dict) else [item]
        if not isinstance(item, dict) or not all(isinstance(i, int | str | None) for i in ids):
            raise RecordError(
                f"{file}: {name}[{number}] must be an object, its ids numbers or text, got {item!r}"
            )


def _files(path: Path) -> list[Path]:
    """Return the JSON files to read, one of each kind."""
    if path.is_file():
        return [path]
    for folder in (path, path / "annotations"):
        for pattern in ("{}.json", "{}*.json"):
            found = [
                sorted(folder.glob(pattern.format(kind))) for kind in ("captions", "instances")
            ]
            if any(found) and all(len(files) <= 1 for files in found):
                return [file for files in found for file in files]
    files = sorted(path.glob("*.json"))
    if len(files) == 1:
        return files
    raise RecordError(
        f"{path}: a folder of COCO has {INSTANCES}, {CAPTIONS} or both, found "
        f"{[file.name for file in files] or 'no JSON file'}; name one JSON file instead"
    )


def _by_image(document: Object) -> dict[Any, list[Object]]:
    found: dict[Any, list[Object]] = {}
    for annotation in document.get("annotations", ()):
        found.setdefault(annotation.get("image_id"), []).append(annotation)
    return found


def _ours(image: Object, boxes: Iterable[_Found]) -> GroundedRecord:
    """Return the whole record; annotations that somebody added are looked for in its caption."""
    entries: list[Grounded] = []
    added: list[tuple[str, Box, float | None]] = []
    for annotation, name, box in boxes:
        if "span" in annotation:
            start, end = annotation["span"]
            entries.append(Grounded(start, end, *box.corners, annotation.get("score")))
        else:
            added.append((name, box, annotation.get("score")))
    caption, found = located(image["record"]["caption"], added)
    said = {"image": image.get("file_name") or None, "caption": caption}
    return carried.whole({**image["record"], **said}, [*entries, *found])


def _foreign(image: Object, boxes: Iterable[_Found], spoken: list[str]) -> GroundedRecord:
    caption, entries = caption_of((name, box, item.get("score")) for item, name, box in boxes)
    more = {"captions": spoken} if spoken else {}
    return carried.whole({**carried.NOTHING, **_fields(image), "caption": caption, **more}, entries)


def _fields(image: Object) -> dict[str, Any]:
    return {
        "id": image["id"],
        "image": image.get("file_name") or None,
        "url": image.get("coco_url"),
        "width": image.get("width"),
        "height": image.get("height"),
    }


def _size(image: Object, pictures: Pictures) -> Size:
    """Return width and height in pixels, those of the picture's file where nothing says them."""
    return pictures.size(carried.whole({**carried.NOTHING, **_fields(image), "caption": ""}, ()))


def _name(annotation: Object, names: Mapping[Any, str]) -> str:
    category = annotation.get("category_id")
    if category not in names:
        raise RecordError(
            f"annotation {annotation.get('id')} has the category {category!r}, "
            f"which is none of the {len(names)} categories of the file"
        )
    return names[category]


def _box(annotation: Object, size: Size) -> Box:
    bbox = annotation.get("bbox")
    where = f"annotation {annotation.get('id')}"
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(isinstance(number, int | float) and math.isfinite(number) for number in bbox)
    ):
        raise RecordError(f"{where}: bbox must be [x, y, width, height] in pixels, got {bbox!r}")
    x, y, width, height = bbox
    return carried.clipped_box(where, (x, y, x + width, y + height), size)


def _captioned(
    path: Path, document: Object, folder: Path, reading: Reading
) -> Iterator[GroundedRecord]:
    """Yield a record for each sentence, in the order of the file."""
    images = {image.get("id"): image for image in document["images"]}

    def record(annotation: dict[str, Any]) -> GroundedRecord:
        image_id = annotation["image_id"]
        if image_id not in images:
            raise RecordError(f"is about the image {image_id!r}, which the file does not list")
        image = dict(images[image_id])
        if name := image.get("file_name"):
            image["file_name"] = image_of(name, folder / CAPTIONS, reading)
        said = {"id": annotation["id"], "caption": annotation["caption"], "image_id": image_id}
        return carried.whole({**_NO_BOXES, **_fields(image), **said}, ())

    named = ((f"{path}: caption {item.get('id')}", item) for item in document["annotations"])
    yield from each(named, understood(record, "COCO"), reading.refuse)


COCO = Format(
    name="coco",
    title="COCO instances and captions",
    layout=f"a folder with {INSTANCES} and {CAPTIONS}; reads one such JSON file as well",
    coordinates="bbox: [x, y, width, height] in pixels, floats, from the top left corner",
    carries={
        **dict.fromkeys(Feature, KEPT),
        Feature.BOXES: "to a billionth of a pixel",
    },
    read=read,
    write=write,
)
