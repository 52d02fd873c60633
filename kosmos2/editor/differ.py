"""How far two records of one picture are apart: boxes of the same words, words of the same box."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kosmos2.boxes import iou
from kosmos2.editor import twins
from kosmos2.records.formats.labels import class_name
from kosmos2.records.record import Grounded, GroundedRecord, View

SAME_PLACE = 0.5
"""IoU from which two boxes mean one thing: that of the field's benchmarks."""


class Kind(StrEnum):
    SAME = "same"
    MOVED = "moved"
    """The same words, a box that overlaps with less than `SAME_PLACE`."""
    WORDS = "words"
    """One place, other words."""
    OURS = "ours"
    THEIRS = "theirs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A box here and one there that mean the same, or one of them alone (None)."""

    kind: Kind
    ours: int | None
    theirs: int | None
    iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    amount: float
    """0: the same; 1: nothing in common. One less the IoU that pairs share for each box that either
    has, where a pair of other words shares half of its IoU."""
    view: View
    """Whose entries were compared."""
    pairs: tuple[Pair, ...]


def difference(ours: GroundedRecord, theirs: GroundedRecord) -> Difference:
    """Return how two records of one picture differ, in the view of `ours` that is shown."""
    view = twins.shown(ours)
    here = twins.of(ours, view)
    there = theirs.entries if getattr(theirs, view) is None else twins.of(theirs, view)
    named_here = [_named(ours, entry) for entry in here]
    named_there = [_named(theirs, entry) for entry in there]
    overlaps = sorted(
        (
            (words == named_there[j], iou(here[i].box, there[j].box), i, j)
            for i, words in enumerate(named_here)
            for j in range(len(there))
        ),
        key=lambda each: (not each[0], -each[1], each[2], each[3]),
    )
    pairs: list[Pair] = []
    used: set[tuple[str, int]] = set()
    for is_same_phrase, overlap, i, j in overlaps:
        if ("ours", i) in used or ("theirs", j) in used:
            continue
        if kind := _kind(overlap, is_same_phrase=is_same_phrase):
            pairs.append(Pair(kind=kind, ours=i, theirs=j, iou=overlap))
            used |= {("ours", i), ("theirs", j)}
    shared = sum(pair.iou / 2 if pair.kind is Kind.WORDS else pair.iou for pair in pairs)
    boxes = len(here) + len(there) - len(pairs)
    alone = [
        Pair(kind=Kind.OURS, ours=i, theirs=None, iou=0.0)
        for i in range(len(here))
        if ("ours", i) not in used
    ] + [
        Pair(kind=Kind.THEIRS, ours=None, theirs=j, iou=0.0)
        for j in range(len(there))
        if ("theirs", j) not in used
    ]
    return Difference(
        amount=round(1 - shared / boxes, 4) if boxes else 0.0, view=view, pairs=(*pairs, *alone)
    )


def _named(record: GroundedRecord, entry: Grounded) -> str:
    """Return the words of an entry without what does not matter: capitals, an article."""
    return class_name(record.caption[entry.start : entry.end])


def _kind(overlap: float, *, is_same_phrase: bool) -> Kind | None:
    if is_same_phrase:
        return Kind.SAME if overlap >= SAME_PLACE else Kind.MOVED
    return Kind.WORDS if overlap >= SAME_PLACE else None
