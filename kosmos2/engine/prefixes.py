"""Prompts that begin alike are read once: their keys and values, kept in blocks of 16 tokens.

A tree of blocks, as a paged cache has it: a block is found under the blocks before it, so two
prompts share exactly what they have in common, pictures included. The least recently used blocks
leave when the memory given to them is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kosmos2.engine.request import Request, ScoreRequest

BLOCK = 16
"""Tokens per block."""

Content = tuple[int, int]
"""(id, -1) of a token, (picture, index) of a vector of a picture; see `contents`."""


@dataclass(slots=True, eq=False)
class Block:
    """Sixteen tokens behind the blocks above it."""

    memory: Tensor
    """(layers, 16, 2, D)"""
    pictures: tuple[Tensor, ...]
    """Kept alive, so that no other picture can take their identity."""
    parent: Block | None
    key: tuple[Content, ...] = ()
    children: dict[tuple[Content, ...], Block] = field(default_factory=dict)
    used: int = 0


def contents(prompt: Request | ScoreRequest) -> list[Content]:
    """Return what each token of a prompt is, so that equal contents have equal vectors."""
    vectors = iter(
        (id(latents_QD), index) for latents_QD in prompt.latents for index in range(len(latents_QD))
    )
    return [
        next(vectors) if in_image else (token, -1)
        for token, in_image in zip(prompt.ids, prompt.image_mask, strict=True)
    ]


class PrefixStore:
    """The blocks that are kept, in at most max_bytes; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._root = Block(memory=torch.empty(0), pictures=(), parent=None)
        self._held: set[Block] = set()
        self._bytes = 0
        self._clock = 0

    def find(self, wanted: Sequence[tuple[Content, ...]]) -> list[Block]:
        """Return the blocks that are kept of a prompt's, from its first on."""
        self._clock += 1
        found, block = [], self._root
        for key in wanted:
            if key not in block.children:
                break
            block = block.children[key]
            block.used = self._clock
            found.append(block)
        return found

    def add(
        self, parent: Block | None, key: tuple[Content, ...], memory: Tensor,
        pictures: tuple[Tensor, ...],
    ) -> Block | None:  # fmt: skip
        """Keep one more block behind another; return it, or None where there is no room."""
        while self._bytes + memory.nbytes > self.max_bytes:
            if not self._drop_oldest():
                return None
        parent = parent or self._root
        block = Block(memory, pictures, parent, key, used=self._clock)
        parent.children[key] = block
        self._held.add(block)
        self._bytes += memory.nbytes
        return block

    def _drop_oldest(self) -> bool:
        """Forget a block that nothing follows and the present prompt does not need."""
        leaves = [block for block in self._held if not block.children and block.used < self._clock]
        if not leaves:
            return False
        oldest = min(leaves, key=lambda block: block.used)
        assert oldest.parent is not None
        del oldest.parent.children[oldest.key]
        self._held.remove(oldest)
        self._bytes -= oldest.memory.nbytes
        return True


def blocks_of(prompt: Sequence[Content]) -> list[tuple[Content, ...]]:
    """Return the full blocks of a prompt; its last token is in none, for it must be read."""
    return [tuple(prompt[start : start + BLOCK]) for start in range(0, len(prompt) - BLOCK, BLOCK)]
