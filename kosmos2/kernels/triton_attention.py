"""Attention of a few new tokens a row over the slots that the row holds, on a GPU.

The lengths stay on the device, so a captured step serves any length. The new keys and values are
written to the cache by the kernel that reads it. A long row can be split among programs, which
matters when there are few rows; a second kernel then joins the parts.
"""
# ruff: noqa: PLR0913  (a kernel takes pointers, not objects)
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from kosmos2.kernels.operations import Places

_SLOTS_BLOCK = 64


def attend(
    qkv_N3D: Tensor, memory_RSCD: Tensor, places: Places, num_heads: int, splits: int
) -> Tensor:
    """Append keys and values to one layer of the cache, (rows, slots, 2, D); return mixed_ND.

    A row has at most `MOST_QUERIES` new tokens; each sees the row's slots and the new tokens up to
    itself. `splits` is the number of programs that share a row and a head.
    """
    num_tokens, width = qkv_N3D.shape[0], memory_RSCD.shape[-1]
    num_rows, head_width = len(places.slots_R), width // num_heads
    assert qkv_N3D.is_contiguous() and memory_RSCD.is_contiguous()
    mixed_ND = qkv_N3D.new_empty(num_tokens, width)
    parts = _Parts.of(mixed_ND, num_heads, splits)
    blocks = {
        "HEAD": max(16, triton.next_power_of_2(head_width)),
        "HEAD_WIDTH": head_width,
        "SPLITS": splits,
    }
    _attend[(num_rows, num_heads, splits)](
        qkv_N3D, memory_RSCD, places.slots_R, places.lengths_R, places.starts_R,
        mixed_ND, parts.mixed_NHXK, parts.weights_NHX2, memory_RSCD.stride(0), width,
        head_width**-0.5, **blocks, QUERIES=16, SLOTS=_SLOTS_BLOCK, num_warps=4, num_stages=3,
    )  # fmt: skip
    if splits > 1:
        _join[(num_tokens, num_heads)](
            parts.mixed_NHXK, parts.weights_NHX2, mixed_ND, width, **blocks,
            PARTS=triton.next_power_of_2(splits), num_warps=1,
        )  # fmt: skip
    return mixed_ND


