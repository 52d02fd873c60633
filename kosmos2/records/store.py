"""Stores of records: JSON lines, Parquet, WebDataset tars; one file, or a folder of parts.

A kill at any byte leaves a readable store. Lines are appended whole (see `jsonl`). Parquet files
and tars appear whole: each is written under another name and renamed when it is finished; a folder
grows by such parts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from kosmos2.errors import RecordError
from kosmos2.records import jsonl, parquet, webdataset
from kosmos2.records.jsonl import JsonlWriter, Row, finished, record_of
from kosmos2.records.parquet import Columns, Layout, ParquetWriter
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.webdataset import TarWriter

PART_RECORDS = 10_000
"""Records in one part of a folder."""


class Kind(StrEnum):
    """What the files of a store are. A folder that has several kinds is of the first."""

    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    JSONL = "jsonl"


class Sink(Protocol):
    """Takes records, between entering and leaving."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def write(self, record: GroundedRecord) -> None:
        """Take one record."""


def read(path: Path) -> Iterator[GroundedRecord]:
    """Yield the records of a store; an error names the file and the line, row or member.

    Pictures' paths start from `root_of(path)`. An unfinished end is left out with a warning.
    """
    yield from map(checked, finished(rows(path)))


def rows(path: Path) -> Iterator[Row]:
    """Yield the records of a store as they lie there, unchecked."""
    return rows_of_kind(path, kind_of(path))


def rows_of_kind(path: Path, kind: Kind) -> Iterator[Row]:
    """Yield the records of a store whose kind is known, whatever its name says."""
    parts = parts_of(path, kind)
    if not parts:
        raise RecordError(f"the folder {path} has no file of the kind {kind}")
    for part in parts:
        yield from _ROWS[kind](part)


def checked(row: Row) -> GroundedRecord:
    """Return the record of a row, its other columns with their types."""
    record = record_of(row)
    if row.schema is None:
        return record
    return dataclasses.replace(record, extra=Columns(record.extra, row.schema))


def kind_of(path: Path) -> Kind:
    """Return the kind of a store by its name, that of a folder by the names of its files."""
    if not path.is_dir():
        if kind := kind_named(path.name):
            return kind
        there = "has another ending" if path.exists() else "is not there and has another ending"
        raise RecordError(
            f"a store of records is a file {_named()}, or a folder of such; {path} {there}"
        )
    for kind in Kind:
        if parts_of(path, kind):
            return kind
    raise RecordError(f"the folder {path} has no file of records ({_named()})")


def kind_named(name: str) -> Kind | None:
    """Return the kind that a file's name says; None where it says none."""
    name = name.lower()
    bare = name.removesuffix(".gz").removesuffix(".zst")
    if bare.endswith(jsonl.ENDINGS):
        return Kind.JSONL
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return Kind.WEBDATASET
    return Kind.PARQUET if name.endswith((".parquet", ".pq")) else None


def parts_of(path: Path, kind: Kind) -> list[Path]:
    """Return the files of a store in their order; one that is written now is none of them."""
    if not path.is_dir():
        return [path]
    names = sorted(name for name in os.listdir(path) if not name.startswith((".", "_")))
    # One .json beside others is seldom lines of records.
    return [
        path / name
        for name in names
        if kind_named(name) is kind and not name.lower().endswith(".json")
    ]


def root_of(path: Path) -> Path:
    """Return the folder that the pictures' paths in a store start from."""
    return path if path.is_dir() else path.parent


class Writer:
    """Appends records to the store at a path, by its name.

    A line store takes records one by one. One Parquet file or tar appears when it is closed, or
    not at all if that fails; a folder that is there gets further parts. Tars need the `pictures`,
    for they hold copies of them.
    """

    def __init__(self, path: Path, pictures: Pictures | None = None) -> None:
        kind = kind_of(path)
        self._sink: Sink
        if path.is_dir():
            self._sink = folder_writer(path, kind, pictures)
        elif kind is Kind.JSONL:
            self._sink = JsonlWriter(path)
        else:
            self._sink = _one_file(path, kind, pictures)

    def __enter__(self) -> Self:
        self._sink.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sink.__exit__(kind, error, trace)

    def write(self, record: GroundedRecord) -> None:
        """Append a record."""
        self._sink.write(record)


