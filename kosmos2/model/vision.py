"""The picture's side: a CLIP ViT whose every output token has unit length.

Source: open_clip `ViT-L-14` as wrapped by the original's `ClipVisualOnly` (unilm kosmos-2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.errors import RequestError
from kosmos2.model.attention import attend, split_heads
from kosmos2.model.config import VisionConfig


class VisionBlock(nn.Module):
    """Pre-norm self-attention and a QuickGELU feed-forward."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)
        self.feedforward_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.expand = nn.Linear(config.width, config.feedforward_width)
        self.contract = nn.Linear(config.feedforward_width, config.width)

    def forward(self, x_NPE: Tensor) -> Tensor:
        """Return x_NPE."""
        normed_NPE = self.attention_norm(x_NPE)
        mixed_NPE = attend(
            split_heads(self.query(normed_NPE), self.num_heads),
            split_heads(self.key(normed_NPE), self.num_heads),
            split_heads(self.value(normed_NPE), self.num_heads),
            None,
            dropout=self.attention_dropout if self.training else 0.0,
        )
        x_NPE = x_NPE + self.output(mixed_NPE)

        expanded_NPF = quick_gelu(self.expand(self.feedforward_norm(x_NPE)))
        x_NPE = x_NPE + self.contract(expanded_NPF)
        return x_NPE


class VisionTower(nn.Module):
    """Square pixels to one unit-length vector per patch, class token first."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.positions = nn.Parameter(torch.empty(config.num_positions, config.width))
        self.patches = nn.Conv2d(
            3, config.width, kernel_size=config.patch_size, stride=config.patch_size, bias=False
        )
        self.input_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.num_layers))
        self.output_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, pixels_NCYX: Tensor) -> Tensor:
        """Return features_NPE of unit length for normalised pixels."""
        features_NPE: Tensor = F.normalize(self.output_norm(self.hidden(pixels_NCYX)), dim=-1)
        return features_NPE

    def hidden(self, pixels_NCYX: Tensor) -> Tensor:
        """Return hidden_NPE after the last block, before the output norm and unit length."""
        side = self.config.image_size
        if pixels_NCYX.shape[1:] != (3, side, side):
            raise RequestError(
                f"this model reads pictures of shape (N, 3, {side}, {side}), "
                f"got {tuple(pixels_NCYX.shape)}. Use images.preprocess(image, {side})."
            )
        patches_NPE = self.patches(pixels_NCYX).flatten(2).transpose(1, 2)
        class_NPE = self.class_embedding.expand(patches_NPE.shape[0], 1, -1)
        x_NPE: Tensor = torch.cat([class_NPE, patches_NPE], dim=1) + self.positions

        x_NPE = self.input_norm(x_NPE)
        for block in self.blocks:
            x_NPE = block(x_NPE)
        return x_NPE


def quick_gelu(x: Tensor) -> Tensor:
    """Return x * sigmoid(1.702 x), the activation of every `ViT-L` of open_clip."""
    return x * torch.sigmoid(1.702 * x)
