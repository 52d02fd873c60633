"""What is measured of pairs and boxes besides the detector's scores: columns of the record, which
filters may ask for. Kept when a pair is looked at, so that other thresholds need no other look.

    nsfw         how probable it is that a picture is not to be shown at work, 0 to 1
    similarity   the cosine of picture and caption, -1 to 1
    round_trip   of each box of ref_exps: the IoU of the box that its description leads back to
    agreement    of each box of ref_exps: the highest IoU with a second detector's for its phrase

null: not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kosmos2.boxes import Box, iou
from kosmos2.grit.detectors import Asked
from kosmos2.grit.linking import Candidate
from kosmos2.grit.phrases import Phrase
from kosmos2.grit.recipe import Filters, Quality

NSFW = "not safe for work"
UNLIKE = "caption unlike the picture"
LOST = "lost on the round trip"
DISAGREED = "the second detector disagrees"
UNMEASURED = "not measured"
DIGITS = 4
"""Behind the point: the others differ from one processor to another."""

Column = list[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A pair that the detector has looked at, with boxes."""

    asked: Asked
    phrases: tuple[Phrase, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a pair; None: nothing."""

    nsfw: float | None = None
    similarity: float | None = None
    round_trip: tuple[float | None, ...] | None = None
    """Of each candidate."""
    second: tuple[Candidate, ...] | None = None
    """The second detector's boxes above the floor."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object of what was measured."""
        whole: dict[str, Any] = {"nsfw": self.nsfw, "similarity": self.similarity}
        whole["round_trip"] = self.round_trip
        if self.second is not None:
            whole["second"] = [[each.phrase, *each.box.corners, each.score] for each in self.second]
        return {name: value for name, value in whole.items() if value is not None}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Measured:
        """Return the value that `to_dict` wrote."""
        trips, second = row.get("round_trip"), row.get("second")
        return cls(
            nsfw=row.get("nsfw"),
            similarity=row.get("similarity"),
            round_trip=None if trips is None else tuple(trips),
            second=None
            if second is None
            else tuple(
                Candidate(phrase=phrase, box=Box(*corners), score=score)
                for phrase, *corners, score in second
            ),
        )


NOTHING = Measured()


class Measurer(Protocol):
    """Measures what a recipe's `[quality]` asks for. The same values in any company."""

    def measure(self, seen: Sequence[Seen]) -> list[Measured]:
        """Return what was measured of each pair."""


class Unmeasured:
    """Measures nothing."""

    def measure(self, seen: Sequence[Seen]) -> list[Measured]:
        """Return nothing for each pair."""
        return [NOTHING] * len(seen)


def refuse_measured(measured: Measured, rules: Filters) -> str:
    """Return why a pair is refused for what was measured of all of it, or ""."""
    if measured.nsfw is not None and measured.nsfw > rules.max_nsfw:
        return NSFW
    if measured.similarity is not None and measured.similarity < rules.min_similarity:
        return UNLIKE
    return ""


def columns_of_pair(measured: Measured, quality: Quality) -> dict[str, float | None]:
    """Return the columns that have one value for a record."""
    columns = {}
    if quality.nsfw:
        columns["nsfw"] = measured.nsfw
    if quality.similarity:
        columns["similarity"] = measured.similarity
    return columns


def columns_of_boxes(
    seen: Sequence[Candidate],
    kept: Sequence[Candidate],
    measured: Measured,
    quality: Quality,
    rules: Filters,
) -> dict[str, Column]:
    """Return the columns that have a value for each box that was kept of those seen."""
    columns: dict[str, Column] = {}
    if quality.round_trip:
        known = dict(zip(seen, measured.round_trip or [None] * len(seen), strict=True))
        columns["round_trip"] = [known[each] for each in kept]
    if quality.second:
        columns["agreement"] = [_agreement(each, measured.second, rules) for each in kept]
    return columns


def refuse_boxes(columns: Mapping[str, Column], count: int, rules: Filters) -> list[str]:
    """Return of each of `count` boxes why it is refused, or "". What is not known is refused
    where a filter asks for it."""
    reasons = [""] * count
    for name, least, reason in (
        ("round_trip", rules.min_round_trip, LOST),
        ("agreement", rules.min_agreement, DISAGREED),
    ):
        if least > 0:
            for number, value in enumerate(columns[name]):
                unmet = f"{name} {UNMEASURED}" if value is None else reason if value < least else ""
                reasons[number] = reasons[number] or unmet
    return reasons


def _agreement(box: Candidate, second: Sequence[Candidate] | None, rules: Filters) -> float | None:
    if second is None:
        return None
    overlaps = (
        iou(box.box, other.box)
        for other in second
        if other.phrase == box.phrase and other.score > rules.second_threshold
    )
    return round(max(overlaps, default=0.0), DIGITS)
