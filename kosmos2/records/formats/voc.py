"""Pascal VOC: an XML file of boxes for each picture.

    <annotation>
      <filename>dog.jpg</filename> <size><width>40</width><height>30</height></size>
      <object><name>white square</name>
        <bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>
      </object>
    </annotation>

VOC counts pixels from 1 and names the first and the last one that a box covers. The box from the
edge at 10 to the edge at 30 covers the 11th to the 30th pixel: xmin = x0 + 1, xmax = x1. What we
write has elements besides, which VOC tools pass over: <span> of an object and its <score>, and a
<record> of the annotation.
"""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any
from xml.parsers import expat

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.folder import place
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.labels import class_name
from kosmos2.records.formats.objects import image_of, located
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord

_ANNOTATIONS, _IMAGES = "Annotations", "JPEGImages"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Size = tuple[int, int]


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write pictures and annotations into a new folder."""
    images, annotations = path / _IMAGES, path / _ANNOTATIONS
    images.mkdir(parents=True)
    annotations.mkdir()

    def annotate(record: GroundedRecord) -> None:
        size = writing.pictures.size(record)
        name = place(record, writing.pictures, images)
        tree = ET.ElementTree(_annotation(record, name, size))
        ET.indent(tree)
        target = (annotations / name).with_suffix(".xml")
        tree.write(target, encoding="utf-8")

    named = ((f"record {record.id}", record) for record in records)
    for _ in each(named, annotate, writing.refuse):
        pass


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield a record for each XML file of a folder, by name; `path` may be one such file."""
    folder, files = _files(path)

    def record(file: Path) -> GroundedRecord:
        root = parse(file)
        if root.tag != "annotation":
            raise RecordError(f"{file}: Pascal VOC begins with <annotation>, got <{root.tag}>")
        return _record(root, file, folder, reading)

    yield from each(((str(file), file) for file in files), record, reading.refuse)


def parse(file: Path) -> ET.Element:
    """Return the root of an XML file; a document type, and so every entity, is refused."""

    def refuse(*_: object) -> None:
        raise RecordError(f"{file}: has a document type (DOCTYPE), which annotations do not need")

    try:
        content = file.read_bytes()
        guard = expat.ParserCreate()
        guard.StartDoctypeDeclHandler = refuse
        guard.Parse(content, True)
        return ET.fromstring(content)
    except RecordError:
        raise
    except (OSError, ValueError, LookupError, expat.ExpatError, ET.ParseError) as error:
        raise RecordError(f"{file}: cannot be read as XML ({error})") from error


def first_and_last_pixels(box: Box, size: Size) -> tuple[int, int, int, int]:
    """Return xmin, ymin, xmax, ymax: counted from 1, the last one inside the box."""
    x0, y0, x1, y1 = box.to_pixels(width=size[0], height=size[1])
    xmin, xmax = _first_and_last(x0, x1, size[0])
    ymin, ymax = _first_and_last(y0, y1, size[1])
    return xmin, ymin, xmax, ymax


def _first_and_last(start: float, end: float, length: int) -> tuple[int, int]:
    """Return the first and last pixel between two edges; of a thin box, the one at its middle."""
    first, last = math.floor(start + 0.5) + 1, math.floor(end + 0.5)
    if first <= last:
        return first, last
    middle = min(math.floor((start + end) / 2) + 1, length)
    return middle, middle


def _annotation(record: GroundedRecord, name: str, size: Size) -> ET.Element:
    root = ET.Element("annotation")
    _say(root, "folder", _IMAGES)
    _say(root, "filename", name)
    _say(ET.SubElement(root, "source"), "database", "kosmos2")
    extent = ET.SubElement(root, "size")
    for tag, number in zip(("width", "height", "depth"), (*size, 3), strict=True):
        _say(extent, tag, str(number))
    _say(root, "segmented", "0")
    _say(root, "record", json.dumps(carried.rest(record)))
    for entry in record.entries:
        thing = ET.SubElement(root, "object")
        _say(thing, "name", class_name(record.caption[entry.start : entry.end]))
        for tag in ("truncated", "difficult"):
            _say(thing, tag, "0")
        box = ET.SubElement(thing, "bndbox")
        corners = first_and_last_pixels(entry.box, size)
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            _say(box, tag, str(number))
        _say(thing, "span", f"{entry.start} {entry.end}")
        if entry.score is not None:
            _say(thing, "score", repr(entry.score))
    return root


