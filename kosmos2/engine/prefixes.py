"""Prompts that begin alike are read once: their keys and values, kept in blocks of 16 tokens.

A tree of blocks, as a paged cache has it: a block is found under the blocks before it, so two
prompts share exactly what they have in common, pictures included. The least recently used blocks
leave when the memory given to them is full.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
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
    """The blocks that are kept, with their pictures, in at most max_bytes; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._root = Block(memory=torch.empty(0), pictures=(), parent=None)
        self._present: list[Block] = []
        """The blocks of the prompt that was looked for last."""
        self._held: OrderedDict[Block, None] = OrderedDict()
        """The least recently used first, and of the blocks that were used together the last of
        their prompt: nothing stands before what follows it, so nothing follows the first."""
        self._pictures: Counter[int] = Counter()
        """How many blocks keep a picture alive."""
        self._clock = 0

    def find(self, wanted: Sequence[tuple[Content, ...]]) -> list[Block]:
        """Return the blocks that are kept of a prompt's, from its first on."""
        self._move_to_end(self._present)
        self._clock += 1
        found, block = [], self._root
        for key in wanted:
            if key not in block.children:
                break
            block = block.children[key]
            block.used = self._clock
            found.append(block)
        self._move_to_end(found)
        self._present = list(found)
        return found

    def add(
        self, parent: Block | None, key: tuple[Content, ...], memory: Tensor,
        pictures: tuple[Tensor, ...],
    ) -> Block | None:  # fmt: skip
        """Keep one more block of the prompt that was looked for last, behind those that are there.

        Return it, or None where there is no room.
        """
        assert parent is (self._present[-1] if self._present else None)
        while self.num_bytes + memory.nbytes + self._bytes_of_new(pictures) > self.max_bytes:
            if not self._drop_oldest():
                return None
        parent = parent or self._root
        block = Block(memory, pictures, parent, key, used=self._clock)
        self.num_bytes += memory.nbytes + self._bytes_of_new(pictures)
        self._pictures.update(set(map(id, pictures)))
        parent.children[key] = block
        self._held[block] = None
        self._present.append(block)
        return block

    def _move_to_end(self, chain: Sequence[Block]) -> None:
        for block in reversed(chain):
            self._held.move_to_end(block)

    def _bytes_of_new(self, pictures: Sequence[Tensor]) -> int:
        """Return the bytes of those pictures that no block keeps."""
        by_identity = {id(picture): picture for picture in pictures}
        return sum(
            picture.nbytes for name, picture in by_identity.items() if name not in self._pictures
        )

    def _drop_oldest(self) -> bool:
        """Forget the block that was used least recently, unless the present prompt needs it."""
        oldest = next(iter(self._held), None)
        if oldest is None or oldest.used == self._clock:
            return False
        assert oldest.parent is not None and not oldest.children
        del oldest.parent.children[oldest.key]
        del self._held[oldest]
        for name in set(map(id, oldest.pictures)):
            self._pictures[name] -= 1
            if not self._pictures[name]:
                del self._pictures[name]
        self.num_bytes -= oldest.memory.nbytes + self._bytes_of_new(oldest.pictures)
        return True


def blocks_of(prompt: Sequence[Content]) -> list[tuple[Content, ...]]:
    """Return the full blocks of a prompt; its last token is in none, for it must be read."""
    return [tuple(prompt[start : start + BLOCK]) for start in range(0, len(prompt) - BLOCK, BLOCK)]
