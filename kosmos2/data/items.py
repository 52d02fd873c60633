"""Pairs of pictures and captions, from whatever has some, as lines that are read at random.

Pictures in the cells of Parquet tables are copied once into the cache: a cell alone cannot be read.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from kosmos2.data.lines import Lines, lines_of, stamp
from kosmos2.data.recipe import SourceRecipe
from kosmos2.errors import one_line
from kosmos2.sources.inputs import TABLES, Looking, items, write_list
from kosmos2.sources.places import Place, bytes_of, gather
from kosmos2.sources.rows import Item

_TOGETHER = 64
"""Pictures of a table that are in memory at a time."""


def items_of(recipe: SourceRecipe, cache: Path) -> Lines:
    """Return the items that `sources.inputs` finds, the caption of NAME.jpg in NAME.txt too."""
    looking = Looking(images=Path(recipe.images) if recipe.images else None, captions=True)
    folder = cache / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    tables = _tables(Path(recipe.path))
    name = stamp(tables, recipe.images) if tables else ""
    target = folder / f"{name}.jsonl"
    if not tables or not target.exists():
        found = items(recipe.path, looking)
        target = _listed(found, folder) if not tables else _with_pictures(found, target)
    return replace(lines_of(target, cache), name=recipe.path)


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.lower().endswith(TABLES) else []
    found = (each for each in path.rglob("*") if each.name.lower().endswith(TABLES))
    return sorted(found) if path.is_dir() else []


def _listed(found: Iterator[Item], folder: Path) -> Path:
    """Write the list anew, named by what it says: folders change without a sign."""
    partial = folder / f".{uuid.uuid4().hex}.partial"
    try:
        _, digest = write_list(found, partial)
        target = folder / f"{digest[:32]}.jsonl"
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _with_pictures(found: Iterator[Item], target: Path) -> Path:
    """Write the list and, into a file beside it, the pictures that lie in cells."""
    pictures = target.with_suffix(".pictures")
    unfinished = pictures.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with unfinished.open("wb") as file:
            listed = _listed(_copied(found, file, pictures), target.parent)
        os.replace(unfinished, pictures)
        os.replace(listed, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _copied(found: Iterator[Item], file: BinaryIO, pictures: Path) -> Iterator[Item]:
    while some := list(islice(found, _TOGETHER)):
        cells = [each for each in some if each.place is not None and each.place.column is not None]
        ready = gather([each.place for each in cells if each.place is not None])
        data = {id(cell): each for cell, each in zip(cells, ready, strict=True)}
        for item in some:
            cell = data.get(id(item))
            if isinstance(cell, Exception):
                yield replace(item, place=None, problem=one_line(cell))
            elif cell is None:
                yield item
            else:
                at = file.tell()
                size = file.write(bytes_of(cell))
                place = Place(path=str(pictures.absolute()), member=item.name, offset=at, size=size)
                yield replace(item, place=place)
