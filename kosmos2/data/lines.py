"""Rows of JSON at random: what is kept of a file is where its rows begin and end.

Lines and arrays of JSON are read where they lie. What has no row that could be read alone
(compressed lines, Parquet, tars, folders of parts) is written once as lines into a cache, named by
the paths, sizes and times of its files, and shared by all processes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kosmos2.data.ledger import Rejected
from kosmos2.errors import RecordError, one_line
from kosmos2.records import jsonl
from kosmos2.records.store import Kind, kind_named, kind_of, parts_of, rows_of_kind

_CHUNK = 1 << 24
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}"]', re.DOTALL)
"""A string, a bracket outside of strings, or a quote that nothing closes."""
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Lines:
    """The rows of one file; pickled by its places, opened anew for each row."""

    path: Path
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    name: str
    """Of the file that the user knows."""

    def __len__(self) -> int:
        return len(self.starts)

    def where(self, number: int) -> str:
        """Return the place of a row, for messages."""
        return f"{self.name}: row {number + 1}"

    def text(self, number: int) -> bytes:
        """Return a row as it lies there."""
        start, stop = int(self.starts[number]), int(self.stops[number])
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def fields(self, number: int) -> dict[str, Any] | Rejected:
        """Return a row as the JSON object that it is."""
        try:
            value = json.loads(self.text(number))
        except (ValueError, RecursionError) as error:
            return Rejected("no JSON", f"{self.where(number)}: {one_line(error)}")
        if not isinstance(value, dict):
            return Rejected("no JSON object", f"{self.where(number)}: {str(value)[:40]!r}")
        return value


def lines_of(path: Path, cache: Path) -> Lines:
    """Return the rows of a store of records, or of any file of JSON or Parquet."""
    if not path.exists():
        raise RecordError(f"there is nothing at {path}")
    if path.is_file() and path.name.lower().endswith(jsonl.ENDINGS):
        found = _indexed(path, path.name)
    else:
        found = _spooled(path, cache)
    if not len(found):
        raise RecordError(f"{path} has no rows to train on")
    return found


def written(rows: Iterable[bytes], target: Path) -> None:
    """Write rows as lines; the file appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(row + b"\n" for row in rows)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def stamp(paths: Iterable[Path], *more: str) -> str:
    """Return a name for what is made of these files as they are now."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    digest.update("\0".join((_VERSION, *more)).encode())
    return digest.hexdigest()[:32]


def _spooled(path: Path, cache: Path) -> Lines:
    kind = kind_of(path)
    target = cache / "rows" / f"{stamp(parts_of(path, kind), str(kind))}.jsonl"
    if not target.exists():
        written(_texts(path, kind), target)
    return _lines(target, path.name)


def _texts(path: Path, kind: Kind) -> Iterable[bytes]:
    """Yield rows as JSON on one line; one that is none stays a line, to be counted later."""
    for row in rows_of_kind(path, kind):
        value: object = f"{row.where}: {row.problem}" if row.fields is None else dict(row.fields)
        yield json.dumps(value, default=jsonl.as_json).encode()


def _indexed(path: Path, name: str) -> Lines:
    assert kind_named(name) is Kind.JSONL
    with path.open("rb") as file:
        begins = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return _array(path, name) if begins == b"[" else _lines(path, name)


def _lines(path: Path, name: str) -> Lines:
    """Return the lines of a file but for blank ones."""
    ends: list[NDArray[np.int64]] = []
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 0x0A) + size)
            size += len(chunk)
    stops = np.concatenate([*ends, np.array([size], np.int64)]).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), stops[:-1] + 1])
    kept = stops - starts > 1  # a line of one character is blank, or no object
    return Lines(path, starts[kept], stops[kept], name)


def _array(path: Path, name: str) -> Lines:
    """Return the objects of one JSON array, as LLaVA's files are, however long it is."""
    starts, stops, depth = [], [], 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for start, change in _brackets(text):
            if change > 0 and depth == 1:
                starts.append(start)
            depth += change
            if change < 0 and depth == 1:
                stops.append(start + 1)
    if depth or len(starts) != len(stops):
        raise RecordError(f"{path}: the JSON array is not closed; the file is cut off or damaged")
    return Lines(path, np.array(starts, np.int64), np.array(stops, np.int64), name)


def _brackets(text: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield the place of each bracket that stands in no string, and 1 or -1: opened or closed."""
    for found in _TOKEN.finditer(text):
        if found.end() == found.start() + 1:  # an open quote opens what is never closed
            yield found.start(), -1 if text[found.start()] in b"]}" else 1
