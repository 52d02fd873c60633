"""JSON objects one by one, of lists and of lines, and what formats do with their fields."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, TypeVar

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.format import Reading
from kosmos2.records.record import Grounded, GroundedRecord

CHUNK = 1 << 20
FOREIGN: Mapping[str, Any] = {"noun_chunks": None, "ref_exps": "boxes"}
"""What `carried.rest` would say of a line that somebody else wrote."""
_Made = TypeVar("_Made")


def read_objects(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (where, item) of a JSON list or of JSON lines, whichever the file begins with.

    A line comes as text, so that one that is no JSON is no end (`understood` reads it).
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = _first_mark(file)
            file.seek(0)
            yield from (_of_list if first == "[" else _of_lines)(file, path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read as JSON text ({error})") from error


def write_lines(objects: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write JSON lines."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{as_json(item)}\n" for item in objects)


def write_list(objects: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a JSON list with a line for each object."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write("[")
        for number, item in enumerate(objects):
            file.write(f"{',' if number else ''}\n{as_json(item)}")
        file.write("\n]\n")


def as_json(value: object) -> str:
    """Return one line of JSON with all letters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def understood(make: Callable[[Any], _Made], what: str) -> Callable[[Any], _Made]:
    """Return `make` for objects of other people: a missing key or a wrong kind is a RecordError."""

    def read(value: Any) -> _Made:  # noqa: ANN401  (JSON is whatever somebody wrote)
        try:
            item = json.loads(value) if isinstance(value, str) else value
            if not isinstance(item, dict):
                raise RecordError(f"{what} is made of JSON objects, got {as_json(item)[:80]}")
            return make(item)
        except RecordError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise RecordError(f"not as {what} is written ({fault}): {as_json(value)[:200]}") from (
                error
            )

    return read


def beside(record: GroundedRecord, *said: str) -> dict[str, Any]:
    """Return what is carried of a record beside the fields that the format itself says."""
    return {key: value for key, value in carried.rest(record).items() if key not in said}


def image_of(name: str, path: Path, reading: Reading) -> str:
    """Return the picture's path from the folder of the file `path` on."""
    if reading.images is None:
        return name
    return Path(os.path.relpath(reading.images / name, path.parent)).as_posix()


def pixels(box: Box, size: tuple[int, int]) -> list[float]:
    """Return x0, y0, x1, y1 in pixels, without the noise of the last binary digit."""
    corners = box.to_pixels(width=size[0], height=size[1])
    return [round(corner, 9) for corner in corners]


def located(
    caption: str, labelled: Iterable[tuple[str, Box, float | None]]
) -> tuple[str, tuple[Grounded, ...]]:
    """Return the caption and an entry for each box, at the first place of its label there.

    Capitals do not matter. A label that the caption lacks is added at its end, after "; ".
    """
    entries = []
    for label, box, score in labelled:
        if not label.strip():
            raise RecordError("a box has no label, so nothing says which words it belongs to")
        start = caption.find(label)
        if start < 0:
            start = _small(caption).find(_small(label))
        if start < 0:
            caption += f"; {label}" if caption else label
            start = len(caption) - len(label)
        entries.append(Grounded(start, start + len(label), *box.corners, score))
    return caption, tuple(entries)


def _small(text: str) -> str:
    """Return the text in lower case, but as long as it was."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _first_mark(file: TextIO) -> str:
    while character := file.read(1):
        if not character.isspace():
            return character
    return ""


def _of_lines(file: TextIO, path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield f"{path}:{number}", line


def _of_list(file: TextIO, path: Path) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder()
    text, place, number = file.read(CHUNK), 0, 0
    place = text.index("[") + 1
    while True:
        while place < len(text) and (text[place].isspace() or text[place] == ","):
            place += 1
        if text[place : place + 1] == "]":
            return
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            more = file.read(CHUNK)
            if not more:
                raise RecordError(
                    f"{path}: the JSON list breaks off or is wrong at its item {number}: "
                    f"{error.msg}, before {text[place : place + 40]!r}"
                ) from error
            text, place = text[place:] + more, 0
            continue
        yield f"{path}[{number}]", value
        number += 1
