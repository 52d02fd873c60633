"""What a decode step is made of, on any device: plain torch, no synchronisation, static shapes.

This is the meaning of the fast kernels of `triton_operations`, and what runs where those do not.
Letters beside the package's: R rows of the cache, N packed tokens, S slots, H heads, C = 2 for key
and value, F feed-forward width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.kernels.linear import Table

MOST_QUERIES = 8
"""New tokens of one row and one call; a longer prompt is a matter for flash attention."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where the tokens of a call belong; all on the device."""

    slots_R: Tensor
    """Which row of the memory, int32."""
    lengths_R: Tensor
    """How many slots of it are held before the call, int32."""
    starts_R: Tensor
    """The first packed token of each row, and the end of the last: R + 1 numbers, int32."""


@dataclass(frozen=True, slots=True, eq=False)
class Feedforward:
    """The second half of a block."""

    norm: nn.Module
    expand: nn.Module
    expanded_norm: nn.Module
    contract: nn.Module


class Operations(Protocol):
    """The parts of a step. `change` is what the part before found, not yet added; None is nothing.

    Adding late lets a kernel do the sum and the norm behind it at once.
    """

    def project(
        self, x_ND: Tensor, change_ND: Tensor | None, norm: nn.Module, linear: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Return sum_ND = x_ND + change_ND, and linear(norm(sum_ND))."""
        ...

    def attend(
        self, qkv_N3D: Tensor, memory_RSCD: Tensor, places: Places, num_heads: int, num_slots: int
    ) -> Tensor:
        """Append keys and values to one layer of the cache; return mixed_ND.

        Each token sees what its row holds and the row's new tokens up to itself. A row brings at
        most `MOST_QUERIES` tokens, and holds at most num_slots after the call.
        """
        ...

    def feedforward(
        self, x_ND: Tensor, change_ND: Tensor, parts: Feedforward
    ) -> tuple[Tensor, Tensor]:
        """Return sum_ND = x_ND + change_ND, and the change of the feed-forward layers to it."""
        ...

    def finish(self, x_ND: Tensor, change_ND: Tensor, norm: nn.Module) -> Tensor:
        """Return norm(x_ND + change_ND)."""
        ...

    def scores(self, hidden_MD: Tensor, table: Table) -> Tensor:
        """Return logits_MV in float32."""
        ...


class PlainOperations:
    """Every device, every type."""

    def project(
        self, x_ND: Tensor, change_ND: Tensor | None, norm: nn.Module, linear: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Return sum_ND and linear(norm(sum_ND))."""
        sum_ND = x_ND if change_ND is None else x_ND + change_ND
        return sum_ND, linear(norm(sum_ND))

    def attend(
        self, qkv_N3D: Tensor, memory_RSCD: Tensor, places: Places, num_heads: int, num_slots: int
    ) -> Tensor:
        """Append keys and values; return mixed_ND."""
        num_rows, capacity, _, width = memory_RSCD.shape
        slot_N, place_N = _of_tokens(places, len(qkv_N3D))
        query_ND, held_N2D = qkv_N3D[:, :width].to(memory_RSCD.dtype), qkv_N3D[:, width:]
        memory_RSCD.view(num_rows * capacity, 2 * width).index_copy_(
            0, slot_N * capacity + place_N, held_N2D.to(memory_RSCD.dtype)
        )
        held_NSCD = memory_RSCD[:, :num_slots].index_select(0, slot_N)
        key_NHSK, value_NHSK = held_NSCD.view(
            *held_NSCD.shape[:3], num_heads, width // num_heads
        ).permute(2, 0, 3, 1, 4)
        seen_NS = torch.arange(num_slots, device=place_N.device) <= place_N[:, None]
        mixed_NHQK = F.scaled_dot_product_attention(
            query_ND.reshape(-1, num_heads, 1, width // num_heads), key_NHSK, value_NHSK,
            attn_mask=seen_NS[:, None, None],
        )  # fmt: skip
        return mixed_NHQK.flatten(1).to(qkv_N3D.dtype)

    def feedforward(
        self, x_ND: Tensor, change_ND: Tensor, parts: Feedforward
    ) -> tuple[Tensor, Tensor]:
        """Return sum_ND and the change to it."""
        sum_ND = x_ND + change_ND
        expanded_NF = F.gelu(parts.expand(parts.norm(sum_ND)))
        return sum_ND, parts.contract(parts.expanded_norm(expanded_NF))

    def finish(self, x_ND: Tensor, change_ND: Tensor, norm: nn.Module) -> Tensor:
        """Return norm(x_ND + change_ND)."""
        hidden_ND: Tensor = norm(x_ND + change_ND)
        return hidden_ND

    def scores(self, hidden_MD: Tensor, table: Table) -> Tensor:
        """Return logits_MV."""
        return table.logits(hidden_MD)


def _of_tokens(places: Places, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Return slot_N, the cache's row of each packed token, and place_N, its place in that row."""
    starts_R = places.starts_R.long()
    row_N = torch.repeat_interleave(starts_R.diff(), output_size=num_tokens)
    at_N = torch.arange(num_tokens, device=row_N.device) - starts_R[row_N]
    return places.slots_R.long()[row_N], places.lengths_R.long()[row_N] + at_N
