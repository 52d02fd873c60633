"""The feature pyramid (modeling/backbone/fpn.py, LastLevelP6P7): five maps of equal width."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class TopBlocks(nn.Module):
    """Two coarser maps, from the coarsest of the pyramid and not from the backbone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, coarsest_BCYX: Tensor) -> list[Tensor]:
        """Return maps_BCYX of half and a quarter of its rows and columns."""
        half_BCYX = self.p6(coarsest_BCYX)
        return [half_BCYX, self.p7(F.relu(half_BCYX))]


class Pyramid(nn.Module):
    """Maps gain what the coarser ones know; numbers 2 to 4 are the reference's."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        for number, width in enumerate(widths, 2):
            self.add_module(f"fpn_inner{number}", nn.Conv2d(width, channels, 1))
            self.add_module(f"fpn_layer{number}", nn.Conv2d(channels, channels, 3, padding=1))
        self.top_blocks = TopBlocks(channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return five maps_BCYX, the finest first, for three of the backbone."""
        levels: list[Tensor] = []
        above_BCYX: Tensor | None = None
        for number, map_BCYX in reversed(list(enumerate(maps, 2))):
            inner_BCYX = self.get_submodule(f"fpn_inner{number}")(map_BCYX)
            if above_BCYX is not None:
                inner_BCYX = inner_BCYX + F.interpolate(above_BCYX, size=inner_BCYX.shape[2:])
            levels.insert(0, self.get_submodule(f"fpn_layer{number}")(inner_BCYX))
            above_BCYX = inner_BCYX
        return [*levels, *self.top_blocks(levels[-1])]
