"""CSV: a row for each box, for spreadsheets and data frames.

    record,id,image,...,caption,start,end,phrase,x0,y0,x1,y1,x0_px,y0_px,x1_px,y1_px,score
    0,7,dog.jpg,...,a dog,0,5,a dog,0.25,0.1666,0.75,0.6666,10,5,30,20,0.5

x0 to y1 are shares of the picture, x0_px to y1_px the same in pixels. A record without boxes has
one row whose cells of a box are empty. Rows of one `record` stand together.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.objects import image_of, located, pixels
from kosmos2.records.record import Grounded, GroundedRecord

_OF_RECORD = ("id", "image", "shard", "url", "sha256", "width_px", "height_px", "caption")
_SHARES = ("x0", "y0", "x1", "y1")
_PIXELS = ("x0_px", "y0_px", "x1_px", "y1_px")
COLUMNS = ("record", *_OF_RECORD, "start", "end", "phrase", *_SHARES, *_PIXELS, "score")

Row = Mapping[str, Any]


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write the table, with a head of column names."""

    def rows(record: GroundedRecord) -> list[dict[str, Any]]:
        size = writing.pictures.size(record)
        whole = {
            **{name: getattr(record, name, None) for name in _OF_RECORD},
            "width_px": size[0],
            "height_px": size[1],
        }
        return [{**whole, **_of_box(record, entry, size)} for entry in record.entries] or [whole]

    named = ((f"record {record.id}", record) for record in records)
    with path.open("x", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        for number, group in enumerate(each(named, rows, writing.refuse)):
            table.writerows({"record": number, **row} for row in group)


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield a record for each run of rows of one `record`, or of one `image` and `caption`.

    Needed are `caption` or `phrase`, and for boxes x0 to y1, or x0_px to y1_px with the sizes
    width_px and height_px. Where both stand, the shares count.
    """

    def record(rows: list[Row]) -> GroundedRecord:
        return _record(rows, path, reading)

    def groups(table: csv.DictReader[str]) -> Iterator[tuple[str, list[Row]]]:
        line = table.line_num + 1
        for _, group in itertools.groupby(table, key=_same):
            rows: list[Row] = list(group)
            yield f"{path}:{line}", rows
            line = table.line_num

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            _check_columns(path, table.fieldnames or ())
            yield from each(groups(table), record, reading.refuse)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path}: cannot be read as CSV ({error})") from error


def _of_box(record: GroundedRecord, entry: Grounded, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "start": entry.start,
        "end": entry.end,
        "phrase": record.caption[entry.start : entry.end],
        **dict(zip(_SHARES, entry.box.corners, strict=True)),
        **dict(zip(_PIXELS, pixels(entry.box, size), strict=True)),
        "score": entry.score,
    }


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    has = set(columns)
    boxed = has.issuperset(_SHARES) or has.issuperset((*_PIXELS, "width_px", "height_px"))
    if not has & {"caption", "phrase"} or not boxed:
        raise RecordError(
            f"{path}: needs the columns caption or phrase, and {', '.join(_SHARES)} (shares of the "
            f"picture) or {', '.join(_PIXELS)}, width_px, height_px; got {', '.join(columns)}"
        )


def _same(row: Row) -> tuple[str | None, ...]:
    if row.get("record"):
        return (row["record"],)
    return tuple(row.get(name) for name in ("id", "image", "url", "caption"))


def _record(rows: list[Row], path: Path, reading: Reading) -> GroundedRecord:
    first = rows[0]
    said: dict[str, Any] = {name: first.get(name) or None for name in _OF_RECORD}
    size = [_whole(first, said.pop(name), name) for name in ("width_px", "height_px")]
    caption = first.get("caption") or ""
    entries: list[Grounded] = []
    for row in rows:
        if any(row.get(name) for name in (*_SHARES, *_PIXELS)):
            caption, entry = _entry(row, caption, size)
            entries.append(entry)
    fields = {
        **said,
        "id": _id(said["id"]),
        "image": said["image"] and image_of(said["image"], path, reading),
        "width": size[0],
        "height": size[1],
        "caption": caption,
    }
    return carried.whole({**carried.NOTHING, **fields}, entries)


def _entry(row: Row, caption: str, size: list[int | None]) -> tuple[str, Grounded]:
    """Return the caption and the entry of a row; a phrase without a span is looked for there."""
    if all(row.get(name) for name in _SHARES):
        corners, unit = [_number(row, name) for name in _SHARES], (1, 1)
    else:
        width, height = size
        if width is None or height is None:
            raise RecordError(f"a box in pixels needs width_px and height_px, got {dict(row)}")
        corners, unit = [_number(row, name) for name in _PIXELS], (width, height)
    box = carried.clipped_box("row", corners, unit)
    score = _number(row, "score") if row.get("score") else None
    if row.get("start") and row.get("end"):
        start, end = (_whole(row, row[name], name) for name in ("start", "end"))
        assert start is not None and end is not None
        return caption, Grounded(start, end, *box.corners, score)
    caption, (entry,) = located(caption, [(row.get("phrase") or "", box, score)])
    return caption, entry


def _id(text: str | None) -> int | str | None:
    """Return an id; what reads as a number is one."""
    if text and text.isascii() and text.isdecimal() and text == str(int(text)):
        return int(text)
    return text


def _number(row: Row, name: str) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(f"{name} must be a number, got {row.get(name)!r}")
    return value


def _whole(row: Row, text: str | None, name: str) -> int | None:
    if not text:
        return None
    value = _number({name: text}, name)
    if value != int(value):
        raise RecordError(f"{name} must be a whole number, got {text!r}")
    return int(value)


CSV = Format(
    name="csv",
    title="CSV, a row for each box",
    layout="a file of comma-separated values (.csv) in UTF-8; pictures stay where they are",
    coordinates="x0, y0, x1, y1 as shares of the picture, and x0_px, y0_px, x1_px, y1_px in pixels",
    carries={
        Feature.ID: "as text; what reads as a number comes back as one",
        **dict.fromkeys(
            (
                Feature.PICTURE,
                Feature.URL,
                Feature.HASH,
                Feature.SIZE,
                Feature.CAPTION,
                Feature.SPANS,
                Feature.SEVERAL_BOXES,
                Feature.NESTED,
                Feature.BOXES,
                Feature.SCORES,
            ),
            KEPT,
        ),
    },
    read=read,
    write=write,
)
