"""Numbers from judged answers: boxes matched one to one, shares, means, ranking.

Every number comes with its n and a 95 % interval that knows that questions about one picture go
together: Wilson's with as many answers as independent ones would tell as much, for a share; a
bootstrap over the pictures else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kosmos2.boxes import Box, iou

IOU = 0.5
"""Overlap from which a box counts as right."""
RESAMPLES = 1000
_SEED = 0
_Z = 1.959964  # 95 % of a normal distribution lie within this many standard deviations

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    value: float
    n: int
    """What the value is a mean over: questions, boxes, ..."""
    low: float
    high: float
    """95 % interval."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A box and what is in it."""

    noun: str
    box: Box
    colour: str = ""
    """Where a colour is said of it."""


@dataclass(frozen=True, slots=True)
class Match:
    predicted: int
    true: int
    overlap: float


@dataclass(frozen=True, slots=True)
class Part:
    """What one question adds to a share or a mean."""

    picture: str
    above: float
    below: float


def match(
    predicted: Sequence[Thing], true: Sequence[Thing], *, at_least: float
) -> tuple[Match, ...]:
    """Pair things of the same noun one to one, the largest overlaps first; earlier ones at a tie.

    An overlap below `at_least` makes no pair.
    """
    return one_to_one(
        Match(i, j, overlap)
        for i, one in enumerate(predicted)
        for j, other in enumerate(true)
        if one.noun == other.noun and (overlap := iou(one.box, other.box)) >= at_least
    )


def one_to_one(candidates: Iterable[Match]) -> tuple[Match, ...]:
    """Return pairs that share no side: the largest overlaps first, earlier ones at a tie."""
    taken_predicted: set[int] = set()
    taken_true: set[int] = set()
    pairs = []
    for pair in sorted(candidates, key=lambda each: (-each.overlap, each.predicted, each.true)):
        if pair.predicted not in taken_predicted and pair.true not in taken_true:
            taken_predicted.add(pair.predicted)
            taken_true.add(pair.true)
            pairs.append(pair)
    return tuple(pairs)


def share(parts: Sequence[Part]) -> Number:
    """Return the sum above over the sum below, each unit of which is right or wrong.

    A share of nothing is 0, and its interval says that nothing is known.
    """
    above, below = _sums(parts)
    n = float(below.sum())
    if n == 0:
        return Number(value=0.0, n=0, low=0.0, high=1.0)
    value = float(above.sum()) / n
    if 0 < value < 1:
        spread = float(((above - value * below) ** 2).sum()) / n**2
        alone = value * (1 - value) / n  # the variance if every unit were independent
        independent = n / max(1.0, spread / alone)
    else:
        independent = float((below > 0).sum())
    low, high = wilson(value, independent)
    return Number(value=value, n=round(n), low=low, high=high)


def wilson(value: float, n: float) -> tuple[float, float]:
    """Return the interval in which the share lies of which `n` independent answers show `value`."""
    middle = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    # At 0 and 1 the ends are exactly there, but for rounding.
    return max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))


def mean(parts: Sequence[Part]) -> Number:
    """Return the sum above over the sum below, of quantities of any size. Needs some below."""
    above, below = _sums(parts)
    n = float(below.sum())
    assert n > 0
    weights = _resampled(len(above))
    drawn = np.full(RESAMPLES, math.nan)  # where a resample has nothing below
    np.divide(weights @ above, weights @ below, out=drawn, where=weights @ below > 0)
    return _with_interval(float(above.sum()) / n, round(n), drawn)


def auroc(scores: Sequence[float], right: Sequence[bool], pictures: Sequence[str]) -> Number:
    """Return how often a right answer has a higher score than a wrong one; a tie counts half.

    Needs at least one answer of each kind.
    """
    assert any(right) and not all(right)
    places = _places(pictures)
    ranked = np.argsort(scores, kind="stable")
    levels = np.unique(np.asarray(scores)[ranked], return_index=True)[1]
    is_right = np.asarray(right)[ranked]
    value = _ranking(np.ones((1, len(scores))), is_right, levels)[0]
    weights = _resampled(places.count)[:, places.of_item[ranked]]
    return _with_interval(float(value), len(scores), _ranking(weights, is_right, levels))


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    of_item: NDArray[np.int64]
    count: int


def _places(pictures: Iterable[str]) -> _Places:
    """Number the pictures by first mention, so that order decides nothing but the drawing."""
    numbers: dict[str, int] = {}
    of_item = [numbers.setdefault(picture, len(numbers)) for picture in pictures]
    return _Places(np.asarray(of_item, dtype=np.int64), len(numbers))


def _sums(parts: Sequence[Part]) -> tuple[Floats, Floats]:
    """Return what is above and below, for each picture."""
    places = _places(part.picture for part in parts)
    above, below = np.zeros(places.count), np.zeros(places.count)
    np.add.at(above, places.of_item, [part.above for part in parts])
    np.add.at(below, places.of_item, [part.below for part in parts])
    return above, below


def _resampled(count: int) -> Floats:
    """Return how often each picture is drawn in each of the resamples."""
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float64)


def _ranking(weights: Floats, right: NDArray[np.bool_], levels: NDArray[np.int64]) -> Floats:
    """Return the area under the curve for each row of weights, NaN where one kind has none.

    Answers go by rising score; `levels` are the places where a new score begins.
    """
    of_right = np.add.reduceat(weights * right, levels, axis=1)
    of_wrong = np.add.reduceat(weights * ~right, levels, axis=1)
    won = (of_right * (np.cumsum(of_wrong, axis=1) - of_wrong / 2)).sum(axis=1)
    pairs = of_right.sum(axis=1) * of_wrong.sum(axis=1)
    areas = np.full(len(won), math.nan)
    np.divide(won, pairs, out=areas, where=pairs > 0)
    return areas


def _with_interval(value: float, n: int, drawn: Floats) -> Number:
    drawn = drawn[~np.isnan(drawn)]
    assert drawn.size
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Number(value=value, n=n, low=min(low, value), high=max(high, value))
