"""YOLO as Ultralytics lays it out: a text file of boxes for each picture, classes by number.

    data.yaml          names: {0: white square}
    images/dog.jpg     labels/dog.txt: 0 0.500000 0.416667 0.500000 0.500000

A line is class, centre x, centre y, width, height, all as shares of the picture. Readings take
what others write besides: a sixth number is a score, six or more are the corners of a polygon,
whose outermost points make the box.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.folder import pictures_in, place
from kosmos2.records.formats.format import Feature, Format, Reading, Writing, each
from kosmos2.records.formats.labels import caption_of, class_name
from kosmos2.records.formats.objects import image_of
from kosmos2.records.record import GroundedRecord

NAMES = "data.yaml"
_IMAGES, _LABELS = "images", "labels"
_HEAD = (
    "# For Ultralytics YOLO. train and val are the same pictures: part them before you measure.\n"
)

Labelled = tuple[str, Box, float | None]


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write pictures and labels into a new folder; only the class names are held in memory."""
    images, labels = path / _IMAGES, path / _LABELS
    images.mkdir(parents=True)
    labels.mkdir()
    classes: dict[str, int] = {}

    def label(record: GroundedRecord) -> None:
        name = place(record, writing.pictures, images)
        lines = []
        for entry in record.entries:
            phrase = class_name(record.caption[entry.start : entry.end])
            number = classes.setdefault(phrase, len(classes))
            x, y = entry.box.center
            numbers = (x, y, entry.box.width, entry.box.height)
            lines.append(" ".join([str(number), *(f"{part:.6f}" for part in numbers)]) + "\n")
        target = (labels / name).with_suffix(".txt")
        target.write_text("".join(lines), encoding="ascii", newline="\n")

    named = ((f"record {record.id}", record) for record in records)
    for _ in each(named, label, writing.refuse):
        pass
    _write_names(path / NAMES, classes)


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield a record for each picture of a folder (or of the folder of a `data.yaml`), by name.

    Pictures lie in folders called `images`, labels in `labels` beside them, at any depth, or both
    in one folder. A picture without labels shows nothing that has a class.
    """
    folder = path if path.is_dir() else path.parent
    names = _names(path)
    images = reading.images or folder

    def record(picture: Path) -> GroundedRecord:
        label = _label_of(picture, images, folder)
        labelled = list(_labelled(label, names)) if label.is_file() else []
        caption, entries = caption_of(labelled)
        inside = picture.relative_to(images).as_posix()
        said = {"id": picture.stem, "image": image_of(inside, folder / NAMES, reading)}
        return carried.whole({**carried.NOTHING, **said, "caption": caption}, entries)

    found = (
        (str(picture), picture)
        for picture in pictures_in(images)
        if _is_ours(picture, images, folder)
    )
    yield from each(found, record, reading.refuse)


def _is_ours(picture: Path, images: Path, folder: Path) -> bool:
    """Tell pictures of the set from others that lie about, such as plots of a training."""
    inside = picture.relative_to(images).parts[:-1]
    return images != folder or _IMAGES in inside or _label_of(picture, images, folder).is_file()


def _label_of(picture: Path, images: Path, folder: Path) -> Path:
    """Return where the labels of a picture are: "labels" in the place of "images", or beside it."""
    inside = picture.relative_to(images).with_suffix(".txt")
    if images != folder:
        label = folder / _LABELS / inside
        return label if label.is_file() else folder / inside
    parts = list(inside.parts)
    if _IMAGES in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index(_IMAGES)
        parts[last] = _LABELS
    return folder.joinpath(*parts)


def _labelled(label: Path, names: Mapping[int, str]) -> Iterator[Labelled]:
    try:
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{label}: cannot be read as text ({error})") from error
    for line, text in enumerate(lines, start=1):
        if text.strip():
            yield _line(f"{label}:{line}", text.split(), names)


def _line(where: str, words: Sequence[str], names: Mapping[int, str]) -> Labelled:
    try:
        number, *values = [float(word) for word in words]
    except ValueError as error:
        raise RecordError(f"{where}: must be numbers, got {' '.join(words)!r}") from error
    if not number.is_integer() or int(number) not in names:
        raise RecordError(f"{where}: has class {words[0]}, the names are for {sorted(names)}")
    if (
        not all(map(math.isfinite, values))
        or len(values) < 4
        or (len(values) % 2 and len(values) != 5)
    ):
        raise RecordError(
            f"{where}: must be class, x, y, width, height (or the points of a polygon), got "
            f"{' '.join(words)!r}"
        )
    if len(values) > 5:
        xs, ys, score = values[0::2], values[1::2], None
        corners = (min(xs), min(ys), max(xs), max(ys))
    else:
        x, y, width, height = values[:4]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        score = values[4] if len(values) == 5 else None
    return names[int(number)], carried.clipped_box(where, corners, (1, 1)), score


def _write_names(path: Path, classes: Mapping[str, int]) -> None:
    import yaml  # type: ignore[import-untyped]

    names = {number: name for name, number in classes.items()}
    body = {"train": _IMAGES, "val": _IMAGES, "nc": len(names), "names": names}
    text = yaml.safe_dump(body, allow_unicode=True, sort_keys=False)
    path.write_text(_HEAD + text, encoding="utf-8", newline="\n")


def _names(path: Path) -> Mapping[int, str]:
    """Return the class names by number, from a YAML file or a list of lines."""
    folder = path if path.is_dir() else path.parent
    first = [path] if path.is_file() else [folder / NAMES, folder / "dataset.yaml"]
    for file in (*first, *sorted(folder.glob("*.y*ml"))):
        if file.is_file() and (names := _names_in(file)):
            return names
    for name in ("classes.txt", "obj.names", "labels/classes.txt"):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
            return dict(enumerate(line.strip() for line in lines))
    raise RecordError(f"{path}: no {NAMES} (or classes.txt) there says the names of YOLO's classes")


def _names_in(file: Path) -> Mapping[int, str]:
    import yaml

    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecordError(f"{file}: cannot be read as YAML ({error})") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names)}
    if isinstance(names, dict) and all(str(number).isdigit() for number in names):
        return {int(number): str(name) for number, name in names.items()}
    return {}


YOLO = Format(
    name="yolo",
    title="YOLO, as Ultralytics lays it out",
    layout=f"a folder with {NAMES}, {_IMAGES}/ and {_LABELS}/*.txt; holds the pictures",
    coordinates="class, centre x, centre y, width, height as shares of the picture, 6 decimals",
    carries={
        Feature.PICTURE: f"in {_IMAGES}/, under its file's name",
        Feature.SIZE: "told by the picture",
        Feature.BOXES: "to a millionth of the picture, with the phrase as class name",
        Feature.SEVERAL_BOXES: "as boxes of one class",
    },
    read=read,
    write=write,
)
