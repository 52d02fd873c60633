"""The decoder in one C call a step, in bf16 the vision tower in another; what is between them stays
with the runner in torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kosmos2.engine.cache import RowCache
from kosmos2.engine.runner import FusedBlock, Runner
from kosmos2.engine.vision import FusedVisionBlock
from kosmos2.kernels import native
from kosmos2.kernels.linear import NativeLinear
from kosmos2.kernels.native_step import BoundBlock, Gain, NativeDecoder
from kosmos2.kernels.native_tower import BoundTowerBlock, Tower
from kosmos2.model.vision import VisionTower

MATRICES = ("qkv", "output", "expand", "contract")
NORMS = ("attention_norm", "mixed_norm", "feedforward_norm", "expanded_norm")


def fastest(runner: Runner) -> Runner:
    """Return the runner, with its decoder in the native kernels where they can take it."""
    if type(runner) is not Runner or not all(map(_is_native, runner.blocks)):
        return runner
    return NativeRunner(runner)


class NativeRunner(Runner):
    """A runner whose tokens, one or many, of any rows, go through all blocks at once.

    A token's numbers are exactly the same whatever tokens of other rows go with it.
    """

    def __init__(self, runner: Runner) -> None:
        super().__init__(
            runner.config,
            runner.precision,
            vision=_faster_vision(runner.vision),
            resampler=runner.resampler,
            table=runner.table,
            blocks=runner.blocks,
            norm=runner.norm,
        )
        self._decoder = NativeDecoder(
            [_bind(block) for block in self.blocks],
            _gain(self.norm),
            num_heads=self.config.text.num_heads,
            norm_eps=self.config.text.norm_eps,
        )
        if isinstance(self.table.scores, NativeLinear):
            native.use_huge_pages(native.weight_of(self.table.scores.matrix))

    def new_cache(self, num_rows: int, capacity: int) -> RowCache:
        """Return an empty cache; its memory is read in large pages as it fills."""
        cache = super().new_cache(num_rows, capacity)
        native.expect_huge_pages(cache.memory)
        return cache

    def extend(
        self,
        cache: RowCache,
        first: int,
        x_ND: Tensor,
        counts: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """Append counts[r] tokens to row first + r; return hidden_MD of the wanted tokens."""
        if cache.memory.dtype is not torch.float32:
            return super().extend(cache, first, x_ND, counts, wanted)
        spans = cache.append(first, counts)
        rows_N = [first + row for row, count in enumerate(counts) for _ in range(count)]
        slots_N = [slot for span in spans for slot in range(*span)]
        ascending = sorted(set(wanted))
        hidden_MD = self._decoder.step(
            x_ND.float().contiguous(), cache.memory, rows_N, slots_N, ascending
        )
        if ascending == list(wanted):
            return hidden_MD
        return hidden_MD[[ascending.index(token) for token in wanted]]


class NativeTower(nn.Module):
    """All blocks of a vision tower as one."""

    def __init__(self, blocks: Sequence[FusedVisionBlock], norm_eps: float) -> None:
        super().__init__()
        bound = [_bind_vision(block) for block in blocks]
        self._tower = Tower(bound, blocks[0].num_heads, norm_eps)

    def forward(self, x_NPE: Tensor) -> Tensor:
        """Return x_NPE."""
        return self._tower(x_NPE).to(x_NPE.dtype)


def _faster_vision(vision: VisionTower) -> VisionTower:
    """Return the tower, with its blocks in C if all of them are in bf16 there."""
    blocks = [block for block in vision.blocks if isinstance(block, FusedVisionBlock)]
    if len(blocks) < len(vision.blocks) or not all(map(_is_bf16, blocks)):
        return vision
    faster = copy.copy(vision)
    tower = NativeTower(blocks, vision.config.norm_eps)
    faster._modules = {**vision._modules, "blocks": nn.ModuleList([tower])}
    return faster


def _is_bf16(block: FusedVisionBlock) -> bool:
    layers = [getattr(block, name) for name in MATRICES]
    return all(
        isinstance(layer, NativeLinear) and isinstance(layer.matrix, native.Bf16)
        for layer in layers
    )


def _is_native(block: FusedBlock) -> bool:
    return all(isinstance(getattr(block, name), NativeLinear) for name in MATRICES) and all(
        isinstance(getattr(block, name), nn.LayerNorm) for name in NORMS
    )


def _bind(block: FusedBlock) -> BoundBlock:
    return BoundBlock(
        attention_norm=_gain(block.attention_norm),
        mixed_norm=_gain(block.mixed_norm),
        feedforward_norm=_gain(block.feedforward_norm),
        expanded_norm=_gain(block.expanded_norm),
        qkv=_bound(block.qkv),
        output=_bound(block.output),
        expand=_bound(block.expand),
        contract=_bound(block.contract),
    )


def _bind_vision(block: FusedVisionBlock) -> BoundTowerBlock:
    return BoundTowerBlock(
        attention_norm=_gain(block.attention_norm),
        feedforward_norm=_gain(block.feedforward_norm),
        qkv=_bound(block.qkv),
        output=_bound(block.output),
        expand=_bound(block.expand),
        contract=_bound(block.contract),
    )


def _bound(linear: nn.Module) -> native.Bound:
    assert isinstance(linear, NativeLinear)
    native.use_huge_pages(native.weight_of(linear.matrix))
    return native.bind(linear.matrix, linear.bias_N)


def _gain(norm: nn.Module) -> Gain:
    assert isinstance(norm, nn.LayerNorm)
    return Gain(norm.weight.detach().float(), norm.bias.detach().float())
