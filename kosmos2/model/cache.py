"""Keys and values of the positions already read, in memory taken once."""

from __future__ import annotations

import torch
from torch import Tensor

from kosmos2.errors import RequestError
from kosmos2.model.config import TextConfig


class Cache:
    """A fixed number of rows and positions; every row is written at the same position."""

    def __init__(
        self,
        config: TextConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape_BHSK = (batch, config.num_heads, capacity, config.width // config.num_heads)
        self.keys = [
            torch.zeros(shape_BHSK, dtype=dtype, device=device) for _ in range(config.num_layers)
        ]
        self.values = [torch.zeros_like(key_BHSK) for key_BHSK in self.keys]
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.keys[0].shape[2]

    def append(self, layer: int, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new positions of one layer; return key_BHSK and value_BHSK up to and with them.

        The length moves on by `advance`, once after the last layer.
        """
        stop = self.length + key_BHTK.shape[2]
        if stop > self.capacity:
            raise RequestError(
                f"the cache holds {self.capacity} positions, {stop} are needed. "
                "Ask for a larger capacity when it is made."
            )
        self.keys[layer][:, :, self.length : stop] = key_BHTK
        self.values[layer][:, :, self.length : stop] = value_BHTK
        return self.keys[layer][:, :, :stop], self.values[layer][:, :, :stop]

    def advance(self, num_positions: int) -> None:
        """Count T positions as written."""
        self.length += num_positions

    def keep_rows(self, rows: Tensor) -> None:
        """Keep these rows (indices, in this order) and forget the others."""
        self.keys = [key_BHSK[rows] for key_BHSK in self.keys]
        self.values = [value_BHSK[rows] for value_BHSK in self.values]
