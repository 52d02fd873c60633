"""From any number of image vectors to a fixed number of decoder vectors ("XConnector")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kosmos2.model.attention import attend, split_heads
from kosmos2.model.config import ModelConfig


class Resampler(nn.Module):
    """One cross-attention layer whose learned queries look at the image and at themselves."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text.width
        self.num_heads = config.text.num_heads  # as in both references: the decoder's count
        self.attention_dropout = config.text.attention_dropout
        self.input = nn.Linear(config.vision.width, width)
        self.latents = nn.Parameter(torch.empty(config.num_latents, width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, features_NPE: Tensor) -> Tensor:
        """Return latents_NQD for the vision features of N images."""
        latents_NQD = self.latents.expand(features_NPE.shape[0], -1, -1)
        memory_NMD = torch.cat([self.input(features_NPE), latents_NQD], dim=1)  # M = P + Q

        mixed_NQD = attend(
            split_heads(self.query(latents_NQD), self.num_heads),
            split_heads(self.key(memory_NMD), self.num_heads),
            split_heads(self.value(memory_NMD), self.num_heads),
            None,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        answers_NQD: Tensor = self.output(mixed_NQD)
        return answers_NQD
