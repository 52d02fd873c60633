"""Attention for training on a processor: plain products, in the number type of what comes in.

Of PyTorch's two forms, the fused one has a slow backward pass in bf16 there, and the other
multiplies bf16 in fp32. Both take about twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainAttention(TorchFunctionMode):
    """A `with` block in which attention over bf16 is done so; nothing else changes."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Return what `func` returns, as torch asks of every mode."""
        if func is F.scaled_dot_product_attention and _is_bf16(args[0]):
            func = plain
        return func(*args, **(kwargs or {}))


def plain(
    query_BHTK: Tensor,
    key_BHSK: Tensor,
    value_BHSK: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Return mixed_BHTK; the names of the last two are torch's. No row may be masked whole."""
    scaled_BHTK = query_BHTK * query_BHTK.shape[-1] ** -0.5
    scores_BHTS = scaled_BHTK @ key_BHSK.transpose(-1, -2)
    if attn_mask is not None:
        bias = torch.zeros_like(attn_mask, dtype=scores_BHTS.dtype)
        scores_BHTS = scores_BHTS + bias.masked_fill(~attn_mask, -torch.inf)
    share_BHTS = F.dropout(torch.softmax(scores_BHTS, dim=-1), dropout_p)
    return share_BHTS @ value_BHSK


def _is_bf16(query: object) -> bool:
    return isinstance(query, Tensor) and query.dtype == torch.bfloat16
