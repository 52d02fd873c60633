"""The vision tower's blocks, arranged for answering."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.model import VisionConfig
from kosmos2.model.vision import quick_gelu


class FusedVisionBlock(nn.Module):
    """A `VisionBlock` whose query, key and value are one matrix; a test holds them equal."""

    def __init__(
        self,
        config: VisionConfig,
        *,
        attention_norm: nn.Module,
        qkv: nn.Module,
        output: nn.Module,
        feedforward_norm: nn.Module,
        expand: nn.Module,
        contract: nn.Module,
    ) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = attention_norm
        self.qkv = qkv
        self.output = output
        self.feedforward_norm = feedforward_norm
        self.expand = expand
        self.contract = contract

    def forward(self, x_NPE: Tensor) -> Tensor:
        """Return x_NPE."""
        qkv_NP3HK = self.qkv(self.attention_norm(x_NPE)).unflatten(2, (3, self.num_heads, -1))
        query_NHPK, key_NHPK, value_NHPK = qkv_NP3HK.permute(2, 0, 3, 1, 4)
        mixed_NHPK = attend_densely(query_NHPK, key_NHPK, value_NHPK)
        x_NPE = x_NPE + self.output(mixed_NHPK.transpose(1, 2).flatten(2))

        expanded_NPF = quick_gelu(self.expand(self.feedforward_norm(x_NPE)))
        contracted_NPE: Tensor = self.contract(expanded_NPF)
        return x_NPE + contracted_NPE


def attend_densely(query_NHPK: Tensor, key_NHPK: Tensor, value_NHPK: Tensor) -> Tensor:
    """Return mixed_NHPK; every patch looks at every patch."""
    if query_NHPK.device.type != "cpu" or query_NHPK.dtype is not torch.bfloat16:
        return F.scaled_dot_product_attention(query_NHPK, key_NHPK, value_NHPK)
    # On a CPU two plain products in bf16 take half the time of torch's fused attention.
    scale = query_NHPK.shape[-1] ** -0.5
    weight_NHPP = (query_NHPK * scale) @ key_NHPK.transpose(-1, -2)
    mixed_NHPK: Tensor = weight_NHPP.softmax(dim=-1) @ value_NHPK
    return mixed_NHPK
