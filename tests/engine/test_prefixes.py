"""The store of read prompts: what it drops, and that it keeps to its bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos2.engine.prefixes import Block, Content, PrefixStore, blocks_of

PICTURES = [torch.zeros(size) for size in (3, 7, 50)]
MEMORY = torch.zeros(10)

prompts = st.lists(st.integers(0, 2), min_size=1, max_size=5)
"""A prompt of blocks; few kinds of block, so that many prompts begin alike."""
asked = st.lists(st.tuples(prompts, st.integers(0, 3)), min_size=1, max_size=40)
"""Prompts, each with how many of the pictures it shows."""


def key_of(kind: int) -> tuple[Content, ...]:
    return ((kind, -1),)


class Scanning(PrefixStore):
    """The store as it was first written: it looks through all blocks for the one to drop."""

    def _drop_oldest(self) -> bool:
        leaves = [block for block in self._held if not block.children and block.used < self._clock]
        if leaves:
            # Nothing but the order in which the one below finds them is changed.
            self._held.move_to_end(min(leaves, key=lambda block: block.used), last=False)
        return super()._drop_oldest() if leaves else False


def keep(store: PrefixStore, prompt: Sequence[int], pictures: int) -> None:
    """Do with a prompt what the scheduler does when it has read it."""
    blocks = store.find([key_of(kind) for kind in prompt])
    for kind in prompt[len(blocks) :]:
        parent = blocks[-1] if blocks else None
        block = store.add(parent, key_of(kind), MEMORY, tuple(PICTURES[:pictures]))
        if block is None:
            return
        blocks.append(block)


def tree_of(block: Block) -> dict[object, object]:
    return {key: tree_of(child) for key, child in block.children.items()}


def blocks_under(block: Block) -> list[Block]:
    below = [each for child in block.children.values() for each in blocks_under(child)]
    return [*block.children.values(), *below]


@settings(deadline=None)
@given(asked, st.integers(0, 800))
def test_the_store_drops_what_a_look_through_all_blocks_would_drop(
    prompts: list[tuple[list[int], int]], max_bytes: int
) -> None:
    quick, scanning = PrefixStore(max_bytes), Scanning(max_bytes)
    for prompt in prompts:
        keep(quick, *prompt)
        keep(scanning, *prompt)
        assert tree_of(quick._root) == tree_of(scanning._root)


@settings(deadline=None)
@given(asked, st.integers(0, 800))
def test_the_store_counts_blocks_and_their_pictures_and_keeps_to_its_bytes(
    prompts: list[tuple[list[int], int]], max_bytes: int
) -> None:
    store = PrefixStore(max_bytes)
    for prompt in prompts:
        keep(store, *prompt)
        blocks = blocks_under(store._root)
        pictures = {id(each): each.nbytes for block in blocks for each in block.pictures}
        held = len(blocks) * MEMORY.nbytes + sum(pictures.values())
        assert held == store.num_bytes <= max_bytes
        # What is kept is found from the root, so nothing was dropped before what follows it.
        assert set(blocks) == set(store._held)


class Watched(OrderedDict[Block, None]):
    """Counts how many blocks are looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Block]:
        for block in super().__iter__():
            self.looked_at += 1
            yield block


def test_a_drop_looks_at_one_block_however_many_there_are() -> None:
    store = PrefixStore(1_000 * MEMORY.nbytes)
    store._held = watched = Watched()
    for number in range(1_100):
        store.find([])
        assert store.add(None, key_of(number), MEMORY, ()) is not None
    assert len(watched) == 1_000
    assert watched.looked_at == 100


def test_the_last_token_of_a_prompt_is_in_no_block() -> None:
    prompt = [(number, -1) for number in range(33)]
    assert [len(block) for block in blocks_of(prompt)] == [16, 16]
    assert [len(block) for block in blocks_of(prompt[:32])] == [16]
