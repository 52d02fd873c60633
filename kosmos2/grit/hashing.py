"""Perceptual hashes of pictures into a file that `filters.excluded` reads.

d3a56e1c2b97c4e1  # val2014/COCO_val2014_000000000042.jpg
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kosmos2.errors import ImageError, Kosmos2Error, MissingExtraError, RequestError, one_line
from kosmos2.grit.filters import perceptual_hash
from kosmos2.grit.worker import shrunk
from kosmos2.images import open_picture
from kosmos2.sources.inputs import Looking, items
from kosmos2.sources.places import Found, Place, bytes_of, gather
from kosmos2.sources.rows import Item

TOGETHER = 64
"""Pictures that are read and hashed together."""
NAMED = 20
"""Bad pictures whose names are kept."""


@dataclass(slots=True)
class Hashed:
    """How many pictures gave a line, and what was wrong with the others."""

    good: int = 0
    bad: int = 0
    first_bad: tuple[tuple[str, str], ...] = ()
    """Name and reason of the first NAMED."""


def hash_pictures(
    source: str, path: Path, images: Path | None, tell: Callable[[int], None]
) -> Hashed:
    """Write a line for each picture of a source, in its order; the file appears whole.

    A picture is hashed as `grit build` hashes it. `tell` hears how many were done.
    """
    counts = Hashed()
    half = path.with_name(f".{path.name}.half")
    found = items(source, Looking(images=images))
    try:
        with half.open("w", encoding="utf-8") as file:
            for item, hash in _hashes(found):
                file.write(_line(item, hash, counts))
                tell(counts.good + counts.bad)
        if not counts.good:
            why = "".join(f"; {name}: {reason}" for name, reason in counts.first_bad[:1])
            raise RequestError(f"no picture of {one_line(source)} could be read{why}")
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)
    return counts


def _hashes(found: Iterator[Item]) -> Iterator[tuple[Item, int | Kosmos2Error]]:
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictures") as threads:
        while some := list(islice(found, TOGETHER)):
            yield from zip(some, threads.map(_hash, _places(some)), strict=True)


def _places(some: list[Item]) -> Iterator[Place | Found]:
    ready = iter(gather([item.place for item in some if item.place is not None]))
    for item in some:
        yield next(ready) if item.place else ImageError(item.problem or "it names no picture")


def _hash(found: Place | Found) -> int | Kosmos2Error:
    try:
        return perceptual_hash(shrunk(open_picture(bytes_of(found)).image))
    except MissingExtraError:
        raise
    except Kosmos2Error as error:
        return error


def _line(item: Item, hash: int | Kosmos2Error, counts: Hashed) -> str:
    """Return the line of a picture, "" of a bad one; count it."""
    name = one_line(item.name)
    if isinstance(hash, int):
        counts.good += 1
        return f"{hash:016x}  # {name}\n"
    counts.bad += 1
    if len(counts.first_bad) < NAMED:
        counts.first_bad += ((name, one_line(hash)),)
    return ""
