"""Means with 95 % intervals from a seeded bootstrap over pictures, many numbers at a time.

Questions about one picture are drawn together, as they are answered alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kosmos2.evaluation.metrics import Number

RESAMPLES = 1000
SEED = 0


class Bootstrap:
    """One draw of the pictures, with which every number about them gets its interval."""

    def __init__(self, pictures: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        self._picture = np.asarray([numbers.setdefault(name, len(numbers)) for name in pictures])
        self.pictures = len(numbers)
        drawn = np.random.default_rng(SEED).multinomial(
            self.pictures, np.full(self.pictures, 1 / self.pictures), size=RESAMPLES
        )
        self._weights = drawn.astype(np.float64)

    def of_questions(self) -> NDArray[np.float64]:
        """Return how often each question is drawn: one row for each of the resamples."""
        return self._weights[:, self._picture]

    def sums(self, columns_QK: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of each column over the questions that are drawn, for each resample."""
        of_pictures = np.zeros((self.pictures, columns_QK.shape[1]))
        np.add.at(of_pictures, self._picture, columns_QK)
        return self._weights @ of_pictures

    def means(
        self, columns: Mapping[str, Sequence[float]], places: Sequence[int]
    ) -> dict[str, Number]:
        """Return the mean of each column over the questions at these places, one at least."""
        chosen = np.asarray(places)
        of = self._picture[chosen]
        values = np.asarray(list(columns.values()), dtype=np.float64).reshape(len(columns), -1).T
        above = np.zeros((self.pictures, len(columns)))
        below = np.zeros(self.pictures)
        np.add.at(above, of, values[chosen])
        np.add.at(below, of, 1.0)
        drawn_below = self._weights @ below
        has_some = drawn_below > 0  # a draw may miss all pictures of a small part
        drawn = (self._weights @ above)[has_some] / drawn_below[has_some, None]
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        n = len(chosen)
        return {
            name: Number(
                value=math.fsum(values[chosen, column]) / n,
                n=n,
                low=float(low[column]),
                high=float(high[column]),
            )
            for column, name in enumerate(columns)
        }
