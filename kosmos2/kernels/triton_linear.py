"""Matrix products of few rows on a GPU, where reading the weight is all the work.

Weights are floats, int8 or e4m3 with one scale a row (weight ~ rounded_NK * scale_N); activations
stay floats and sums are float32. One row has a kernel of its own, which also does the norm before
the product and the GELU after it: a decode step of one row is five launches a layer.
"""
# ruff: noqa: PLR0913  (a kernel takes pointers, not objects)
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from kosmos2.kernels.triton_norm import gelu

MOST_ROWS = 64
"""Above it arithmetic counts, and a dequantised weight and the vendor's product are faster."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """weight_NK and what belongs to it; a float weight has no scale."""

    weight_NK: Tensor
    scale_N: Tensor | None
    bias_N: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """The LayerNorm before a product."""

    weight_K: Tensor
    bias_K: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Tile:
    """How much of a weight one program reads at once: rows, columns; and its warps."""

    rows: int
    columns: int
    warps: int


def row_tile(num_rows: int, num_columns: int, itemsize: int) -> Tile:
    """Return the tile of a product of one row: a read of 64 bytes a thread, few registers.

    Chosen from the compiled code, not yet by measurement; `python -m benchmarks.gpu` sweeps it.
    """
    warps = 4 if num_columns <= 4096 else 8
    columns = min(triton.next_power_of_2(num_columns), warps * 512 // itemsize)
    return Tile(rows=4 if num_rows <= 4096 else 8, columns=columns, warps=warps)


def multiply_row(x_1K: Tensor, matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """Return y_1N in this type."""
    _, y_1N = _launch_row(x_1K, None, None, matrix, _form(matrix, dtype))
    return y_1N


def multiply_row_in_tiles(x_1K: Tensor, matrix: Matrix, tile: Tile) -> Tensor:
    """Return y_1N by tiles of another size than `row_tile` has chosen."""
    _, y_1N = _launch_row(x_1K, None, None, matrix, _Form(x_1K.dtype, "none", tile))
    return y_1N


def norm_multiply_row(
    x_1K: Tensor, change_1K: Tensor | None, norm: Norm, matrix: Matrix
) -> tuple[Tensor, Tensor]:
    """Return sum_1K = x_1K + change_1K, and y_1N = norm(sum_1K) @ weight.T + bias."""
    return _launch_row(x_1K, change_1K, norm, matrix, _form(matrix, x_1K.dtype))


def norm_multiply_row_gelu(
    x_1K: Tensor, change_1K: Tensor | None, norm: Norm, matrix: Matrix
) -> tuple[Tensor, Tensor]:
    """Return sum_1K = x_1K + change_1K, and gelu(norm(sum_1K) @ weight.T + bias)."""
    form = replace(_form(matrix, x_1K.dtype), activation="gelu")
    return _launch_row(x_1K, change_1K, norm, matrix, form)


@dataclass(frozen=True, slots=True)
class _Form:
    dtype: torch.dtype
    activation: str
    tile: Tile


def _form(matrix: Matrix, dtype: torch.dtype) -> _Form:
    shape, itemsize = matrix.weight_NK.shape, matrix.weight_NK.itemsize
    return _Form(dtype, "none", row_tile(shape[0], shape[1], itemsize))


def _launch_row(
    x_1K: Tensor, change_1K: Tensor | None, norm: Norm | None, matrix: Matrix, form: _Form,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    num_rows, num_columns = matrix.weight_NK.shape
    assert x_1K.shape == (1, num_columns), x_1K.shape
    tile = form.tile
    y_1N = torch.empty(1, num_rows, dtype=form.dtype, device=x_1K.device)
    sum_1K = x_1K if change_1K is None else torch.empty_like(x_1K)
    _multiply_row[(triton.cdiv(num_rows, tile.rows),)](
        x_1K, change_1K, None if change_1K is None else sum_1K,
        None if norm is None else norm.weight_K, None if norm is None else norm.bias_K,
        0.0 if norm is None else norm.eps,
        matrix.weight_NK, matrix.scale_N, matrix.bias_N, y_1N, num_rows,
        WIDTH=num_columns, WHOLE=triton.next_power_of_2(num_columns),
        ROWS=tile.rows, COLUMNS=tile.columns, GELU=form.activation == "gelu", num_warps=tile.warps,
    )  # fmt: skip
    return sum_1K, y_1N


def multiply(x_MK: Tensor, matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """Return y_MN of up to `MOST_ROWS` rows in this type."""
    num_rows, num_columns = matrix.weight_NK.shape
    calls = x_MK.shape[0]
    assert calls <= MOST_ROWS and x_MK.is_contiguous()
    y_MN = torch.empty(calls, num_rows, dtype=dtype, device=x_MK.device)
    calls_block, rows_block = max(16, triton.next_power_of_2(calls)), 32
    _multiply[(triton.cdiv(num_rows, rows_block),)](
        x_MK, matrix.weight_NK, matrix.scale_N, matrix.bias_N, y_MN, calls, num_rows,
        WIDTH=num_columns, CALLS=calls_block, ROWS=rows_block, COLUMNS=128,
        num_warps=4, num_stages=4,
    )  # fmt: skip
    return y_MN


@triton.jit
def _enter(
    x_ptr: tl.tensor, change_ptr: tl.tensor, columns: tl.tensor, WIDTH: tl.constexpr
) -> tl.tensor:
    """Return x + change in the type of x, zero beyond the width."""
    x = tl.load(x_ptr + columns, mask=columns < WIDTH, other=0.0)
    if change_ptr is not None:
        change = tl.load(change_ptr + columns, mask=columns < WIDTH, other=0.0)
        x = (x.to(tl.float32) + change.to(tl.float32)).to(x.dtype)
    return x


@triton.jit
def _read(
    weight_ptr: tl.tensor, rows: tl.tensor, columns: tl.tensor, num_rows: tl.tensor,
    WIDTH: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return a tile of the weight, which nobody needs a second time."""
    places = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    inside = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    return tl.load(weight_ptr + places, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def _finish(
    total: tl.tensor, scale_ptr: tl.tensor, bias_ptr: tl.tensor, rows: tl.tensor,
    num_rows: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Return total * scale + bias in float32; rows are along the last axis."""
    if scale_ptr is not None:
        total *= tl.load(scale_ptr + rows, mask=rows < num_rows, other=0.0)
    if bias_ptr is not None:
        total += tl.load(bias_ptr + rows, mask=rows < num_rows, other=0.0).to(tl.float32)
    return total


@triton.jit
def _multiply_row(
    x_ptr: tl.tensor, change_ptr: tl.tensor, sum_ptr: tl.tensor, norm_weight_ptr: tl.tensor,
    norm_bias_ptr: tl.tensor, eps: tl.tensor, weight_ptr: tl.tensor, scale_ptr: tl.tensor,
    bias_ptr: tl.tensor, y_ptr: tl.tensor, num_rows: tl.tensor, WIDTH: tl.constexpr,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GELU: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    # The weight is on its way while the norm waits for x.
    tile = _read(weight_ptr, rows, columns, num_rows, WIDTH)
    mean, spread = 0.0, 1.0
    if norm_weight_ptr is not None:
        whole = tl.arange(0, WHOLE)
        x = _enter(x_ptr, change_ptr, whole, WIDTH).to(tl.float32)
        mean = tl.sum(x, axis=0) / WIDTH
        centred = tl.where(whole < WIDTH, x - mean, 0.0)
        spread = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / WIDTH + eps)

    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in tl.static_range(0, WIDTH, COLUMNS):
        here = start + columns
        ahead = tile
        if start + COLUMNS < WIDTH:
            ahead = _read(weight_ptr, rows, here + COLUMNS, num_rows, WIDTH)
        x = _enter(x_ptr, change_ptr, here, WIDTH)
        if sum_ptr is not None:
            tl.store(sum_ptr + here, x, mask=(here < WIDTH) & (tl.program_id(0) == 0))
        if norm_weight_ptr is not None:
            weight = tl.load(norm_weight_ptr + here, mask=here < WIDTH, other=0.0).to(tl.float32)
            bias = tl.load(norm_bias_ptr + here, mask=here < WIDTH, other=0.0).to(tl.float32)
            x = ((x.to(tl.float32) - mean) * spread * weight + bias).to(x.dtype)
        total += tile.to(tl.float32) * x.to(tl.float32)[None, :]
        tile = ahead

    y = _finish(tl.sum(total, axis=1), scale_ptr, bias_ptr, rows, num_rows)
    if GELU:
        y = gelu(y.to(y_ptr.dtype.element_ty).to(tl.float32))
    tl.store(y_ptr + rows, y, mask=rows < num_rows)


@triton.jit
def _multiply(
    x_ptr: tl.tensor, weight_ptr: tl.tensor, scale_ptr: tl.tensor, bias_ptr: tl.tensor,
    y_ptr: tl.tensor, num_calls: tl.tensor, num_rows: tl.tensor, WIDTH: tl.constexpr,
    CALLS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    calls = tl.arange(0, CALLS)
    total = tl.zeros((CALLS, ROWS), dtype=tl.float32)
    for start in range(0, WIDTH, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        inside = (calls < num_calls)[:, None] & (columns < WIDTH)[None, :]
        x = tl.load(x_ptr + calls[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0)
        tile = _read(weight_ptr, rows, columns, num_rows, WIDTH)
        total = tl.dot(x, tl.trans(tile.to(x.dtype)), total, input_precision="ieee")
    y = _finish(total, scale_ptr, bias_ptr, rows[None, :], num_rows)
    inside = (calls < num_calls)[:, None] & (rows < num_rows)[None, :]
    tl.store(y_ptr + calls[:, None] * num_rows + rows[None, :], y, mask=inside)
