"""Other looks at a record: fewer entries, chosen by one rule, in their old order.

Every function changes both views, noun chunks and referring expressions, each by itself. The
entries of one span are its boxes and stay together where the rule is about spans. A view that
nobody knows (None) stays unknown; one that loses all its entries becomes empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from kosmos2.records.record import Grounded, GroundedRecord

_Entries = tuple[Grounded, ...]
_Span = tuple[int, int]


def non_overlapping(record: GroundedRecord) -> GroundedRecord:
    """Return the record with as many spans as can stand side by side without a shared character.

    The span that ends first is kept, then the one that ends first among those that begin behind
    it, and so on: no choice keeps more spans. Of spans with one end the longest that fits is kept.
    So of "a dog in a field of flowers" with "a dog" and "a field" inside it, the two are kept.
    """
    return _by_spans(record, _side_by_side)


def longest_expression(record: GroundedRecord) -> GroundedRecord:
    """Return the record without the spans that lie inside another one.

    As the paper's loader has it: of "a dog in a field of flowers" and "a dog" in it, the first is
    kept. Spans that overlap without one holding the other are both kept.
    """
    return _by_spans(record, _roots)


def one_box(record: GroundedRecord) -> GroundedRecord:
    """Return the record with one box for each span: the best score, the first of equals.

    A box without a score counts as worse than any with one.
    """
    return _changed(record, _best)


def minimum_score(record: GroundedRecord, score: float) -> GroundedRecord:
    """Return the record with the boxes that have at least this score, from 0 to 1.

    Boxes whose score nobody measured are left out.
    """
    return _kept(record, lambda entry: entry.score is not None and entry.score >= score)


def minimum_area(record: GroundedRecord, area: float) -> GroundedRecord:
    """Return the record with the boxes that cover at least this share of the picture, 0 to 1."""
    return _kept(record, lambda entry: entry.box.area >= area)


def _side_by_side(spans: Iterable[_Span]) -> set[_Span]:
    chosen: set[_Span] = set()
    behind = 0
    for start, end in sorted(spans, key=lambda span: (span[1], span[0])):
        if start >= behind:
            chosen.add((start, end))
            behind = end
    return chosen


def _roots(spans: Iterable[_Span]) -> set[_Span]:
    """Return the spans that no other contains: from left to right, each reaches further."""
    chosen: set[_Span] = set()
    reached = -1
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if end > reached:
            chosen.add((start, end))
            reached = end
    return chosen


def _best(entries: Sequence[Grounded]) -> _Entries:
    best: dict[_Span, int] = {}
    for place, entry in enumerate(entries):
        other = best.get((entry.start, entry.end))
        if other is None or _rank(entry) > _rank(entries[other]):
            best[entry.start, entry.end] = place
    return tuple(entries[place] for place in sorted(best.values()))


def _rank(entry: Grounded) -> float:
    return -1.0 if entry.score is None else entry.score


def _by_spans(
    record: GroundedRecord, choose: Callable[[Iterable[_Span]], set[_Span]]
) -> GroundedRecord:
    def kept(entries: _Entries) -> _Entries:
        spans = choose({(entry.start, entry.end) for entry in entries})
        return tuple(entry for entry in entries if (entry.start, entry.end) in spans)

    return _changed(record, kept)


def _kept(record: GroundedRecord, wanted: Callable[[Grounded], bool]) -> GroundedRecord:
    return _changed(record, lambda entries: tuple(filter(wanted, entries)))


def _changed(record: GroundedRecord, change: Callable[[_Entries], _Entries]) -> GroundedRecord:
    chunks, expressions = record.noun_chunks, record.ref_exps
    return dataclasses.replace(
        record,
        noun_chunks=None if chunks is None else change(chunks),
        ref_exps=None if expressions is None else change(expressions),
    )
