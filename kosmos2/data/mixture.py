"""Which sample comes next: a seeded mixture whose whole state is one number.

A mixture says how often a source is asked; in which order a source of finitely many samples gives
them is `order`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from kosmos2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One sample: which source, and which index of it."""

    source: int
    index: int


class Mixture(Sampler[list[Draw]]):
    """The draws of each step by weight, each source in its own order, from any step on.

    Step n is a function of (seed, n), of `batch_size` samples whatever the number of ranks: the
    draw of every step before it is repeated, which costs microseconds, so the position is saved
    as a number and no sample is lost or doubled by a stop.
    """

    def __init__(
        self, weights: Sequence[float], *, batch_size: int, seed: int, first: int, stop: int
    ) -> None:
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise ConfigError(f"mixture weights must be >= 0 and not all 0, got {list(weights)}")
        self.shares = np.asarray(weights) / sum(weights)
        self.batch_size = batch_size
        self.seed = seed
        self.first = first
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.first

    def __iter__(self) -> Iterator[list[Draw]]:
        used = np.zeros(len(self.shares), np.int64)
        for number in range(self.stop):
            rng = np.random.Generator(np.random.PCG64([self.seed, number]))
            sources = rng.choice(len(self.shares), size=self.batch_size, p=self.shares)
            if number < self.first:
                used += np.bincount(sources, minlength=len(used))
                continue
            draws = []
            for source in sources:
                draws.append(Draw(source=int(source), index=int(used[source])))
                used[source] += 1
            yield draws
