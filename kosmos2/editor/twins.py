"""The same box in both views of a record: noun chunks and referring expressions.

GRIT's lists are parallel: "a dog" and "a dog in a field" have one box, which is written twice.
Somebody who moves it means both. Twins are found by their corners: the k-th of equal boxes here
is the k-th of those there.
"""

from __future__ import annotations

from collections.abc import Sequence

from kosmos2.records.record import Grounded, GroundedRecord, View

VIEWS: tuple[View, View] = ("noun_chunks", "ref_exps")
Span = tuple[int, int]


def other(view: View) -> View:
    """Return the other one of the two views."""
    return "ref_exps" if view == "noun_chunks" else "noun_chunks"


def shown(record: GroundedRecord) -> View:
    """Return the view that `record.entries` are of."""
    return "noun_chunks" if record.ref_exps is None and record.noun_chunks else "ref_exps"


def of(record: GroundedRecord, view: View) -> tuple[Grounded, ...]:
    """Return the entries of a view; () also where nobody knows them."""
    return getattr(record, view) or ()


def places_of(entries: Sequence[Grounded], span: Span) -> list[int]:
    """Return where entries of this span stand."""
    return [place for place, entry in enumerate(entries) if entry[:2] == span]


def twin_of(record: GroundedRecord, view: View, place: int) -> int | None:
    """Return the place of the same box in the other view, or None where it has none there."""
    here, there = of(record, view), of(record, other(view))
    corners = here[place][2:6]
    rank = sum(entry[2:6] == corners for entry in here[:place])
    equals = [number for number, entry in enumerate(there) if entry[2:6] == corners]
    return equals[rank] if rank < len(equals) else None


def is_parallel(record: GroundedRecord) -> bool:
    """Return whether both views are known and have the same boxes in the same order."""
    if record.noun_chunks is None or record.ref_exps is None:
        return False
    return [entry[2:6] for entry in record.noun_chunks] == [entry[2:6] for entry in record.ref_exps]


def span_beside(
    record: GroundedRecord, view: View, span: Span, moving: Sequence[int]
) -> Span | None:
    """Return what the other view calls a phrase of this one: the span there of one of its boxes.

    `moving` are entries that only now come to the phrase, which therefore say nothing.
    """
    for place in places_of(of(record, view), span):
        twin = None if place in moving else twin_of(record, view, place)
        if twin is not None:
            return of(record, other(view))[twin][:2]
    return None


def beside(
    record: GroundedRecord, view: View, span: Span, twin: Grounded, moving: Sequence[int]
) -> Span:
    """Return the span that a twin gets when its box comes to the phrase `span` of this view.

    One that lies inside the new words, or holds them, can stay: a chunk in its expression.
    """
    known = span_beside(record, view, span, moving)
    start, end = twin[:2]
    nested = (span[0] <= start and end <= span[1]) or (start <= span[0] and span[1] <= end)
    return known or ((start, end) if nested else span)
