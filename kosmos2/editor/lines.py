"""The records of a store by their number, from one reading, in the memory of a few bytes each.

Their text is copied, without pictures, into a temporary file in which any record can be sought:
compressed and columnar files have no such places, and a store that grows meanwhile does no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

from kosmos2.records.jsonl import text_of
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import read

_BUFFER = 1 << 20


class Lines:
    """What a store held when it was read."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=_BUFFER)  # noqa: SIM115 (closed by `close`)
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> GroundedRecord:
        return GroundedRecord.from_dict(json.loads(self._text(number)))

    def fill(self, store: Path, tell: Callable[[int], None]) -> Iterator[GroundedRecord]:
        """Yield the records of a store while they are taken in; `tell` hears how many there are."""
        for record in read(store):
            text = text_of(record)
            self._file.write(text)
            self._ends.append(self._ends[-1] + len(text))
            tell(len(self))
            yield record
        self._file.flush()

    def digest(self, number: int) -> str:
        """Return what tells whether a record is still the one that was edited."""
        return digest_of(self._text(number))

    def close(self) -> None:
        """Let the temporary file go."""
        self._file.close()

    def _text(self, number: int) -> bytes:
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start)


def digest_of(text: bytes) -> str:
    """Return the digest of a record's line, as `records.jsonl.text_of` writes it."""
    return hashlib.sha256(text).hexdigest()[:16]