def _say(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = _NOT_XML.sub(" ", text)


def _files(path: Path) -> tuple[Path, Iterable[Path]]:
    """Return the folder that pictures of a set start from, and the XML files."""
    if path.is_file():
        inside = path.parent.name == _ANNOTATIONS
        return (path.parent.parent if inside else path.parent), [path]
    annotations = path / _ANNOTATIONS
    files = sorted((annotations if annotations.is_dir() else path).glob("*.xml"))
    if not files:
        raise RecordError(f"{path}: no XML file there, nor in a folder {_ANNOTATIONS}")
    return path, files


def _record(root: ET.Element, file: Path, folder: Path, reading: Reading) -> GroundedRecord:
    image = _image(root, file, folder, reading)
    kept = root.findtext("record")
    rest = _kept(file, kept) if kept else {**carried.NOTHING, "id": file.stem, "caption": ""}
    size = _size(root, file, {**rest, "image": image, "shard": None}, folder)
    entries: list[Grounded] = []
    added: list[tuple[str, Box, float | None]] = []
    for number, thing in enumerate(root.findall("object")):
        where = f"{file}: object {number}"
        box, score = _box(where, thing, size), _score(where, thing)
        if (span := thing.findtext("span")) is not None:
            start, end = _numbers(where, "span", span.split(), 2)
            entries.append(Grounded(int(start), int(end), *box.corners, score))
        else:
            added.append((thing.findtext("name", "").strip(), box, score))
    caption, found = located(rest["caption"], added)
    said: dict[str, Any] = {"image": image, "shard": None, "caption": caption}
    if not kept:
        said |= {"width": size[0], "height": size[1]}
    return carried.whole({**rest, **said}, [*entries, *found])


def _kept(file: Path, text: str) -> dict[str, Any]:
    try:
        kept = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{file}: <record> is no JSON ({error})") from error
    if not isinstance(kept, dict) or not isinstance(kept.get("caption"), str):
        raise RecordError(f"{file}: <record> is no record: {text[:80]!r}")
    return kept


def _image(root: ET.Element, file: Path, folder: Path, reading: Reading) -> str:
    """Return the picture's path from the folder on; its folders in the file are not believed."""
    name = PurePath(root.findtext("filename", "").strip()).name
    if not name:
        raise RecordError(f"{file}: has no <filename>, so nothing says which picture it is about")
    if reading.images is not None:
        return image_of(name, folder / _ANNOTATIONS, reading)
    for place_ in (folder / _IMAGES, folder / "images", file.parent):
        if (place_ / name).is_file():
            return (place_ / name).relative_to(folder).as_posix()
    return f"{_IMAGES}/{name}"


def _size(root: ET.Element, file: Path, rest: dict[str, Any], folder: Path) -> Size:
    """Return width and height in pixels, those of the picture's file where none are written."""
    said = [root.findtext(f"size/{tag}", "0") for tag in ("width", "height")]
    width, height = (int(value) for value in _numbers(str(file), "size", said, 2))
    if width > 0 and height > 0:
        return width, height
    bare = {**rest, "width": None, "height": None}
    return Pictures(folder).size(carried.whole(bare, ()))


def _box(where: str, thing: ET.Element, size: Size) -> Box:
    said = [thing.findtext(f"bndbox/{tag}", "") for tag in ("xmin", "ymin", "xmax", "ymax")]
    xmin, ymin, xmax, ymax = _numbers(where, "bndbox", said, 4)
    return carried.clipped_box(where, (xmin - 1, ymin - 1, xmax, ymax), size)


def _score(where: str, thing: ET.Element) -> float | None:
    text = thing.findtext("score")
    return None if text is None else _numbers(where, "score", [text], 1)[0]


def _numbers(where: str, what: str, words: list[str], count: int) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise RecordError(f"{where}: <{what}> needs {count} numbers, got {words}")
    return numbers


VOC = Format(
    name="voc",
    title="Pascal VOC",
    layout=f"a folder with {_ANNOTATIONS}/*.xml and {_IMAGES}/, which holds the pictures",
    coordinates="xmin, ymin, xmax, ymax: whole pixels, the first and the last, counted from 1",
    carries={
        **dict.fromkeys(Feature, KEPT),
        Feature.PICTURE: f"in {_IMAGES}/, under its file's name",
        Feature.BOXES: "to whole pixels, at least one pixel wide and high",
    },
    read=read,
    write=write,
)
