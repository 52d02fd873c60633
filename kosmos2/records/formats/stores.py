"""Our own stores as formats: everything is kept, in lines, in columns or beside the pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from kosmos2.errors import RecordError
from kosmos2.records.formats.format import KEPT, Feature, Format, Reader, Reading, Writing, each
from kosmos2.records.formats.objects import image_of
from kosmos2.records.jsonl import JsonlWriter, Row, finished
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import (
    Kind,
    Sink,
    Writer,
    checked,
    folder_writer,
    kind_named,
    root_of,
    rows_of_kind,
)

ENTRIES = "[start, end, x_min, y_min, x_max, y_max, score]: corners are shares of the picture, 0-1"


def reader_of(kind: Kind) -> Reader:
    """Return what reads stores of one kind, a file or a folder of parts."""

    def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
        def record(row: Row) -> GroundedRecord:
            return _found(checked(row), root_of(path), reading)

        named = ((row.where, row) for row in finished(rows_of_kind(path, kind)))
        return each(named, record, reading.refuse)

    return read


def write_lines(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write lines; a name that ends in .gz or .zst packs them."""
    with JsonlWriter(path) as writer:
        _write_each(records, writer, writing)


def write_columns(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write one Parquet file, or a folder of them where the name has no such ending."""
    with _file_or_folder(path, Kind.PARQUET, writing) as writer:
        for record in records:
            writer.write(record)


def write_tars(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write one tar, or a folder of them where the name has no such ending."""
    with _file_or_folder(path, Kind.WEBDATASET, writing) as writer:
        _write_each(records, writer, writing)


def _file_or_folder(path: Path, kind: Kind, writing: Writing) -> Sink:
    if kind_named(path.name) is kind:
        return Writer(path, writing.pictures)
    path.mkdir(parents=True, exist_ok=True)  # before the first record, as `convert` asks
    return folder_writer(path, kind, writing.pictures)


def _write_each(records: Iterable[GroundedRecord], writer: Sink, writing: Writing) -> None:
    for record in records:
        try:
            writer.write(record)
        except RecordError as error:
            writing.refuse(f"record {record.id}", error)


def _found(record: GroundedRecord, root: Path, reading: Reading) -> GroundedRecord:
    """Return the record with its picture where the reading says that pictures are."""
    if record.image is None or record.shard is not None or record.image.startswith("scene:"):
        return record
    image = image_of(record.image, root / "records", reading)
    return record if image == record.image else dataclasses.replace(record, image=image)


JSONL = Format(
    name="jsonl",
    title="kosmos2 records as JSON lines",
    layout="a file .jsonl, .jsonl.gz or .jsonl.zst with a record on each line",
    coordinates=ENTRIES,
    carries=dict.fromkeys(Feature, KEPT),
    read=reader_of(Kind.JSONL),
    write=write_lines,
)
PARQUET = Format(
    name="parquet",
    title="kosmos2 records as Parquet",
    layout="a file .parquet, or a folder of such; every field a column",
    coordinates="columns x0, y0, x1, y1 of each entry: corners are shares of the picture, 0-1",
    carries=dict.fromkeys(Feature, KEPT),
    read=reader_of(Kind.PARQUET),
    write=write_columns,
)
WEBDATASET = Format(
    name="webdataset",
    title="WebDataset tars",
    layout="a file .tar, or a folder of such; key.json beside the picture's bytes, key.jpg",
    coordinates=ENTRIES,
    carries={
        **dict.fromkeys(Feature, KEPT),
        Feature.PICTURE: "its bytes are copied into the tar, where the record then points",
    },
    read=reader_of(Kind.WEBDATASET),
    write=write_tars,
)
