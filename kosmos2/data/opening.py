"""From a table of `[[sources]]` to what it names: files found, indexed, and read at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kosmos2.data.album import Album
from kosmos2.data.captions import PairSource, RecordSource
from kosmos2.data.documents import DocumentSource
from kosmos2.data.frames import Frames
from kosmos2.data.instructions import InstructionSource
from kosmos2.data.items import items_of
from kosmos2.data.lessons import Teacher
from kosmos2.data.lines import Lines, lines_of
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import Finite, Shuffled
from kosmos2.data.text import text_source
from kosmos2.model.config import ModelConfig
from kosmos2.records.store import root_of
from kosmos2.scenes.sprites import default_cache

_SPOKEN = (
    "caption", "text", "TEXT", "sentence", "text_list", "texts", "value", "inputs", "targets",
    "instruction", "instruction_with_input", "input", "context", "output", "response",
)  # fmt: skip
"""The keys under which rows of all layouts have their words."""


@dataclass(frozen=True, slots=True)
class Reader:
    """For whom sources are opened."""

    teacher: Teacher
    model: ModelConfig
    cache: Path
    """Where indexes and tokens lie, for all runs."""


def data_cache() -> Path:
    """Return the folder of indexes beside that of the scenes' artwork."""
    return default_cache().parent / "data"


def open_source(recipe: SourceRecipe, reader: Reader, *, seed: int) -> Shuffled:
    """Return a source of files, its epochs in an order of that seed."""
    finite = _finite(recipe, reader)
    return Shuffled(finite, seed=seed, most_positions=reader.model.text.max_positions)


def rows_of(recipe: SourceRecipe, cache: Path) -> Lines:
    """Return the rows of the files of a source."""
    path = Path(recipe.path)
    return items_of(recipe, cache) if recipe.kind == "pairs" else lines_of(path, cache)


def words_of(recipe: SourceRecipe, cache: Path, *, most_rows: int) -> Iterator[str]:
    """Yield the texts of the first rows of a source, for a new vocabulary."""
    lines = rows_of(recipe, cache)
    for number in islice(range(len(lines)), most_rows):
        yield from _spoken(lines.fields(number), "")


def _finite(recipe: SourceRecipe, reader: Reader) -> Finite:
    teacher, cache, most = reader.teacher, reader.cache, reader.model.text.max_positions
    lines = rows_of(recipe, cache)
    frames = Frames(reader.model.vision, recipe.square)
    root = Path(recipe.images) if recipe.images else root_of(Path(recipe.path))
    album = Album(root, cache)
    match recipe.kind:
        case "records":
            return RecordSource(lines, album, teacher, frames, recipe)
        case "pairs":
            return PairSource(lines, album, teacher, frames, recipe)
        case "documents":
            return DocumentSource(lines, album, teacher, frames, recipe, most)
        case "instructions":
            return InstructionSource(lines, album, teacher, frames)
    assert recipe.kind == "text"
    return text_source(lines, teacher, frames, recipe, most_positions=most, cache=cache)


def _spoken(value: object, key: str) -> Iterator[str]:
    """Yield the texts below the keys that hold words."""
    if isinstance(value, str) and key in _SPOKEN:
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _spoken(each, key)
    elif isinstance(value, dict):
        for inner, each in value.items():
            yield from _spoken(each, inner)
