"""One row of somebody's table or one line of a file of records -> one item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord
from kosmos2.sources.places import Place

IMAGE_COLUMNS = (
    "image", "image_path", "img_path", "path", "file_path", "filepath", "file_name", "filename",
    "file", "img", "jpg", "png", "webp", "url", "image_url", "URL",
)  # fmt: skip
"""Where a table has its pictures: the first of these that a row has, and that is not empty."""
CAPTION_COLUMNS = ("caption", "text", "TEXT", "sentence")
PHRASES_COLUMN = "phrases"
"""A list of texts, or one text with a phrase on each line."""
BOXES_COLUMN, PIXELS_COLUMN = "boxes", "boxes_pixels"
"""Lists of [x0, y0, x1, y1], the corners: as shares of the picture, or in pixels of it upright."""
_OF_RECORDS = ("noun_chunks", "ref_exps")
_URLS, _WEB = ("url", "image_url", "URL"), ("http://", "https://")
_MADE_ANEW = ("id", "image", "shard", "width", "height", "sha256")

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A picture to ask about, and what its source says of it."""

    id: int | str
    name: str
    """As messages name it."""
    stem: str = ""
    """Of the files that are made for it: drawings and crops. `write_list` fills it where empty."""
    place: Place | None = None
    """None where the row has a fault; `problem` says which."""
    problem: str = ""
    caption: str | None = None
    phrases: tuple[str, ...] | None = None
    boxes: tuple[Corners, ...] | None = None
    in_pixels: bool = False
    """The boxes are in pixels of the upright picture, not shares of it."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """The fields that go on into the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What holds for all rows of a file."""

    path: Path
    """The file of the rows."""
    images: Path
    """The folder that relative paths of pictures start from."""
    shown: str
    """The file as ids and messages name it: no other of the source is called so."""


def item_of_row(fields: Mapping[str, Any], number: int, where: str, origin: Origin) -> Item:
    """Return the item of a row; one that has a fault is an item with a problem."""
    own = fields.get("id")
    id = own if isinstance(own, int | str) and own != "" else f"{origin.shown}:{number}"
    name = where
    try:
        place, name = picture_place(fields, where, origin)
        boxes, in_pixels = _boxes(fields, where)
        return Item(
            id=id,
            name=name,
            place=place,
            caption=_caption(fields),
            phrases=_phrases(fields, where),
            boxes=boxes,
            in_pixels=in_pixels,
            source=carried(fields, place),
        )
    except RecordError as error:
        return Item(id=id, name=name, problem=str(error))


def picture_place(fields: Mapping[str, Any], where: str, origin: Origin) -> tuple[Place, str]:
    """Return where the picture of a row is, and its name in messages."""
    names = ("image", "url") if _is_record(fields) else IMAGE_COLUMNS
    for column in names:
        value = fields.get(column)
        if isinstance(value, Mapping):  # as `datasets` has pictures
            value = value.get("path")
        if not isinstance(value, str) or not value:
            continue
        if value.startswith(_WEB):
            return Place(url=value), value
        if value.startswith("scene:"):
            raise RecordError(f"{where}: {value} is a scene, not a file; save the scenes first")
        shard = fields.get("shard")
        if isinstance(shard, str) and shard:
            return Place(path=str(origin.images / shard), member=value), f"{shard}: {value}"
        return Place(path=str(origin.images / value)), value
    raise RecordError(
        f"{where}: no column has a picture; these may: {', '.join(names)}; "
        f"there are {', '.join(map(str, fields)) or 'none'}"
    )


def carried(fields: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return the fields that go on into the record: all but those that are made anew.

    Bytes and the path of the picture are the picture itself; whole numbers and texts stay. The
    address that a picture once came from stays, too, as `url`.
    """
    paths = () if _is_record(fields) else IMAGE_COLUMNS
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        is_picture = isinstance(value, bytes) or (key in paths and place.url != value)
        if key in _URLS and isinstance(value, str) and value.startswith(_WEB):
            kept.setdefault("url", value)
        if key in _MADE_ANEW or is_picture or (isinstance(value, Mapping) and "bytes" in value):
            continue
        kept[key] = value
    if place.url is not None:
        kept["url"] = place.url
    return kept


def _is_record(fields: Mapping[str, Any]) -> bool:
    return any(name in fields for name in _OF_RECORDS)


def _caption(fields: Mapping[str, Any]) -> str | None:
    for column in CAPTION_COLUMNS:
        value = fields.get(column)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _phrases(fields: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    value = fields.get(PHRASES_COLUMN)
    if value is None:
        return None
    if isinstance(value, str):
        value = [line.strip() for line in value.splitlines() if line.strip()]
    if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise RecordError(f"{where}: {PHRASES_COLUMN} must be texts, got {value!r}")
    return tuple(value)


def _boxes(fields: Mapping[str, Any], where: str) -> tuple[tuple[Corners, ...] | None, bool]:
    """Return the boxes of a row, each once, and whether they are in pixels."""
    if _is_record(fields):
        record = GroundedRecord.from_dict({"caption": "", **dict.fromkeys(_OF_RECORDS), **fields})
        return tuple(dict.fromkeys(entry.box.corners for entry in record.entries)), False
    column = BOXES_COLUMN if fields.get(BOXES_COLUMN) is not None else PIXELS_COLUMN
    rows = fields.get(column)
    if rows is None:
        return None, False
    try:
        boxes = [tuple(float(corner) for corner in row) for row in rows]
    except (TypeError, ValueError):
        boxes = [()]
    if not all(len(box) == 4 for box in boxes):
        raise RecordError(f"{where}: {column} must be lists of [x0, y0, x1, y1], got {rows!r}")
    return tuple(dict.fromkeys(boxes)), column == PIXELS_COLUMN  # type: ignore[arg-type]
