"""Histograms of numbers whose range nobody knows before: exact, in one pass, in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import ROUND_FLOOR, Decimal
from itertools import product
from typing import Any

from kosmos2.records.record import GroundedRecord
from kosmos2.records.stats import Histogram

FINE = 1_000
"""Bars that are counted, at most."""
SHOWN = 10
"""Bars that are shown, at most."""
_FINEST = -9


class Spread:
    """Counts numbers in bars as wide as a power of ten, which grows when they would be too many.

    Ten bars make one of the next width, so that no count is ever divided.
    """

    def __init__(self) -> None:
        self._exponent = _FINEST
        self._counts: Counter[int] = Counter()
        self._first = self._last = 0
        self.n, self.total, self.low, self.high = 0, 0.0, math.inf, -math.inf

    def add(self, value: float) -> None:
        """Count a finite number."""
        scaled = Decimal(repr(value)).scaleb(-self._exponent)
        bar = int(scaled.to_integral_value(ROUND_FLOOR))
        if not self.n:
            self._first = self._last = bar
        self.n, self.total = self.n + 1, self.total + value
        self.low, self.high = min(self.low, value), max(self.high, value)
        self._counts[bar] += 1
        self._first, self._last = min(self._first, bar), max(self._last, bar)
        while self._last - self._first >= FINE:
            self._widen()

    def _widen(self) -> None:
        self._exponent += 1
        finer, self._counts = self._counts, Counter()
        for bar, count in finer.items():
            self._counts[bar // 10] += count
        self._first, self._last = self._first // 10, self._last // 10

    def histogram(self) -> Histogram:
        """Return at most ten bars, 1, 2 or 5 times a power of ten wide, labelled where they begin.

        Fewer where all numbers are (almost) the same.
        """
        step = self._step()
        first, last = self._first // step, self._last // step
        width = Decimal(step).scaleb(self._exponent)
        edges = [width * bar for bar in range(first, last + 1)]
        made = Histogram(
            edges=[float(edge) for edge in edges], labels=[f"{float(edge):.6g}" for edge in edges]
        )
        for bar, count in self._counts.items():
            made.counts[bar // step - first] += count
        made.n, made.total, made.low, made.high = self.n, self.total, self.low, self.high
        return made

    def _step(self) -> int:
        """Return how many bars become one."""
        for power, factor in product(range(8), (1, 2, 5)):
            step: int = factor * 10**power
            if self._last // step - self._first // step < SHOWN:
                return step
        raise AssertionError(f"{self._last - self._first} bars are more than {FINE}")


class Columns:
    """A `Spread` for each numeric column of records, whatever it is called.

    Counted are numbers, numbers in a table inside the column (as "table.column"), and lists with a
    number or null for each box of the record.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self.spreads: dict[str, Spread] = {}
        self.left_out: set[str] = set()
        """Columns beyond the first so many; at most so many of them are named."""

    def add(self, record: GroundedRecord) -> None:
        """Count the numbers of a record."""
        for name, value in _numbers(record.extra, len(record.entries)):
            if name in self.spreads or len(self.spreads) < self._at_most:
                self.spreads.setdefault(name, Spread()).add(value)
            elif len(self.left_out) < self._at_most:
                self.left_out.add(name)


def _numbers(fields: Mapping[str, Any], boxes: int) -> Iterator[tuple[str, float]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            inner = value.items()
            yield from ((f"{name}.{key}", n) for key, each in inner for n in _of(each, boxes))
        else:
            yield from ((str(name), n) for n in _of(value, boxes))


def _of(value: object, boxes: int) -> Iterator[float]:
    parts = value if isinstance(value, list) and len(value) == boxes else (value,)
    for part in parts:
        if isinstance(part, int | float) and not isinstance(part, bool) and math.isfinite(part):
            yield part
