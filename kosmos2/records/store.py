"""Stores of records by the name of a path: JSON lines, Parquet, WebDataset tars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kosmos2.records import jsonl
from kosmos2.records.jsonl import JsonlWriter as Writer
from kosmos2.records.jsonl import record_of, warn_unfinished
from kosmos2.records.record import GroundedRecord

__all__ = ["Writer", "read"]


def read(path: Path) -> Iterator[GroundedRecord]:
    """Yield the records of a store; an error names the file and the line."""
    for row in jsonl.rows(path):
        if row.unfinished:
            warn_unfinished(row)
        else:
            yield record_of(row)


read_jsonl = read
RecordWriter = Writer
