"""BERT, the reader of the caption, and the layers like its own that follow each fusion.

One layer for both, with the limits that rpn/modeling_bert.py sets to the numbers of the latter:
those of BERT never come near them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.grit.glip.sizes import TEXT_HEAD_WIDTH, TextSizes

LIMIT = 50_000.0
EPSILON = 1e-12


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x_BTL: Tensor, seen_BT: Tensor) -> Tensor:
        """Return mixed_BTL; tokens that are not `seen` are looked at by none."""
        query_BHTK, key_BHTK, value_BHTK = (
            part(x_BTL).unflatten(-1, (-1, TEXT_HEAD_WIDTH)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores_BHTT = query_BHTK @ key_BHTK.transpose(2, 3) / math.sqrt(TEXT_HEAD_WIDTH)
        scores_BHTT = limited(scores_BHTT.float()).masked_fill(~seen_BT[:, None, None], -math.inf)
        mixed_BHTK = scores_BHTT.softmax(-1).to(value_BHTK.dtype) @ value_BHTK
        mixed: Tensor = mixed_BHTK.transpose(1, 2).flatten(2)
        return mixed


class Output(nn.Module):
    """What is added to a layer's input, and the norm of the sum."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, inner_BTL: Tensor, x_BTL: Tensor) -> Tensor:
        """Return x_BTL."""
        return limited(self.LayerNorm(limited(self.dense(inner_BTL)) + x_BTL))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self = SelfAttention(width)
        self.output = Output(width, width)

    def forward(self, x_BTL: Tensor, seen_BT: Tensor) -> Tensor:
        """Return x_BTL."""
        mixed: Tensor = self.output(self.self(x_BTL, seen_BT), x_BTL)
        return mixed


class Intermediate(nn.Module):
    def __init__(self, width: int, feedforward_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, feedforward_width)

    def forward(self, x_BTL: Tensor) -> Tensor:
        """Return the wide features of each token."""
        return limited(F.gelu(limited(self.dense(x_BTL))))


class Layer(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.attention = Attention(sizes.width)
        self.intermediate = Intermediate(sizes.width, sizes.feedforward_width)
        self.output = Output(sizes.feedforward_width, sizes.width)

    def forward(self, x_BTL: Tensor, seen_BT: Tensor) -> Tensor:
        """Return x_BTL."""
        x_BTL = self.attention(x_BTL, seen_BT)
        out: Tensor = self.output(self.intermediate(x_BTL), x_BTL)
        return out


class Embeddings(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.vocab_size, sizes.width)
        self.position_embeddings = nn.Embedding(sizes.positions, sizes.width)
        self.token_type_embeddings = nn.Embedding(2, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, eps=EPSILON)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return x_BTL; all tokens are of the first of BERT's two sentences."""
        positions_TL = self.position_embeddings.weight[: ids_BT.shape[1]]
        x_BTL = self.word_embeddings(ids_BT) + positions_TL + self.token_type_embeddings.weight[0]
        normed: Tensor = self.LayerNorm(x_BTL)
        return normed


class Encoder(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(sizes) for _ in range(sizes.num_layers))

    def forward(self, x_BTL: Tensor, seen_BT: Tensor) -> Tensor:
        """Return x_BTL."""
        for layer in self.layer:
            x_BTL = layer(x_BTL, seen_BT)
        return x_BTL


class Bert(nn.Module):
    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.embeddings = Embeddings(sizes)
        self.encoder = Encoder(sizes)

    def forward(self, ids_BT: Tensor, seen_BT: Tensor) -> Tensor:
        """Return x_BTL of the last layer (language_backbone/bert_model.py, "hidden")."""
        x_BTL: Tensor = self.encoder(self.embeddings(ids_BT), seen_BT)
        return x_BTL


def limited(x: Tensor) -> Tensor:
    """Return numbers between -50,000 and 50,000."""
    return torch.clamp(x, -LIMIT, LIMIT)
