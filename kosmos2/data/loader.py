"""From the mixture to the batches of each step, for one rank of several and any number of workers.

A step is a fixed set of draws. A rank takes those whose number in the order, modulo the number of
ranks, is its own; a worker makes one whole step of its rank: the rows, sorted by length and cut
into micro-batches under a token budget. So neither workers nor ranks change what a step learns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kosmos2.data.collate import Batch, Row, collate
from kosmos2.data.ledger import Ledger, Rejected
from kosmos2.data.mixture import Draw, Mixture
from kosmos2.data.sources import Source
from kosmos2.errors import ConfigError

ROWS_AHEAD = 128
"""About as many rows does a worker prepare ahead, one step at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How rows become batches; none of it but `max_tokens` and `multiple` changes a batch."""

    workers: int
    multiple: int
    """Rows are padded to a multiple of this many positions."""
    max_tokens: int = 0
    """Most positions of a micro-batch, padding included; 0: a step's share is one batch."""
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ConfigError(f"rank ({self.rank}) must lie in 0..{self.ranks - 1}")


def steps(
    sources: Sequence[Source], mixture: Mixture, loading: Loading, ledger: Ledger
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of this rank's share, step by step, and count in the ledger.

    A list is empty where every sample of the share was rejected.
    """
    loader = DataLoader(
        _Steps(sources, loading),
        batch_size=None,
        sampler=_Shares(mixture, loading.rank, loading.ranks),
        num_workers=loading.workers,
        generator=torch.Generator().manual_seed(mixture.seed),  # not the run's random state
        prefetch_factor=_steps_ahead(mixture, loading) if loading.workers else None,
    )
    for batches, counted in loader:
        ledger.add(counted)
        yield batches


def cut(rows: Sequence[Row], *, multiple: int, max_tokens: int) -> list[list[Row]]:
    """Return rows in batches whose positions, padding included, keep within `max_tokens`.

    0: one batch of all, in their order. Otherwise the longest come first; a row that is longer
    than the budget is a batch of its own.
    """
    if not max_tokens:
        return [list(rows)] if rows else []
    batches: list[list[Row]] = []
    room = 0
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if not room:
            longest = len(row.ids) + -len(row.ids) % multiple
            room = max(1, max_tokens // longest)
            batches.append([])
        batches[-1].append(row)
        room -= 1
    return batches


class _Shares(Sampler[list[Draw]]):
    """The draws of one rank, step by step."""

    def __init__(self, mixture: Mixture, rank: int, ranks: int) -> None:
        self.mixture, self.rank, self.ranks = mixture, rank, ranks

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step, draws in enumerate(self.mixture, self.mixture.first):
            skipped = (self.rank - step * self.mixture.batch_size) % self.ranks
            yield draws[skipped :: self.ranks]


class _Steps(Dataset[tuple[list[Batch], Ledger]]):
    def __init__(self, sources: Sequence[Source], loading: Loading) -> None:
        self.sources, self.loading = sources, loading

    def __getitem__(self, draws: list[Draw]) -> tuple[list[Batch], Ledger]:
        ledger, rows = Ledger(), []
        for draw in draws:
            row = self.sources[draw.source].row(draw.index)
            if isinstance(row, Rejected):
                ledger.reject(draw.source, [row])
                continue
            ledger.used[draw.source] += 1
            ledger.reject(draw.source, row.left_out)
            rows.append(row)
        multiple, max_tokens = self.loading.multiple, self.loading.max_tokens
        parts = cut(rows, multiple=multiple, max_tokens=max_tokens)
        return [collate(part, multiple=multiple) for part in parts], ledger


def _steps_ahead(mixture: Mixture, loading: Loading) -> int:
    share = max(1, mixture.batch_size // loading.ranks)
    return max(1, min(4, ROWS_AHEAD // share))
