"""The text's side: a Magneto decoder (pre-norm with sub-LayerNorms), tied input and output.

Source: torchscale `Decoder` with `subln` as configured by unilm's `unigptmodel_xl`. There is no
rotary or xPos embedding: the released checkpoint carries an unused xPos buffer, and no more.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.model.attention import attend, split_heads
from kosmos2.model.config import TextConfig

PADDING_ID = 1
"""Token id and position id of padding, in every checkpoint of this family."""


class DecoderBlock(nn.Module):
    """Pre-norm attention and feed-forward, each with a second norm before its output layer."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.attention_dropout = config.attention_dropout
        self.activation_dropout = config.activation_dropout
        width, eps = config.width, config.norm_eps
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mixed_norm = nn.LayerNorm(width, eps=eps)
        self.output = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, config.feedforward_width)
        self.expanded_norm = nn.LayerNorm(config.feedforward_width, eps=eps)
        self.contract = nn.Linear(config.feedforward_width, width)

    def forward(self, x_BTD: Tensor, mask_BTT: Tensor) -> Tensor:
        """Return x_BTD."""
        mixed_BTD = self._attention(self.attention_norm(x_BTD), mask_BTT)
        mixed_BTD = self.output(self.mixed_norm(mixed_BTD))
        x_BTD = x_BTD + F.dropout(mixed_BTD, self.dropout, self.training)

        expanded_BTF = F.gelu(self.expand(self.feedforward_norm(x_BTD)))
        expanded_BTF = F.dropout(expanded_BTF, self.activation_dropout, self.training)
        contracted_BTD = self.contract(self.expanded_norm(expanded_BTF))
        return x_BTD + F.dropout(contracted_BTD, self.dropout, self.training)

    def _attention(self, x_BTD: Tensor, mask_BTT: Tensor) -> Tensor:
        return attend(
            split_heads(self.query(x_BTD), self.num_heads),
            split_heads(self.key(x_BTD), self.num_heads),
            split_heads(self.value(x_BTD), self.num_heads),
            mask_BTT,
            dropout=self.attention_dropout if self.training else 0.0,
        )


class Decoder(nn.Module):
    """Token and image vectors in, hidden states out; `logits` reads them with the embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width, padding_idx=PADDING_ID)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        embeds_BTD: Tensor,
        positions_BT: Tensor,
        mask_BTT: Tensor | None = None,
    ) -> list[Tensor]:
        """Return hidden_BTD before the first block, after each block but the last, and normed.

        embeds_BTD are unscaled; mask_BTT is True where a position may look, None is causal without
        padding.
        """
        if mask_BTT is None:
            mask_BTT = causal_mask(torch.ones_like(positions_BT, dtype=torch.bool))
        scale = math.sqrt(self.config.width) if self.config.scale_embedding else 1.0
        places_BTD = sinusoids(positions_BT, self.config.width).to(embeds_BTD.dtype)
        x_BTD = F.dropout(scale * embeds_BTD + places_BTD, self.config.dropout, self.training)

        hidden = [x_BTD]
        for block in self.blocks:
            hidden.append(block(hidden[-1], mask_BTT))
        hidden[-1] = self.norm(hidden[-1])
        return hidden

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return logits_BTV: the tied output matrix, no bias."""
        return F.linear(hidden_BTD, self.embedding.weight)


def positions_of(keep_BT: Tensor) -> Tensor:
    """Return positions_BT: the first token kept has 2, the next 3, ...; padding has 1.

    As in fairseq. Counting only what is kept makes a left-padded row equal to the row alone, also
    with a cache, where transformers 5 counts the padding.
    """
    return torch.where(keep_BT, keep_BT.cumsum(dim=1) + PADDING_ID, PADDING_ID)


def causal_mask(keep_BT: Tensor) -> Tensor:
    """Return mask_BTT: no position looks ahead, or at padding.

    A padded query sees itself, so that no row of the softmax is empty.
    """
    place_T = torch.arange(keep_BT.shape[1], device=keep_BT.device)
    earlier_TT = place_T <= place_T[:, None]
    return (earlier_TT & keep_BT[:, None, :]) | (place_T == place_T[:, None])


def sinusoids(positions_BT: Tensor, width: int) -> Tensor:
    """Return places_BTD in float32: sines, then cosines; padding has a vector of zeros.

    tensor2tensor's form as fairseq has it: the last frequency is exactly 1 / 10000. Computed, not
    looked up, so there is no longest text.
    """
    half = width // 2
    steps = torch.arange(half, device=positions_BT.device, dtype=torch.float32)
    frequencies = torch.exp(steps * -(math.log(10000) / (half - 1)))
    angles = positions_BT[..., None].float() * frequencies
    places_BTD = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return places_BTD * (positions_BT != PADDING_ID)[..., None]
