"""The decoder in one C call a step; pictures and scores stay with the runner in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kosmos2.engine.cache import RowCache
from kosmos2.engine.runner import FusedBlock, Runner
from kosmos2.kernels import native
from kosmos2.kernels.linear import NativeLinear
from kosmos2.kernels.native_step import BoundBlock, Gain, NativeDecoder

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
            vision=runner.vision,
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
        hidden_MD = self._decoder.step(x_ND.contiguous(), cache.memory, rows_N, slots_N, ascending)
        if ascending == list(wanted):
            return hidden_MD
        return hidden_MD[[ascending.index(token) for token in wanted]]


def _is_native(block: FusedBlock) -> bool:
    norms = [getattr(block, name) for name in NORMS]
    return all(isinstance(getattr(block, name), NativeLinear) for name in MATRICES) and all(
        isinstance(norm, nn.LayerNorm) and norm.weight.dtype is torch.float32 for norm in norms
    )


def _bind(block: FusedBlock) -> BoundBlock:
    bound = []
    for name in MATRICES:
        linear: NativeLinear = getattr(block, name)
        native.use_huge_pages(native.weight_of(linear.matrix))
        bound.append(native.bind(linear.matrix, linear.bias_N))
    qkv, output, expand, contract = bound
    return BoundBlock(
        attention_norm=_gain(block.attention_norm),
        mixed_norm=_gain(block.mixed_norm),
        feedforward_norm=_gain(block.feedforward_norm),
        expanded_norm=_gain(block.expanded_norm),
        qkv=qkv,
        output=output,
        expand=expand,
        contract=contract,
    )


def _gain(norm: nn.Module) -> Gain:
    assert isinstance(norm, nn.LayerNorm)
    return Gain(norm.weight.detach(), norm.bias.detach())
