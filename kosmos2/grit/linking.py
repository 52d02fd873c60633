"""From detected boxes to the entries of a record: overlaps, threshold, spans inside spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kosmos2.boxes import Box, iou
from kosmos2.grit.phrases import Phrase
from kosmos2.grit.recipe import Linking
from kosmos2.records.record import Grounded

SCORE_DIGITS = 4
"""Behind the point, of a score that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A box that a detector gave to a phrase, normalised, with the detector's own score, 0 to 1."""

    phrase: int
    """Which of the caption's phrases."""
    box: Box
    score: float


def rounded(candidate: Candidate) -> Candidate:
    """Return a box without the last digits, in which one processor differs from another."""
    box = Box(*(round(corner, 6) for corner in candidate.box.corners))
    return replace(candidate, box=box, score=round(candidate.score, SCORE_DIGITS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """What is kept, and how many boxes or phrases went for which reason."""

    kept: tuple[Candidate, ...]
    """The surest first, as in the released records. The next two are parallel to it."""
    noun_chunks: tuple[Grounded, ...]
    ref_exps: tuple[Grounded, ...]
    dropped: tuple[tuple[str, int], ...]


def link(phrases: Sequence[Phrase], candidates: Sequence[Candidate], rules: Linking) -> Linked:
    """Return the entries of a record; its lists are parallel.

    In the paper's order (section 2): overlapping boxes go, then those under the threshold.
    """
    ordered = surest_first(candidates)
    apart = suppress(ordered, rules.nms_iou)
    sure = [each for each in apart if each.score > rules.threshold]
    kept = _most(sure, rules.boxes_per_phrase)
    used = {each.phrase for each in kept}
    inside = _contained(phrases, used) if rules.contained == "drop" else frozenset[int]()
    dropped = {
        "overlap": len(ordered) - len(apart),
        "under the threshold": len(apart) - len(sure),
        "more boxes than a phrase may have": len(sure) - len(kept),
        "contained in another expression": sum(each.phrase in inside for each in kept),
    }
    kept = [each for each in kept if each.phrase not in inside]
    return Linked(
        kept=tuple(kept),
        noun_chunks=tuple(_entry(phrases[each.phrase].chunk, each) for each in kept),
        ref_exps=tuple(_entry(phrases[each.phrase].expression, each) for each in kept),
        dropped=tuple((reason, count) for reason, count in dropped.items() if count),
    )


def surest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates by their score; equal ones in an order of their own, whatever came in."""
    return sorted(candidates, key=lambda each: (-each.score, each.phrase, each.box.corners))


def suppress(ordered: Sequence[Candidate], threshold: float) -> list[Candidate]:
    """Return the candidates, the surest first, without those that overlap a surer one by more.

    Over all phrases of a picture at once: a box goes even where the surer one means other words.
    """
    kept: list[Candidate] = []
    for each in ordered:
        if all(iou(each.box, surer.box) <= threshold for surer in kept):
            kept.append(each)
    return kept


def _most(candidates: Sequence[Candidate], at_most: int) -> list[Candidate]:
    seen: dict[int, int] = {}
    kept = []
    for each in candidates:
        seen[each.phrase] = seen.get(each.phrase, 0) + 1
        if seen[each.phrase] <= at_most:
            kept.append(each)
    return kept


def _contained(phrases: Sequence[Phrase], used: set[int]) -> frozenset[int]:
    """Return the phrases whose expression lies inside a larger one that has a box."""
    spans = {index: phrases[index].expression for index in used}
    return frozenset(
        inner
        for inner, (start, end) in spans.items()
        if any(
            (first, last) != (start, end) and first <= start and end <= last
            for first, last in spans.values()
        )
    )


def _entry(span: tuple[int, int], candidate: Candidate) -> Grounded:
    return Grounded(*span, *candidate.box.corners, candidate.score)
