"""From the mixture to the batches of each step, for one rank of several and any number of workers.

A step is a fixed set of draws. A rank takes those whose number in the order, modulo the number of
ranks, is its own; a worker makes one whole step of its rank: the samples, packed into rows and cut
into micro-batches under a token budget. So neither workers nor ranks change what a step learns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kosmos2.data.collate import Batch, Row, collate, joined
from kosmos2.data.ledger import Ledger, Rejected
from kosmos2.data.mixture import Draw, Mixture
from kosmos2.data.sources import Source
from kosmos2.errors import ConfigError

LITTLE_PADDING = 0.03
"""A share of positions that is not worth longer rows."""
_EIGHTHS = (8, 9, 10, 11, 12, 14, 16, 20, 24, 32, 48, 64)
"""Of the longest sample's length: how long rows may be made."""
ROWS_AHEAD = 128
"""About as many rows does a worker prepare ahead, one step at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How rows become batches; none of it but `max_tokens` and `multiple` changes a batch."""

    workers: int
    multiple: int
    """Rows are padded to a multiple of this many positions."""
    max_tokens: int = 0
    """Most positions of a micro-batch, padding included; 0: one batch, a row for each sample."""
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.ranks:
            raise ConfigError(f"rank ({self.rank}) must lie in 0..{self.ranks - 1}")


def steps(
    sources: Sequence[Source], mixture: Mixture, loading: Loading, ledger: Ledger
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of this rank's share, step by step, and count in the ledger.

    A list is empty where every sample of the share was rejected; RecordError once that goes on.
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
        ledger.check_used()
        yield batches


def cut(rows: Sequence[Row], *, multiple: int, max_tokens: int) -> list[list[Row]]:
    """Return rows in batches whose positions, padding included, keep within `max_tokens`.

    0: one batch of all, in their order. Otherwise samples are laid one behind the other into rows
    of equal length, the longest first: of the lengths that are few times the longest sample's, the
    shortest that leaves little padding. A sample longer than the budget is a batch of its own.
    """
    if not max_tokens:
        return [list(rows)] if rows else []
    ranked = sorted(rows, key=lambda row: -len(row))
    large = [row for row in ranked if _rounded(len(row), multiple) > max_tokens]
    batches = [[row] for row in large]
    rest = ranked[len(large) :]
    if rest:
        length, bins = _fitted(rest, multiple, max_tokens)
        together = max_tokens // length
        joints = [joined(each) for each in bins]
        batches += [joints[at : at + together] for at in range(0, len(joints), together)]
    return batches


def _fitted(rows: Sequence[Row], multiple: int, max_tokens: int) -> tuple[int, list[list[Row]]]:
    """Return the length of a row, and the samples that go into each."""
    longest, total = _rounded(len(rows[0]), multiple), sum(map(len, rows))
    found: list[tuple[float, int, list[list[Row]]]] = []
    for eighths in _EIGHTHS:
        length = longest * eighths // 8 // multiple * multiple
        if length > max_tokens:
            break
        bins = _first_fit(rows, length)
        padding = 1 - total / (length * len(bins))
        found.append((padding, length, bins))
        if padding <= LITTLE_PADDING:
            break
    _, length, bins = min(found, key=lambda each: (max(each[0], LITTLE_PADDING), each[1]))
    return length, bins


def _first_fit(rows: Sequence[Row], length: int) -> list[list[Row]]:
    """Return rows, longest first, each in the first place that has room for it."""
    bins: list[list[Row]] = []
    room: list[int] = []
    for row in rows:
        place = next((n for n, left in enumerate(room) if left >= len(row)), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(length)
        bins[place].append(row)
        room[place] -= len(row)
    return bins


def _rounded(length: int, multiple: int) -> int:
    return length + -length % multiple


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
