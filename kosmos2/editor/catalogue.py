"""What the list of records asks of each one, kept in memory; and lists of those that fit a query.

A list stays as it was asked for while somebody works through it: what is accepted does not vanish
from under the hands.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any

from kosmos2.editor.history import State, Status
from kosmos2.errors import RecordError

KEPT_LISTS = 16


class Sort(StrEnum):
    PLACE = "place"
    SCORE = "score"
    """The least sure box first; records without any score last."""
    SIZE = "size"
    """The smallest box first; records without boxes last."""
    DISAGREEMENT = "disagreement"
    """The furthest apart first."""


@dataclass(frozen=True, slots=True)
class Boxed:
    """A box as filters see it."""

    words: str
    """Of its phrase, folded."""
    score: float | None
    area: float
    """Share of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    name: str
    """The id, as text; "" where the record has none."""
    status: Status
    boxes: tuple[Boxed, ...]
    reasons: tuple[str, ...]
    disagreement: float | None
    """With the record of the same id in the other store; None without such."""

    @property
    def lowest(self) -> float | None:
        """Return the lowest score, None where no box has one."""
        return min((box.score for box in self.boxes if box.score is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which records: all that is given must hold, and all that is said of boxes of one box."""

    text: str = ""
    """In the words of a phrase, or the whole id."""
    min_score: float = 0.0
    max_score: float = 1.0
    min_area: float = 0.0
    max_area: float = 1.0
    reason: str = ""
    statuses: frozenset[Status] = frozenset()
    """Empty: any."""
    min_disagreement: float = 0.0
    sort: Sort = Sort.PLACE

    @property
    def asks_of_boxes(self) -> bool:
        return (self.min_score, self.max_score, self.min_area, self.max_area) != (0, 1, 0, 1)

    def fits(self, summary: Summary) -> bool:
        """Return whether a record is one of those asked for."""
        if self.statuses and summary.status not in self.statuses:
            return False
        if self.reason and self.reason not in summary.reasons:
            return False
        if self.min_disagreement > 0 and (summary.disagreement or 0.0) < self.min_disagreement:
            return False
        if not self.text and not self.asks_of_boxes:
            return True
        words = self.text.casefold()
        if words and summary.name.casefold() == words and not self.asks_of_boxes:
            return True
        return any(words in box.words and self._fits(box) for box in summary.boxes)

    def _fits(self, box: Boxed) -> bool:
        scored = (self.min_score, self.max_score) == (0, 1) or (
            box.score is not None and self.min_score <= box.score <= self.max_score
        )
        return scored and self.min_area <= box.area <= self.max_area


class Catalogue:
    """The summaries of a store, in its order."""

    def __init__(self) -> None:
        self._summaries: list[Summary] = []
        self._statuses: Counter[Status] = Counter()
        self._reasons: Counter[str] = Counter()
        self._lists: OrderedDict[int, array[int]] = OrderedDict()
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._summaries)

    def __getitem__(self, number: int) -> Summary:
        return self._summaries[number]

    def add(self, summary: Summary) -> None:
        """Take in the next record."""
        self._summaries.append(summary)
        self._statuses[summary.status] += 1
        self._reasons.update(summary.reasons)

    def put(self, number: int, summary: Summary) -> None:
        """Take in what a record has become."""
        self._statuses[self._summaries[number].status] -= 1
        self._statuses[summary.status] += 1
        self._summaries[number] = summary

    def statuses(self) -> dict[str, int]:
        """Return how many records have each status."""
        return {str(status): self._statuses[status] for status in Status}

    def reasons(self) -> dict[str, int]:
        """Return how many records have each reason, the most frequent first."""
        return dict(self._reasons.most_common())

    def make_list(self, query: Query) -> int:
        """Return the number of a new list with all records that fit; old lists are forgotten."""
        found = [n for n, summary in enumerate(self._summaries) if query.fits(summary)]
        if query.sort is not Sort.PLACE:
            found.sort(key=lambda number: _rank(self._summaries[number], query.sort))
        name = next(self._numbers)
        self._lists[name] = array("Q", found)
        while len(self._lists) > KEPT_LISTS:
            self._lists.popitem(last=False)
        return name

    def listed(self, name: int) -> Sequence[int]:
        """Return the records of a list."""
        try:
            self._lists.move_to_end(name)
            return self._lists[name]
        except KeyError:
            raise RecordError(f"list {name} is not kept any more: ask again") from None


def summary_of(state: State, reasons: Iterable[str], disagreement: float | None) -> Summary:
    """Return what filters ask of a record."""
    record = state.record
    return Summary(
        name="" if record.id is None else str(record.id),
        status=state.status,
        boxes=tuple(
            Boxed(
                record.caption[entry.start : entry.end].casefold(),
                entry.score,
                (entry.x1 - entry.x0) * (entry.y1 - entry.y0),
            )
            for entry in record.entries
        ),
        reasons=tuple(dict.fromkeys((*reasons_in(record.extra), *reasons))),
        disagreement=disagreement,
    )


def reasons_in(fields: Mapping[str, Any]) -> list[str]:
    """Return why a record, or parts of it, were refused, as its own fields tell.

    `drop_reason` is of a pair that `grit build` dropped; `malformed` is what `annotate` could not
    use of an answer.
    """
    told = [fields["drop_reason"]] if isinstance(fields.get("drop_reason"), str) else []
    faults = fields.get("malformed")
    for fault in faults if isinstance(faults, list) else ():
        if isinstance(fault, Mapping) and isinstance(fault.get("reason"), str):
            told.append(fault["reason"])
    return told


def _rank(summary: Summary, sort: Sort) -> float:
    if sort is Sort.SCORE:
        lowest = summary.lowest
        return 2.0 if lowest is None else lowest
    if sort is Sort.SIZE:
        return min((box.area for box in summary.boxes), default=2.0)
    return -(summary.disagreement or 0.0)
