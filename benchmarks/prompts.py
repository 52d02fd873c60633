"""What the contestants are asked: pictures of noise and prompts of the usual lengths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.model import ModelConfig
from kosmos2.vocab.special import Tag, Vocabulary


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of equal length, each about one picture."""

    ids_BT: Tensor
    image_mask_BT: Tensor

    @property
    def length(self) -> int:
        return self.ids_BT.shape[1]

    def row(self, index: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return ids and mask of one prompt as plain numbers."""
        return tuple(self.ids_BT[index].tolist()), tuple(self.image_mask_BT[index].tolist())

    def extended(self, new_BT: Tensor) -> Prompts:
        """Return the prompts with more text behind them."""
        no_image = torch.zeros_like(new_BT, dtype=torch.bool)
        return Prompts(
            torch.cat([self.ids_BT, new_BT], dim=1),
            torch.cat([self.image_mask_BT, no_image], dim=1),
        )


def vocabulary(config: ModelConfig) -> Vocabulary:
    """Return the id map of a model of these sizes, with the grid of the released one."""
    others = Vocabulary(num_pieces=1).size - 1
    return Vocabulary(num_pieces=config.text.vocab_size - others)


def captions(config: ModelConfig, rows: int) -> Prompts:
    """Return "<grounding> An image of" about each of several pictures: 71 tokens."""
    words = vocabulary(config)
    return _prompts(config, [[words.tag(Tag.GROUNDING), 500, 600, 700] for _ in range(rows)])


def phrases(config: ModelConfig, count: int) -> Prompts:
    """Return "<grounding><phrase> a ... </phrase><object>" for several phrases."""
    words = vocabulary(config)
    tags = [words.tag(tag) for tag in (Tag.GROUNDING, Tag.PHRASE, Tag.PHRASE_END, Tag.OBJECT)]
    texts = [
        [tags[0], tags[1], *(1000 + 3 * number + at for at in range(3)), tags[2], tags[3]]
        for number in range(count)
    ]
    return _prompts(config, texts)


def pictures(config: ModelConfig, count: int) -> Tensor:
    """Return pixels_NCYX of noise."""
    side = config.vision.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def _prompts(config: ModelConfig, texts: list[list[int]]) -> Prompts:
    words = vocabulary(config)
    image = [*words.placeholders(config.num_latents)]
    before, after = [words.bos, words.tag(Tag.IMAGE)], [words.tag(Tag.IMAGE_END)]
    ids = [[*before, *image, *after, *text] for text in texts]
    mask = torch.zeros(len(ids), len(ids[0]), dtype=torch.bool)
    mask[:, len(before) : len(before) + len(image)] = True
    return Prompts(torch.tensor(ids), mask)


def shared_length(config: ModelConfig) -> int:
    """Return how many tokens the prompts about one picture begin with alike: up to <grounding>."""
    return config.num_latents + 4
