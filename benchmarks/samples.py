"""From repeated measurements to the few numbers of a table, and straight lines through them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles between which half of the values lie."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratios(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return how many times longer the peer took in each round."""
    return [theirs / mine for theirs, mine in zip(peer, ours, strict=True)]


def fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Return the coefficients with the least squared relative error: values ~ rows @ result."""
    scaled = [[x / value for x in row] for row, value in zip(rows, values, strict=True)]
    size = len(scaled[0])
    normal = [
        [sum(row[i] * row[j] for row in scaled) for j in range(size)]
        + [sum(row[i] for row in scaled)]
        for i in range(size)
    ]
    return _solve(normal)


def predict(row: Sequence[float], coefficients: Sequence[float]) -> float:
    """Return the value on the line."""
    return sum(x * coefficient for x, coefficient in zip(row, coefficients, strict=True))


def _solve(augmented: list[list[float]]) -> list[float]:
    """Return x of A x = b for the rows [A | b], by elimination with pivots."""
    rows = [list(row) for row in augmented]
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda at: abs(rows[at][column]))
        if not rows[pivot][column]:
            raise ValueError("the measurements do not tell the terms of the fit apart")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for other in range(size):
            if other != column:
                factor = rows[other][column] / rows[column][column]
                rows[other] = [
                    x - factor * y for x, y in zip(rows[other], rows[column], strict=True)
                ]
    return [rows[at][size] / rows[at][at] for at in range(size)]
