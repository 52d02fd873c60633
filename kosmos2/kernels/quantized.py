"""Matrices in few bits: how they are stored, how numbers are rounded to them, what they mean.

One layout for files, for memory and for every kernel, row-major so that a file can be mapped and
used in place. The products here are the slow truth that fast kernels are tested against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from kosmos2.errors import WeightsError

GROUP = 128
"""Numbers of one row that share a scale in 4 bits."""
LEVELS = 127
"""The largest rounded activation; -128 is never used, so that a sign costs nothing."""
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """weight ~ rounded_NK * scale_N."""

    rounded_NK: Tensor
    """int8 in -127..127."""
    scale_N: Tensor
    """float32."""

    def __post_init__(self) -> None:
        _check(self.rounded_NK, torch.int8, self.scale_N, (torch.float32,))
        if self.scale_N.shape != self.rounded_NK.shape[:1]:
            raise WeightsError(
                f"an int8 matrix of {tuple(self.rounded_NK.shape)} needs one scale a row, "
                f"got {tuple(self.scale_N.shape)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.rounded_NK.shape[0], self.rounded_NK.shape[1]

    def dequantise(self) -> Tensor:
        """Return weight_NK in float32."""
        return self.rounded_NK * self.scale_N[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Int4:
    """weight ~ rounded * scale, one scale for every 128 numbers of a row.

    Byte j of a group's 64 holds number j in its low half and number j + 64 in its high half, each
    as rounded + 8 in 0..15.
    """

    packed_NK: Tensor
    """uint8, (N, K / 2)."""
    scale_NG: Tensor
    """float16 or float32, (N, K / 128)."""

    def __post_init__(self) -> None:
        _check(self.packed_NK, torch.uint8, self.scale_NG, (torch.float16, torch.float32))
        rows, halves = self.packed_NK.shape
        if halves % (GROUP // 2) or self.scale_NG.shape != (rows, halves * 2 // GROUP):
            raise WeightsError(
                f"an int4 matrix of {rows} rows of {halves} bytes needs {GROUP // 2} bytes a group "
                f"and one scale a group, got scales {tuple(self.scale_NG.shape)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed_NK.shape[0], self.packed_NK.shape[1] * 2

    def unpack(self) -> Tensor:
        """Return rounded_NK as int8 in -8..7."""
        bytes_NGJ = self.packed_NK.unflatten(1, (-1, GROUP // 2))
        halves_NGK = torch.cat([bytes_NGJ & 15, bytes_NGJ >> 4], dim=-1)
        return (halves_NGK.to(torch.int8) - 8).flatten(1)

    def dequantise(self) -> Tensor:
        """Return weight_NK in float32."""
        rounded_NGK = self.unpack().unflatten(1, (-1, GROUP))
        return (rounded_NGK * self.scale_NG.float()[..., None]).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Fp8:
    """weight ~ rounded_NK * scale_N, rounded to e4m3."""

    rounded_NK: Tensor
    """float8_e4m3fn."""
    scale_N: Tensor
    """float32."""

    def __post_init__(self) -> None:
        _check(self.rounded_NK, torch.float8_e4m3fn, self.scale_N, (torch.float32,))

    @property
    def shape(self) -> tuple[int, int]:
        return self.rounded_NK.shape[0], self.rounded_NK.shape[1]

    def dequantise(self) -> Tensor:
        """Return weight_NK in float32."""
        return self.rounded_NK.float() * self.scale_N[:, None]


Quantized: TypeAlias = Int8 | Int4 | Fp8


def _check(
    rounded: Tensor, dtype: torch.dtype, scale: Tensor, scale_dtypes: tuple[torch.dtype, ...]
) -> None:
    if rounded.ndim != 2 or rounded.dtype != dtype or scale.dtype not in scale_dtypes:
        raise WeightsError(
            f"a quantised matrix needs 2 dimensions of {dtype} and scales of {scale_dtypes}, got "
            f"{tuple(rounded.shape)} of {rounded.dtype} and scales of {scale.dtype}"
        )


def round_int8(weight_NK: Tensor) -> Int8:
    """Return the matrix in 8 bits: the largest number of each row becomes 127."""
    weight_NK = weight_NK.detach().float()
    scale_N = weight_NK.abs().amax(dim=1).clamp_min(_TINY * LEVELS) / LEVELS
    rounded_NK = (weight_NK / scale_N[:, None]).round_().clamp_(-LEVELS, LEVELS)
    return Int8(rounded_NK.to(torch.int8), scale_N)


def round_fp8(weight_NK: Tensor) -> Fp8:
    """Return the matrix in e4m3: the largest number of each row becomes 448."""
    weight_NK = weight_NK.detach().float()
    largest = torch.finfo(torch.float8_e4m3fn).max
    scale_N = weight_NK.abs().amax(dim=1).clamp_min(_TINY * largest) / largest
    return Fp8((weight_NK / scale_N[:, None]).to(torch.float8_e4m3fn), scale_N)


def fits_int4(weight_NK: Tensor) -> bool:
    """Tell whether rows divide into groups; other matrices keep 8 bits."""
    return weight_NK.shape[1] % GROUP == 0


def round_int4(weight_NK: Tensor) -> Int4:
    """Return the matrix in 4 bits, each group clipped where its squared error is least."""
    weight_NGK = weight_NK.detach().float().unflatten(1, (-1, GROUP))
    return _store_int4(*_search_int4(weight_NGK))


def _search_int4(weight_NGK: Tensor) -> tuple[Tensor, Tensor]:
    """Return rounded_NGK and scale_NG; the largest number of a group maps near -8 or 7."""
    extreme_NG = weight_NGK.gather(-1, weight_NGK.abs().argmax(-1, keepdim=True)).squeeze(-1)
    best_NG = torch.full_like(extreme_NG, torch.inf)
    best_scale_NG = torch.ones_like(extreme_NG)
    for step in range(20):
        # A negative scale lets the largest number, whatever its sign, take the eighth level.
        scale_NG = _storable(extreme_NG * (1 - step * 0.025) / -8)
        error_NG = (_round_groups(weight_NGK, scale_NG) * scale_NG[..., None] - weight_NGK).square()
        error_NG = error_NG.sum(-1)
        better_NG = error_NG < best_NG
        best_NG = torch.where(better_NG, error_NG, best_NG)
        best_scale_NG = torch.where(better_NG, scale_NG, best_scale_NG)
    return _round_groups(weight_NGK, best_scale_NG), best_scale_NG


def _storable(scale: Tensor) -> Tensor:
    """Return scales as the file will hold them, never zero."""
    smallest = torch.finfo(torch.float16).smallest_normal
    scale = torch.where(scale < 0, scale.clamp_max(-smallest), scale.clamp_min(smallest))
    return scale.to(torch.float16).float()


def _round_groups(weight_NGK: Tensor, scale_NG: Tensor) -> Tensor:
    return (weight_NGK / scale_NG[..., None]).round_().clamp_(-8, 7)


def _store_int4(rounded_NGK: Tensor, scale_NG: Tensor) -> Int4:
    stored_NGK = (rounded_NGK + 8).to(torch.uint8)
    low_NGJ, high_NGJ = stored_NGK.chunk(2, dim=-1)
    return Int4((low_NGJ | high_NGJ << 4).flatten(1), scale_NG.to(torch.float16))


def round_rows(x_MK: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Return rounded_MK (int8) and scale_M: the largest activation of each row becomes `levels`."""
    largest_M = x_MK.float().abs().amax(dim=1).clamp_min(_TINY * LEVELS)
    rounded_MK = (x_MK.float() / largest_M[:, None] * levels).round().to(torch.int8)
    return rounded_MK, largest_M / levels


def multiply_int8(x_MK: Tensor, matrix: Int8, levels: int = LEVELS) -> Tensor:
    """Return y_MN in float64: both sides in 8 bits, every sum exact."""
    rounded_MK, scale_M = round_rows(x_MK, levels)
    sums_MN = rounded_MK.double() @ matrix.rounded_NK.double().T
    return sums_MN * scale_M.double()[:, None] * matrix.scale_N.double()


def multiply_int4(x_MK: Tensor, matrix: Int4, levels: int = LEVELS) -> Tensor:
    """Return y_MN in float64: activations in 8 bits, weights in 4, every group's sum exact."""
    rounded_MK, scale_M = round_rows(x_MK, levels)
    rounded_MGK = rounded_MK.double().unflatten(1, (-1, GROUP))
    rounded_NGK = matrix.unpack().double().unflatten(1, (-1, GROUP))
    sums_MNG = torch.einsum("mgk,ngk->mng", rounded_MGK, rounded_NGK)
    return (sums_MNG * matrix.scale_NG.double()).sum(-1) * scale_M.double()[:, None]
