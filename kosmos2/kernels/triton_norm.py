"""LayerNorm on a GPU, together with the residual or the GELU that comes just before it.

Numbers are rounded to the activations' type where the plain layers round them: after the sum, after
the GELU, after the norm.
"""
# ruff: noqa: PLR0913  (a kernel takes pointers, not objects)
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def norm(x_MK: Tensor, weight_K: Tensor, bias_K: Tensor, eps: float) -> Tensor:
    """Return LayerNorm(x_MK)."""
    normed_MK = torch.empty_like(x_MK)
    _launch(_norm, x_MK, (x_MK, weight_K, bias_K, normed_MK), eps)
    return normed_MK


def gelu_norm(x_MK: Tensor, weight_K: Tensor, bias_K: Tensor, eps: float) -> Tensor:
    """Return LayerNorm(gelu(x_MK))."""
    normed_MK = torch.empty_like(x_MK)
    _launch(_gelu_norm, x_MK, (x_MK, weight_K, bias_K, normed_MK), eps)
    return normed_MK


def add_norm(
    x_MK: Tensor, change_MK: Tensor, weight_K: Tensor, bias_K: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return x_MK + change_MK, and LayerNorm of it."""
    sum_MK, normed_MK = torch.empty_like(x_MK), torch.empty_like(x_MK)
    _launch(_add_norm, x_MK, (x_MK, change_MK, weight_K, bias_K, sum_MK, normed_MK), eps)
    return sum_MK, normed_MK


def _launch(
    kernel: triton.JITFunction, x_MK: Tensor, tensors: tuple[Tensor, ...], eps: float
) -> None:
    """Run a kernel with one program a row; every tensor has the layout of a packed row."""
    num_rows, width = x_MK.shape
    assert all(tensor.is_contiguous() for tensor in tensors)
    block = triton.next_power_of_2(width)
    warps = min(max(block // 512, 1), 16)
    kernel[(num_rows,)](*tensors, width, eps, BLOCK=block, num_warps=warps)


@triton.jit
def gelu(x: tl.tensor) -> tl.tensor:
    """Return the exact GELU of float32."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def normalise(
    x: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, columns: tl.tensor, width: tl.tensor,
    eps: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Return LayerNorm of one row in float32; columns beyond the width are zero in x."""
    inside = columns < width
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    return centred * (1.0 / tl.sqrt(variance + eps)) * weight + bias


@triton.jit
def _norm(
    x_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, normed_ptr: tl.tensor,
    width: tl.tensor, eps: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    columns = tl.arange(0, BLOCK)
    places = tl.program_id(0) * width + columns
    x = tl.load(x_ptr + places, mask=columns < width, other=0.0).to(tl.float32)
    normed = normalise(x, weight_ptr, bias_ptr, columns, width, eps)
    tl.store(normed_ptr + places, normed, mask=columns < width)


@triton.jit
def _gelu_norm(
    x_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor, normed_ptr: tl.tensor,
    width: tl.tensor, eps: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    columns = tl.arange(0, BLOCK)
    places = tl.program_id(0) * width + columns
    x = tl.load(x_ptr + places, mask=columns < width, other=0.0)
    bent = gelu(x.to(tl.float32)).to(x.dtype).to(tl.float32)
    normed = normalise(bent, weight_ptr, bias_ptr, columns, width, eps)
    tl.store(normed_ptr + places, normed, mask=columns < width)


@triton.jit
def _add_norm(
    x_ptr: tl.tensor, change_ptr: tl.tensor, weight_ptr: tl.tensor, bias_ptr: tl.tensor,
    sum_ptr: tl.tensor, normed_ptr: tl.tensor, width: tl.tensor, eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    columns = tl.arange(0, BLOCK)
    places = tl.program_id(0) * width + columns
    x = tl.load(x_ptr + places, mask=columns < width, other=0.0)
    change = tl.load(change_ptr + places, mask=columns < width, other=0.0)
    total = (x.to(tl.float32) + change.to(tl.float32)).to(x.dtype)
    tl.store(sum_ptr + places, total, mask=columns < width)
    normed = normalise(total.to(tl.float32), weight_ptr, bias_ptr, columns, width, eps)
    tl.store(normed_ptr + places, normed, mask=columns < width)
