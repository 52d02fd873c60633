"""Some records of many: a fair sample, parts that never change, several sets as one.

Everything here depends on the records and the numbers given, never on the process or its clock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from queue import Full, Queue
from typing import TypeVar

from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord

T = TypeVar("T")
WAITING = 256
"""Records that may wait for the writer of a part."""
_HASHES = 2**64


def sample(items: Iterable[T], count: int, *, seed: int) -> list[T]:
    """Return `count` of the items, each as likely as any other, in their order.

    One pass that holds `count` items (reservoir sampling); all of them where there are no more.
    """
    if count < 1:
        raise RecordError(f"a sample needs at least 1 record, got {count}")
    chance = random.Random(seed)
    kept: list[tuple[int, T]] = []
    for number, item in enumerate(items):
        if number < count:
            kept.append((number, item))
        elif (place := chance.randrange(number + 1)) < count:
            kept[place] = (number, item)
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])]


class Parts:
    """Shares a set out: which part a record belongs to says its id alone.

    So a record stays in its part when others come or go, in any order of the records, on any
    machine; and a first part of a larger share holds all that one of a smaller share held.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        """Take the share of each part, which add up to 1."""
        if not shares or any(not 0 < share < 1 for share in shares[1:]) or not 0 < shares[0] <= 1:
            raise RecordError(f"the shares of parts lie between 0 and 1, got {_listed(shares)}")
        if not math.isclose(math.fsum(shares), 1, abs_tol=1e-6):
            raise RecordError(
                f"the shares of parts add up to 1, these to {math.fsum(shares):g}: "
                f"{_listed(shares)}"
            )
        self._ends = [round(end * _HASHES) for end in accumulate(shares)]
        self._ends[-1] = _HASHES

    def __len__(self) -> int:
        return len(self._ends)

    def of(self, record: GroundedRecord) -> int:
        """Return the number of the record's part, from 0 on."""
        digest = hashlib.sha256(identity(record).encode()).digest()
        place = int.from_bytes(digest[:8], "big")
        return next(number for number, end in enumerate(self._ends) if place < end)


def identity(record: GroundedRecord) -> str:
    """Return what tells a record from all others: its id, else where its picture is, else all.

    An id is compared as text: many formats cannot say whether it was a number.
    """
    if record.id is not None:
        return f"id {record.id}"
    if record.image is not None:
        return f"image {record.shard or ''} {record.image}"
    if record.url is not None:
        return f"url {record.url} {record.caption}"
    return json.dumps(record.to_dict(), sort_keys=True, default=str)


def share_out(
    records: Iterable[GroundedRecord],
    parts: Parts,
    write: Callable[[int, Iterator[GroundedRecord]], T],
) -> list[T]:
    """Hand every record to the writer of its part, in one pass; return what the writers return.

    `write(part, its records)` runs in a thread for each part. What goes wrong in one, or in the
    reading, ends all of them: their records then end with an error, so that nothing half appears.
    """
    queues: list[Queue[GroundedRecord | _End]] = [Queue(WAITING) for _ in range(len(parts))]
    with ThreadPoolExecutor(len(parts)) as threads:
        writers = [
            threads.submit(write, number, _drained(queue)) for number, queue in enumerate(queues)
        ]
        end = _End(broken=True)
        try:
            everything = all(
                _put(record, queues[number], writers[number])
                for record in records
                for number in [parts.of(record)]
            )
            end = _End(broken=not everything)
        finally:
            for queue, writer in zip(queues, writers, strict=True):
                _put(end, queue, writer)
    # A writer that was stopped by another's error is not the one to blame.
    errors = [error for writer in writers if (error := writer.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _BrokenOffError)):
        raise error
    return [writer.result() for writer in writers]


@dataclass(frozen=True, slots=True)
class _End:
    """Comes after the last record of a part."""

    broken: bool


class _BrokenOffError(RecordError):
    """The records of a part end because of an error elsewhere."""


def _put(
    item: GroundedRecord | _End, queue: Queue[GroundedRecord | _End], writer: Future[T]
) -> bool:
    """Return whether the item could be handed over: a writer that has failed takes no more."""
    while not writer.done():
        with contextlib.suppress(Full):
            queue.put(item, timeout=0.2)
            return True
    return False


def _drained(queue: Queue[GroundedRecord | _End]) -> Iterator[GroundedRecord]:
    while not isinstance(item := queue.get(), _End):
        yield item
    if item.broken:
        raise _BrokenOffError("another part could not be read or written")


class Duplicates(StrEnum):
    """What happens to a record whose id an earlier one has."""

    REFUSE = "refuse"
    KEEP = "keep"
    DROP = "drop"


class Merge:
    """Several sets as one, in the order given. It remembers some 100 bytes for each record."""

    def __init__(self, duplicates: Duplicates) -> None:
        self.duplicates = duplicates
        self.found = 0
        """Records whose id an earlier one had."""
        self._seen: set[bytes] = set()

    def records(
        self, sources: Iterable[tuple[str, Iterable[GroundedRecord]]]
    ) -> Iterator[GroundedRecord]:
        """Yield the records of named sources, one source after the other."""
        for name, records in sources:
            for record in records:
                if self._is_new(record):
                    yield record
                    continue
                self.found += 1
                if self.duplicates is Duplicates.REFUSE:
                    raise RecordError(
                        f"{name}: record {record.id} was there before. Records of one id are "
                        f"kept or dropped when you say so: --duplicates keep, or drop"
                    )
                if self.duplicates is Duplicates.KEEP:
                    yield record

    def _is_new(self, record: GroundedRecord) -> bool:
        """Return whether no record before had this id; one without id is always new."""
        if record.id is None:
            return True
        digest = hashlib.blake2b(str(record.id).encode(), digest_size=16).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


def _listed(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:g}" for share in shares)
