"""Scaled dot-product attention over heads, shared by the tower, the resampler and the decoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def split_heads(x_BTD: Tensor, num_heads: int) -> Tensor:
    """Return x_BHTK."""
    batch, length, width = x_BTD.shape
    return x_BTD.view(batch, length, num_heads, width // num_heads).transpose(1, 2)


def attend(
    query_BHTK: Tensor,
    key_BHSK: Tensor,
    value_BHSK: Tensor,
    mask_BTS: Tensor | None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Return mixed_BTD; mask_BTS is True where a query may look, None where it may everywhere."""
    mask_BHTS = None if mask_BTS is None else mask_BTS.unsqueeze(-3)
    mixed_BHTK = F.scaled_dot_product_attention(
        query_BHTK, key_BHSK, value_BHSK, attn_mask=mask_BHTS, dropout_p=dropout
    )
    return mixed_BHTK.transpose(1, 2).flatten(2)
