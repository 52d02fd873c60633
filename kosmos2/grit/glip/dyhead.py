"""DyHead: each level is mixed with its neighbours, by deformable convolutions and three attentions.

Attention over places is the deformable convolution with its mask; over levels, a weight for each
neighbour (`AttnConv`); over channels, a rectifier whose slopes depend on the whole map (DyReLU).
After rpn/vldyhead.py, layers/dyrelu.py and csrc/cuda/deform_conv*.cu of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.grit.glip.sizes import GROUPS

TAPS = 9
"""Of a kernel of 3 x 3, row by row."""


@dataclass(frozen=True, slots=True)
class Bend:
    """Where the taps of a convolution look, and how much of it counts."""

    offset_BOYX: Tensor
    """18 channels: for each tap rows down, then columns right, in cells of the input."""
    share_BTYX: Tensor
    """Between 0 and 1 for each of the 9 taps."""

    def read_as(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return offset_BTDYX (D: down, right) and share_BTYX of an output of this size.

        The reference makes them for one level and uses them for the next coarser one as well,
        whose output is smaller. Its kernel reads the numbers one after another as if they had been
        laid out for the smaller map (`data_offset_h_ptr`), so their places and taps are mixed up.
        The weights were trained so.
        """
        cells = rows * columns
        offset = self.offset_BOYX.flatten(1)[:, : 2 * TAPS * cells]
        share = self.share_BTYX.flatten(1)[:, : TAPS * cells]
        return (
            offset.reshape(-1, TAPS, 2, rows, columns),
            share.reshape(-1, TAPS, rows, columns),
        )


class DeformableConv(nn.Module):
    """A modulated deformable convolution, 3 x 3, padded by one cell, in fp32 as the reference's."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -1 / (3 * channels**0.5), 1 / (3 * channels**0.5))

    def forward(self, x_BCYX: Tensor, bend: Bend) -> Tensor:
        """Return y_BCYX; places outside the map are zeros."""
        with torch.autocast(x_BCYX.device.type, enabled=False):
            exact = self.weight.dtype
            return self._convolve(x_BCYX.to(exact), bend)

    def _convolve(self, x_BCYX: Tensor, bend: Bend) -> Tensor:
        height, width = x_BCYX.shape[2:]
        rows, columns = ((side - 1) // self.stride + 1 for side in (height, width))
        offset_BTDYX, share_BTYX = bend.read_as(rows, columns)
        down_Y = torch.arange(rows, device=x_BCYX.device) * self.stride - 1
        right_X = torch.arange(columns, device=x_BCYX.device) * self.stride - 1
        y_BCYX = self.bias[:, None, None].expand(x_BCYX.shape[0], -1, rows, columns)
        for tap in range(TAPS):
            y_BYX = (down_Y + tap // 3)[:, None] + offset_BTDYX[:, tap, 0].to(x_BCYX.dtype)
            x_BYX = (right_X + tap % 3) + offset_BTDYX[:, tap, 1].to(x_BCYX.dtype)
            # grid_sample wants -1 and 1 at the outer edges of the first and the last cell.
            places = torch.stack(
                [(2 * x_BYX + 1) / width - 1, (2 * y_BYX + 1) / height - 1], dim=-1
            )
            seen_BCYX = F.grid_sample(x_BCYX, places, padding_mode="zeros", align_corners=False)
            seen_BCYX = seen_BCYX * share_BTYX[:, tap, None].to(x_BCYX.dtype)
            y_BCYX = y_BCYX + F.conv2d(seen_BCYX, self.weight[:, :, tap // 3, tap % 3, None, None])
        return y_BCYX


class NormedConv(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = DeformableConv(channels, stride)
        self.bn = nn.GroupNorm(GROUPS, channels)

    def forward(self, x_BCYX: Tensor, bend: Bend) -> Tensor:
        """Return y_BCYX."""
        y: Tensor = self.bn(self.conv(x_BCYX, bend))
        return y


class DynamicRelu(nn.Module):
    """The larger of two lines, whose slopes and heights the map's mean decides for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, 4 * channels)
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Return y_BCYX."""
        lines_BC = hard_sigmoid(self.fc(x_BCYX.mean((2, 3)))) - 0.5
        slope, height, other_slope, other_height = lines_BC[..., None, None].chunk(4, dim=1)
        return torch.maximum(
            x_BCYX * (2 * slope + 1) + height, x_BCYX * 2 * other_slope + other_height
        )


class DyHead(nn.Module):
    """One round over all levels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # From the next coarser level, from the level itself, from the next finer one.
        self.DyConv = nn.ModuleList(NormedConv(channels, stride) for stride in (1, 1, 2))
        self.AttnConv = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 1, 1), nn.ReLU())
        self.relu = DynamicRelu(channels)
        self.offset = nn.Conv2d(channels, 3 * TAPS, 3, padding=1)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return levels_BCYX; all neighbours are those of before the round."""
        return [self._level(levels, number) for number in range(len(levels))]

    def _level(self, levels: Sequence[Tensor], number: int) -> Tensor:
        bent = self.offset(levels[number])
        bend = Bend(bent[:, : 2 * TAPS], bent[:, 2 * TAPS :].sigmoid())
        from_coarser, from_itself, from_finer = self.DyConv
        parts = [from_itself(levels[number], bend)]
        if number > 0:
            parts.append(from_finer(levels[number - 1], bend))
        if number < len(levels) - 1:
            coarse = from_coarser(levels[number + 1], bend)
            size = levels[number].shape[2:]
            parts.append(F.interpolate(coarse, size=size, mode="bilinear", align_corners=True))
        weighed = [part * hard_sigmoid(self.AttnConv(part)) for part in parts]
        mixed: Tensor = self.relu(torch.stack(weighed).mean(0))
        return mixed


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return min(max(x + 3, 0), 6) / 6."""
    return F.relu6(x + 3) / 6