def splits_for(num_rows: int, num_heads: int, num_slots: int, num_cores: int) -> int:
    """Return how many programs share a row and a head: enough for the cores, none too short."""
    wanted = 2 * num_cores // max(num_rows * num_heads, 1)
    return max(1, min(wanted, num_slots // (4 * _SLOTS_BLOCK), 32))


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What each program found in its share: the mean value, the largest score, the sum."""

    mixed_NHXK: Tensor | None
    weights_NHX2: Tensor | None

    @classmethod
    def of(cls, mixed_ND: Tensor, num_heads: int, splits: int) -> _Parts:
        if splits == 1:
            return cls(None, None)
        num_tokens, width = mixed_ND.shape
        shape = (num_tokens, num_heads, splits)
        device = mixed_ND.device
        return cls(
            torch.empty(*shape, width // num_heads, dtype=torch.float32, device=device),
            torch.empty(*shape, 2, dtype=torch.float32, device=device),
        )


@triton.jit
def _attend(
    qkv_ptr: tl.tensor, memory_ptr: tl.tensor, slots_ptr: tl.tensor, lengths_ptr: tl.tensor,
    starts_ptr: tl.tensor, mixed_ptr: tl.tensor, part_ptr: tl.tensor, weight_ptr: tl.tensor,
    row_stride: tl.tensor, width: tl.tensor, scale: tl.tensor, HEAD: tl.constexpr,
    HEAD_WIDTH: tl.constexpr, SPLITS: tl.constexpr, QUERIES: tl.constexpr, SLOTS: tl.constexpr,
) -> None:  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths_ptr + row)
    start = tl.load(starts_ptr + row)
    count = tl.load(starts_ptr + row + 1) - start
    memory_ptr += tl.load(slots_ptr + row).to(tl.int64) * row_stride + head * HEAD_WIDTH

    new, lane = tl.arange(0, QUERIES), tl.arange(0, HEAD)
    in_head = (lane < HEAD_WIDTH)[None, :]
    is_new = (new < count)[:, None] & in_head
    packed_ptr = qkv_ptr + (start + new)[:, None] * (3 * width) + head * HEAD_WIDTH + lane[None, :]
    held_type = memory_ptr.dtype.element_ty
    query = tl.load(packed_ptr, mask=is_new, other=0.0).to(held_type)

    largest = tl.full((QUERIES,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((QUERIES,), dtype=tl.float32)
    mixed = tl.zeros((QUERIES, HEAD), dtype=tl.float32)
    share = tl.cdiv(tl.cdiv(length, SPLITS), SLOTS) * SLOTS
    for first in range(split * share, tl.minimum((split + 1) * share, length), SLOTS):
        slot = first + tl.arange(0, SLOTS)
        held_ptr = memory_ptr + slot.to(tl.int64)[:, None] * (2 * width) + lane[None, :]
        held = (slot < length)[:, None] & in_head
        key = tl.load(held_ptr, mask=held, other=0.0)
        value = tl.load(held_ptr + width, mask=held, other=0.0)
        seen = (slot < length)[None, :] & (new >= 0)[:, None]
        largest, total, mixed = _look(query, key, value, seen, scale, largest, total, mixed)

    if split == SPLITS - 1:
        key = tl.load(packed_ptr + width, mask=is_new, other=0.0).to(held_type)
        value = tl.load(packed_ptr + 2 * width, mask=is_new, other=0.0).to(held_type)
        taken_ptr = memory_ptr + (length + new).to(tl.int64)[:, None] * (2 * width) + lane[None, :]
        tl.store(taken_ptr, key, mask=is_new)
        tl.store(taken_ptr + width, value, mask=is_new)
        seen = (new[None, :] <= new[:, None]) & (new < count)[None, :]
        largest, total, mixed = _look(query, key, value, seen, scale, largest, total, mixed)

    if SPLITS == 1:
        mixed_ptr += (start + new)[:, None] * width + head * HEAD_WIDTH + lane[None, :]
        tl.store(mixed_ptr, mixed / total[:, None], mask=is_new)
    else:
        part = ((start + new) * tl.num_programs(1) + head) * SPLITS + split
        tl.store(part_ptr + part[:, None] * HEAD_WIDTH + lane[None, :], mixed, mask=is_new)
        tl.store(weight_ptr + part * 2, largest, mask=new < count)
        tl.store(weight_ptr + part * 2 + 1, total, mask=new < count)


@triton.jit
def _look(
    query: tl.tensor, key: tl.tensor, value: tl.tensor, seen: tl.tensor, scale: tl.tensor,
    largest: tl.tensor, total: tl.tensor, mixed: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Return the running softmax after some more keys, of which every query sees one at least."""
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    scores = tl.where(seen, scores, float("-inf"))
    highest = tl.maximum(largest, tl.max(scores, axis=1))
    weights = tl.exp(scores - highest[:, None])
    fading = tl.exp(largest - highest)
    total = total * fading + tl.sum(weights, axis=1)
    gained = tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return highest, total, mixed * fading[:, None] + gained


@triton.jit
def _join(
    part_ptr: tl.tensor, weight_ptr: tl.tensor, mixed_ptr: tl.tensor, width: tl.tensor,
    HEAD: tl.constexpr, HEAD_WIDTH: tl.constexpr, SPLITS: tl.constexpr, PARTS: tl.constexpr,
) -> None:  # fmt: skip
    token, head = tl.program_id(0), tl.program_id(1)
    split, lane = tl.arange(0, PARTS), tl.arange(0, HEAD)
    place = (token * tl.num_programs(1) + head) * SPLITS + split
    largest = tl.load(weight_ptr + place * 2, mask=split < SPLITS, other=float("-inf"))
    total = tl.load(weight_ptr + place * 2 + 1, mask=split < SPLITS, other=0.0)
    inside = (split < SPLITS)[:, None] & (lane < HEAD_WIDTH)[None, :]
    mixed = tl.load(part_ptr + place[:, None] * HEAD_WIDTH + lane[None, :], mask=inside, other=0.0)
    fading = tl.exp(largest - tl.max(largest, axis=0))
    joined = tl.sum(mixed * fading[:, None], axis=0) / tl.sum(total * fading, axis=0)
    tl.store(mixed_ptr + token * width + head * HEAD_WIDTH + lane, joined, mask=lane < HEAD_WIDTH)
