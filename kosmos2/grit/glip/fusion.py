"""Where the picture and the caption look at each other (utils/fuse_helper.py, type MHA-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kosmos2.grit.glip.bert import limited
from kosmos2.grit.glip.sizes import FUSION_HEADS


class BiAttention(nn.Module):
    """One table of scores, read both ways: cells look at tokens, tokens at cells."""

    def __init__(self, channels: int, text_width: int, width: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(channels, width)
        self.l_proj = nn.Linear(text_width, width)
        self.values_v_proj = nn.Linear(channels, width)
        self.values_l_proj = nn.Linear(text_width, width)
        self.out_v_proj = nn.Linear(width, channels)
        self.out_l_proj = nn.Linear(width, text_width)

    def forward(
        self, cells_BVC: Tensor, text_BTL: Tensor, seen_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what cells gain, BVC, and what tokens gain, BTL. Cells see `seen` tokens only."""
        query_BHVK = _heads(self.v_proj(cells_BVC))
        key_BHTK = _heads(self.l_proj(text_BTL))
        scale = query_BHVK.shape[-1] ** -0.5
        scores_BHVT = limited(((query_BHVK * scale) @ key_BHTK.transpose(2, 3)).float())

        to_text_BHVT = scores_BHVT.masked_fill(~seen_BT[:, None, None], -math.inf).softmax(-1)
        # The lower limit counts from the surest cell here.
        from_surest_BHVT = scores_BHVT - scores_BHVT.amax(2, keepdim=True)
        to_cells_BHTV = limited(from_surest_BHVT).softmax(2).transpose(2, 3)

        values_BHTK = _heads(self.values_l_proj(text_BTL))
        values_BHVK = _heads(self.values_v_proj(cells_BVC))
        cells = self.out_v_proj(_joined(to_text_BHVT.to(values_BHTK.dtype) @ values_BHTK))
        text = self.out_l_proj(_joined(to_cells_BHTV.to(values_BHVK.dtype) @ values_BHVK))
        return cells, text


class FusionBlock(nn.Module):
    """What is gained is added to the norm of the input, and not to the input itself."""

    def __init__(self, channels: int, text_width: int, width: int) -> None:
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(channels)
        self.layer_norm_l = nn.LayerNorm(text_width)
        self.attn = BiAttention(channels, text_width, width)
        self.gamma_v = nn.Parameter(torch.ones(channels))
        self.gamma_l = nn.Parameter(torch.ones(text_width))

    def forward(
        self, cells_BVC: Tensor, text_BTL: Tensor, seen_BT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return cells_BVC and text_BTL."""
        cells_BVC = self.layer_norm_v(cells_BVC)
        text_BTL = self.layer_norm_l(text_BTL)
        gained_BVC, gained_BTL = self.attn(cells_BVC, text_BTL, seen_BT)
        return cells_BVC + self.gamma_v * gained_BVC, text_BTL + self.gamma_l * gained_BTL


class Fusion(nn.Module):
    """All levels of the pyramid at once."""

    def __init__(self, channels: int, text_width: int, width: int) -> None:
        super().__init__()
        self.b_attn = FusionBlock(channels, text_width, width)

    def forward(
        self, levels: Sequence[Tensor], text_BTL: Tensor, seen_BT: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return levels_BCYX and text_BTL."""
        cells_BVC = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        cells_BVC, text_BTL = self.b_attn(cells_BVC, text_BTL, seen_BT)
        parts = cells_BVC.transpose(1, 2).split([level[0, 0].numel() for level in levels], dim=2)
        fused = [part.reshape(level.shape) for part, level in zip(parts, levels, strict=True)]
        return fused, text_BTL


def _heads(x_BML: Tensor) -> Tensor:
    """Return x_BHMK."""
    batch, length, width = x_BML.shape
    return x_BML.view(batch, length, FUSION_HEADS, width // FUSION_HEADS).transpose(1, 2)


def _joined(x_BHMK: Tensor) -> Tensor:
    """Return x_BML."""
    return x_BHMK.transpose(1, 2).flatten(2)