def folder_writer(path: Path, kind: Kind, pictures: Pictures | None = None) -> Sink:
    """Return what appends parts to a folder, which is made where there is none."""

    def make(part: Path, name: str) -> Sink:
        return _part_writer(part, kind, pictures, name)

    return _Parts(lambda: _next_part(path, kind), make, PART_RECORDS)


def released_writer(path: Path) -> Sink:
    """Return what writes Parquet as GRIT was released: one file, or parts of a folder."""

    def make(part: Path, name: str) -> Sink:
        return ParquetWriter(part, Layout.RELEASED)

    if kind_named(path.name):
        return _Parts(lambda: _unused(path), make, 0)
    return _Parts(lambda: _next_part(path, Kind.PARQUET), make, PART_RECORDS)


class _Parts:
    """Writes parts one after the other; each appears when it is whole.

    `limit` records make a part; 0: all of them.
    """

    def __init__(
        self, free: Callable[[], Path], make: Callable[[Path, str], Sink], limit: int
    ) -> None:
        self._free, self._make, self._limit = free, make, limit
        self._part: _Part | None = None
        self._finished = 0

    def __enter__(self) -> Self:
        self._free()  # refuses a file that is there before any work is done
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and not self._finished and self._part is None:
            self._part = _Part(self._free(), self._make)  # a store of no records is a store
        if self._part is not None:
            self._close(self._part, error)

    def write(self, record: GroundedRecord) -> None:
        """Add a record to the part that is being written."""
        if self._part is None:
            self._part = _Part(self._free(), self._make)
        self._part.sink.write(record)
        self._part.count += 1
        if self._part.count == self._limit:
            self._close(self._part, None)

    def _close(self, part: _Part, error: BaseException | None) -> None:
        self._part = None
        self._finished += 1
        part.close(error)


class _Part:
    """A file under another name until it is whole. What a kill left there is written over."""

    def __init__(self, path: Path, make: Callable[[Path, str], Sink]) -> None:
        self.path, self.count = path, 0
        self._temporary = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary.unlink(missing_ok=True)
        self.sink = make(self._temporary, path.name.partition(".")[0])
        self.sink.__enter__()

    def close(self, error: BaseException | None) -> None:
        """Finish the file and give it its name; after an error, remove it."""
        try:
            self.sink.__exit__(type(error) if error else None, error, None)
            if error is None:
                _sync(self._temporary)
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _next_part(folder: Path, kind: Kind) -> Path:
    """Return the next free name; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = {Kind.WEBDATASET: ".tar", Kind.PARQUET: ".parquet", Kind.JSONL: ".jsonl"}[kind]
    number = len(parts_of(folder, kind))
    while (part := folder / f"{number:06d}{ending}").exists():
        number += 1
    return part


def _one_file(path: Path, kind: Kind, pictures: Pictures | None) -> Sink:
    return _Parts(lambda: _unused(path), lambda part, _: _part_writer(part, kind, pictures, ""), 0)


def _part_writer(path: Path, kind: Kind, pictures: Pictures | None, name: str) -> Sink:
    if kind is Kind.PARQUET:
        return ParquetWriter(path, Layout.OURS)
    if kind is Kind.JSONL:
        return JsonlWriter(path)
    if pictures is None:
        raise RecordError(f"{path}: a tar holds the pictures; say where they are: pictures=")
    return TarWriter(path, pictures, name if name.isdigit() else "")


def _unused(path: Path) -> Path:
    if path.exists():
        raise RecordError(
            f"{path} is there already, and nothing can be appended to one Parquet file or tar: "
            "write another file, or a folder, which grows by parts"
        )
    return path


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    with contextlib.suppress(OSError):  # not every system opens folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _named() -> str:
    return ".jsonl, .jsonl.gz, .jsonl.zst, .parquet or .tar"


_ROWS: dict[Kind, Callable[[Path], Iterator[Row]]] = {
    Kind.WEBDATASET: webdataset.rows,
    Kind.PARQUET: parquet.rows,
    Kind.JSONL: jsonl.rows,
}
