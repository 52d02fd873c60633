"""What the score of a box is worth: how often boxes of a score are right, and how far that is off.

A box is right where its IoU with a true one of its phrase is at least 0.5. Counted are the first
box of each phrase, as accuracy does, and all boxes that were written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kosmos2.errors import RecordError
from kosmos2.evaluation.benchmark import Pair
from kosmos2.evaluation.bootstrap import Bootstrap
from kosmos2.evaluation.localisation import best_overlap
from kosmos2.evaluation.metrics import IOU, Number, Part, auroc, share

BINS = 10
THRESHOLDS = tuple(step / 10 for step in range(10))
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredBox:
    """A box that a model wrote, judged."""

    picture: str
    score: float
    """0..1."""
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Boxes whose scores lie in [low, high); the last one has 1 too."""

    low: float
    high: float
    score: float
    """The mean score of its boxes."""
    right: Number
    """The share of right ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Boxes whose score is a threshold or more."""

    threshold: float
    kept: float
    """The share of all boxes."""
    precision: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """What the scores of some boxes are worth."""

    n: int
    score: float
    """The mean score."""
    right: Number
    ece: Number
    """Expected calibration error: |mean score - share of right ones| over bins of equal width, each
    with the weight of its boxes. Chance alone makes it larger than 0."""
    brier: Number
    """Mean squared distance of the score from 1 where the box is right, from 0 where it is not."""
    auroc: Number | None
    """None where all boxes are right, or none is."""
    bins: tuple[Bin, ...]
    """Those that have a box."""
    cuts: tuple[Cut, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return asdict(self)


def first_boxes(pairs: Sequence[Pair]) -> list[ScoredBox]:
    """Return the first box of each answer that has one."""
    return [own[0] for own in _scored(pairs) if own]


def all_boxes(pairs: Sequence[Pair]) -> list[ScoredBox]:
    """Return every box of every answer."""
    return [box for own in _scored(pairs) for box in own]


def _scored(pairs: Sequence[Pair]) -> list[list[ScoredBox]]:
    """Return the boxes of each answer; all have scores, or none."""
    bare = [problem.id for problem, answer in pairs if len(answer.boxes) != len(answer.scores)]
    if bare and any(answer.scores for _, answer in pairs):
        raise RecordError(
            f"{len(bare)} answers have boxes without scores, the first to {bare[0]!r}; others have "
            "scores. Run the evaluation anew."
        )
    return [
        [
            ScoredBox(problem.picture, score, best_overlap([box], problem.boxes) >= IOU)
            for box, score in zip(answer.boxes, answer.scores, strict=not bare)
        ]
        for problem, answer in pairs
    ]


def reliability(boxes: Sequence[ScoredBox]) -> Reliability:
    """Return what the scores of boxes are worth; needs one at least."""
    if not boxes:
        raise RecordError(
            "no box in these predictions has a score, so there is nothing to calibrate"
        )
    scores = np.asarray([box.score for box in boxes])
    right = np.asarray([box.right for box in boxes], dtype=np.float64)
    pictures = [box.picture for box in boxes]
    bootstrap = Bootstrap(pictures)
    places = np.minimum((scores * BINS).astype(int), BINS - 1)
    columns = bootstrap.means({"brier": ((scores - right) ** 2).tolist()}, range(len(boxes)))
    return Reliability(
        n=len(boxes),
        score=math.fsum(scores) / len(boxes),
        right=share([Part(box.picture, float(box.right), 1.0) for box in boxes]),
        ece=_ece(scores, right, places, bootstrap),
        brier=columns["brier"],
        auroc=auroc(scores.tolist(), [box.right for box in boxes], pictures)
        if 0 < right.sum() < len(boxes)
        else None,
        bins=tuple(
            _bin(number, [box for box, place in zip(boxes, places, strict=True) if place == number])
            for number in np.unique(places).tolist()
        ),
        cuts=tuple(cut for level in THRESHOLDS if (cut := _cut(boxes, level)).precision.n),
    )


def _ece(scores: Floats, right: Floats, places: NDArray[np.int64], bootstrap: Bootstrap) -> Number:
    gaps = np.zeros((len(scores), BINS))
    gaps[np.arange(len(scores)), places] = right - scores
    value = float(np.abs(gaps.sum(0)).sum() / len(scores))
    counted = bootstrap.sums(np.column_stack([gaps, np.ones(len(scores))]))
    drawn = np.abs(counted[:, :BINS]).sum(1) / counted[:, BINS]
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Number(value=value, n=len(scores), low=min(low, value), high=max(high, value))


def _bin(number: int, boxes: Sequence[ScoredBox]) -> Bin:
    return Bin(
        low=number / BINS,
        high=(number + 1) / BINS,
        score=math.fsum(box.score for box in boxes) / len(boxes),
        right=share([Part(box.picture, float(box.right), 1.0) for box in boxes]),
    )


def _cut(boxes: Sequence[ScoredBox], threshold: float) -> Cut:
    kept = [box for box in boxes if box.score >= threshold]
    return Cut(
        threshold=threshold,
        kept=len(kept) / len(boxes),
        precision=share([Part(box.picture, float(box.right), 1.0) for box in kept]),
    )
