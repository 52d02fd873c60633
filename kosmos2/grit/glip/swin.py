"""The Swin transformer as a backbone (modeling/backbone/swint.py): maps of strides 4, 8, 16, 32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.grit.glip.sizes import VisionSizes

PATCH = 4
APART = -100.0
"""Added where two cells only meet because the map was rolled."""


class WindowAttention(nn.Module):
    """Attention among the cells of a window, with a bias for how they lie to one another."""

    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, num_heads)
        )

    def forward(self, x_BWPC: Tensor, apart_WPP: Tensor | None) -> Tensor:
        """Return mixed_BWPC; `apart_WPP` is added to the scores of each window."""
        qkv_BWPC = self.qkv(x_BWPC).unflatten(-1, (3, self.num_heads, -1))
        query_BWHPK, key_BWHPK, value_BWHPK = qkv_BWPC.permute(3, 0, 1, 4, 2, 5)
        bias_WHPP = self._bias()[None]
        if apart_WPP is not None:
            bias_WHPP = bias_WHPP + apart_WPP[:, None]
        mixed_BWHPK = F.scaled_dot_product_attention(
            query_BWHPK, key_BWHPK, value_BWHPK, attn_mask=bias_WHPP.to(query_BWHPK.dtype)
        )
        mixed: Tensor = self.proj(mixed_BWHPK.transpose(2, 3).flatten(3))
        return mixed

    def _bias(self) -> Tensor:
        """Return bias_HPP: for query (y, x) and key (v, u), the row (y - v, x - u) of the table."""
        side = torch.arange(self.window, device=self.relative_position_bias_table.device)
        away_SS = side[:, None] - side + self.window - 1
        index_YXYX = away_SS[:, None, :, None] * (2 * self.window - 1) + away_SS[None, :, None, :]
        index_PP = index_YXYX.reshape(self.window**2, self.window**2)
        return self.relative_position_bias_table[index_PP].permute(2, 0, 1)


class Feedforward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention in windows that lie `shift` cells right of and below the map's corner."""

    def __init__(self, width: int, num_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, num_heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Feedforward(width)

    def forward(self, x_BYXC: Tensor) -> Tensor:
        """Return x_BYXC; the map is padded with zeros, after its norm, to whole windows."""
        rows, columns = x_BYXC.shape[1:3]
        padded_BYXC = F.pad(
            self.norm1(x_BYXC), (0, 0, 0, -columns % self.window, 0, -rows % self.window)
        )
        height, width = padded_BYXC.shape[1:3]
        rolled_BYXC = padded_BYXC.roll((-self.shift, -self.shift), (1, 2))
        apart_WPP = (
            _apart(height, width, self.window, self.shift).to(x_BYXC) if self.shift else None
        )
        mixed_BWPC = self.attn(windows(rolled_BYXC, self.window), apart_WPP)
        mixed_BYXC = unwindows(mixed_BWPC, height, width).roll((self.shift, self.shift), (1, 2))

        x_BYXC = x_BYXC + mixed_BYXC[:, :rows, :columns]
        out: Tensor = x_BYXC + self.mlp(self.norm2(x_BYXC))
        return out


class Merging(nn.Module):
    """Four neighbours become one cell of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x_BYXC: Tensor) -> Tensor:
        """Return merged_BYXC of half the rows and columns, rounded up."""
        x_BYXC = F.pad(x_BYXC, (0, 0, 0, x_BYXC.shape[2] % 2, 0, x_BYXC.shape[1] % 2))
        corners = [x_BYXC[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return merged


class Stage(nn.Module):
    def __init__(self, sizes: VisionSizes, number: int) -> None:
        super().__init__()
        width, heads = sizes.widths[number], sizes.num_heads[number]
        self.blocks = nn.ModuleList(
            Block(width, heads, sizes.window, sizes.window // 2 * (n % 2))
            for n in range(sizes.depths[number])
        )
        self.downsample = Merging(width) if number < 3 else None

    def forward(self, x_BYXC: Tensor) -> Tensor:
        """Return x_BYXC, not merged yet."""
        for block in self.blocks:
            x_BYXC = block(x_BYXC)
        return x_BYXC


class PatchEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels_BCYX: Tensor) -> Tensor:
        """Return patches_BYXC."""
        patches: Tensor = self.norm(self.proj(pixels_BCYX).permute(0, 2, 3, 1))
        return patches


class Swin(nn.Module):
    """The map of stride 4 is not used by what follows, and has no norm (SWINT-FPN-RETINANET)."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(sizes.width)
        self.layers = nn.ModuleList(Stage(sizes, number) for number in range(4))
        for number in range(1, 4):
            self.add_module(f"norm{number}", nn.LayerNorm(sizes.widths[number]))

    def forward(self, pixels_BCYX: Tensor) -> list[Tensor]:
        """Return maps_BCYX of strides 8, 16 and 32 for pictures of whole cells of 32 pixels."""
        x_BYXC = self.patch_embed(pixels_BCYX)
        maps = []
        for number, stage in enumerate(self.layers):
            x_BYXC = stage(x_BYXC)
            if number:
                normed_BYXC = self.get_submodule(f"norm{number}")(x_BYXC)
                maps.append(normed_BYXC.permute(0, 3, 1, 2).contiguous())
            merging = stage.get_submodule("downsample") if number < 3 else nn.Identity()
            x_BYXC = merging(x_BYXC)
        return maps


def windows(x_BYXC: Tensor, window: int) -> Tensor:
    """Return x_BWPC, the windows of a map row by row."""
    batch, height, width, channels = x_BYXC.shape
    tiles = x_BYXC.view(batch, height // window, window, width // window, window, channels)
    return tiles.transpose(2, 3).reshape(batch, -1, window**2, channels)


def unwindows(x_BWPC: Tensor, height: int, width: int) -> Tensor:
    """Return x_BYXC, the map of which these are the windows."""
    batch, _, cells, channels = x_BWPC.shape
    window = math.isqrt(cells)
    tiles = x_BWPC.view(batch, height // window, width // window, window, window, channels)
    return tiles.transpose(2, 3).reshape(batch, height, width, channels)


def _apart(height: int, width: int, window: int, shift: int) -> Tensor:
    """Return apart_WPP: what keeps cells from both ends of the map out of each other's sight."""

    def region(length: int) -> Tensor:
        at = torch.arange(length)
        return (at >= length - window).int() + (at >= length - shift).int()

    region_YX = region(height)[:, None] * 3 + region(width)
    region_WP = windows(region_YX[None, ..., None], window)[0, ..., 0]
    return (region_WP[:, :, None] != region_WP[:, None]).float() * APART
