"""Keys and values of the tokens already read: one row of slots for every live request."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kosmos2.errors import RequestError
from kosmos2.kernels.memory import zeros
from kosmos2.model import TextConfig


class RowCache:
    """Row r holds lengths[r] tokens, from slot 0 on; what lies behind them is never looked at.

    `memory` has the shape (layers, rows, slots, 2, D): keys at 0, values at 1, head after head
    within D. It is zeros at first and finite always, so that a masked slot adds exactly nothing.
    """

    def __init__(
        self,
        config: TextConfig,
        num_rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (config.num_layers, num_rows, capacity, 2, config.width)
        self.memory = zeros(shape, dtype, device)
        self.lengths = [0] * num_rows

    @property
    def num_rows(self) -> int:
        return self.memory.shape[1]

    @property
    def capacity(self) -> int:
        return self.memory.shape[2]

    def append(self, first: int, counts: Sequence[int]) -> list[tuple[int, int]]:
        """Take counts[r] more slots of row first + r; return (start, stop) of each.

        A row must have the room: nothing that is held is ever overwritten.
        """
        spans = []
        for row, count in enumerate(counts, start=first):
            start, stop = self.lengths[row], self.lengths[row] + count
            if stop > self.capacity:
                raise RequestError(
                    f"a row of the cache holds {self.capacity} tokens, {stop} are needed. "
                    "Ask for a larger capacity when it is made."
                )
            self.lengths[row] = stop
            spans.append((start, stop))
        return spans

    def copy_row(self, source: int, target: int, shared: int = 0) -> None:
        """Make one row equal to another, which has the first `shared` tokens already."""
        length = self.lengths[source]
        self.memory[:, target, shared:length] = self.memory[:, source, shared:length]
        self.lengths[target] = length

    def read(self, row: int, start: int, stop: int) -> Tensor:
        """Return a copy of some slots of a row, (layers, slots, 2, D)."""
        return self.memory[:, row, start:stop].clone()

    def write(self, row: int, slots: Tensor) -> None:
        """Append slots that `read` returned from a row that began alike."""
        ((start, stop),) = self.append(row, [slots.shape[1]])
        self.memory[:, row, start:stop] = slots

    def grow(self, num_rows: int, capacity: int) -> None:
        """Take memory of another size; what is held stays, and must have room in it."""
        old = self.memory
        assert not any(self.lengths[num_rows:])
        shape = (old.shape[0], num_rows, capacity, *old.shape[3:])
        self.memory = zeros(shape, old.dtype, old.device)
        self.lengths = [*self.lengths[:num_rows], *[0] * (num_rows - len(self.lengths))]
        for row, length in enumerate(self.lengths):
            if length:
                self.memory[:, row, :length] = old[:, row, :length]
