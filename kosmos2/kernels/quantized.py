"""Matrices in few bits: how they are stored, how numbers are rounded to them, what they mean.

One layout for files, for memory and for every kernel, row-major so that a file can be mapped and
used in place. The products here are the slow truth that fast kernels are tested against.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from kosmos2.errors import WeightsError

GROUP = 128
"""Numbers of one row that share a scale in 4 bits."""
LEVELS = 127
"""The largest rounded number in 8 bits; -128 is never used, so that a sign costs nothing."""
SMALLEST = torch.finfo(torch.float32).tiny * LEVELS
"""Rows of smaller numbers are rounded as if this were their largest, so zeros stay zeros."""
_TRIED = 20
"""Scales tried for a group, from its largest number down to half of it."""
_PIECE = 1 << 20
"""Numbers that are rounded at a time."""
_EXACT = 1024
"""So many products of two 8-bit numbers have a sum that float32 holds exactly, in any order."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """weight ~ rounded_NK * scale_N."""

    rounded_NK: Tensor
    """int8 in -127..127."""
    scale_N: Tensor
    """float32."""

    def __post_init__(self) -> None:
        _check(self.rounded_NK, torch.int8, self.scale_N, (torch.float32,))
        _check_rows(self.rounded_NK, self.scale_N)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rounded_NK.shape[0], self.rounded_NK.shape[1]

    @property
    def device(self) -> torch.device:
        return self.rounded_NK.device

    def to(self, device: torch.device) -> Int8:
        """Return the matrix on a device."""
        return Int8(self.rounded_NK.to(device), self.scale_N.to(device))

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

    @property
    def device(self) -> torch.device:
        return self.packed_NK.device

    def to(self, device: torch.device) -> Int4:
        """Return the matrix on a device."""
        return Int4(self.packed_NK.to(device), self.scale_NG.to(device))

    def unpack(self) -> Tensor:
        """Return rounded_NK as int8 in -8..7."""
        bytes_NGJ = self.packed_NK.reshape(self.shape[0], -1, GROUP // 2)
        halves_NGK = torch.cat([bytes_NGJ & 15, bytes_NGJ >> 4], dim=-1)
        return (halves_NGK.to(torch.int8) - 8).flatten(1)

    def dequantise(self) -> Tensor:
        """Return weight_NK in float32."""
        return (groups(self.unpack()) * self.scale_NG.float()[..., None]).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Fp8:
    """weight ~ rounded_NK * scale_N, rounded to e4m3."""

    rounded_NK: Tensor
    """float8_e4m3fn."""
    scale_N: Tensor
    """float32."""

    def __post_init__(self) -> None:
        _check(self.rounded_NK, torch.float8_e4m3fn, self.scale_N, (torch.float32,))
        _check_rows(self.rounded_NK, self.scale_N)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rounded_NK.shape[0], self.rounded_NK.shape[1]

    @property
    def device(self) -> torch.device:
        return self.rounded_NK.device

    def to(self, device: torch.device) -> Fp8:
        """Return the matrix on a device."""
        return Fp8(self.rounded_NK.to(device), self.scale_N.to(device))

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


def _check_rows(rounded_NK: Tensor, scale_N: Tensor) -> None:
    if scale_N.shape != rounded_NK.shape[:1]:
        raise WeightsError(
            f"a matrix of {tuple(rounded_NK.shape)} in 8 bits needs one scale a row, "
            f"got {tuple(scale_N.shape)}"
        )


def round_int8(weight_NK: Tensor) -> Int8:
    """Return the matrix in 8 bits: the largest number of each row becomes 127."""
    rounded, scales = [], []
    for part_NK in _pieces(weight_NK):
        scale_N1 = largest_of_rows(part_NK) / LEVELS
        rounded_NK = (part_NK / scale_N1).round_().clamp_(-LEVELS, LEVELS)
        rounded.append(rounded_NK.to(torch.int8))
        scales.append(scale_N1.squeeze(1))
    return Int8(torch.cat(rounded), torch.cat(scales))


def round_fp8(weight_NK: Tensor) -> Fp8:
    """Return the matrix in e4m3: the largest number of each row becomes 448."""
    most = torch.finfo(torch.float8_e4m3fn).max
    rounded, scales = [], []
    for part_NK in _pieces(weight_NK):
        scale_N1 = largest_of_rows(part_NK) / most
        # e4m3 has no infinity: a quotient a hair above the largest number would become nan.
        rounded_NK = (part_NK / scale_N1).clamp_(-most, most)
        rounded.append(rounded_NK.to(torch.float8_e4m3fn))
        scales.append(scale_N1.squeeze(1))
    return Fp8(torch.cat(rounded), torch.cat(scales))


def _pieces(weight_NK: Tensor) -> Iterator[Tensor]:
    """Yield the rows in float32, a few at a time: little memory, and all of it in the cache."""
    rows = max(1, _PIECE // weight_NK.shape[1])
    for start in range(0, weight_NK.shape[0], rows):
        yield weight_NK[start : start + rows].detach().float()


def fits_int4(width: int) -> bool:
    """Tell whether rows of this width divide into groups; other matrices keep 8 bits."""
    return width % GROUP == 0


def round_int4(weight_NK: Tensor) -> Int4:
    """Return the matrix in 4 bits, each group scaled to the least squared error."""
    packed, scales = [], []
    for part_NK in _pieces(weight_NK):
        part_NGK = groups(part_NK)
        scale_NG = search_scales(part_NGK)
        packed.append(pack_int4(round_groups(part_NGK, scale_NG)))
        scales.append(scale_NG.half())
    return Int4(torch.cat(packed), torch.cat(scales))


def search_scales(weight_NGK: Tensor, worth_GK: Tensor | None = None) -> Tensor:
    """Return scale_NG, as stored, with the least squared error of each group.

    The error of a number counts as much as worth_GK says of its column, or all alike. A negative
    scale lets the largest number of a group, whatever its sign, take the one level more.
    """
    extreme_NG = weight_NGK.gather(-1, weight_NGK.abs().argmax(-1, keepdim=True)).squeeze(-1)
    best_NG = torch.full_like(extreme_NG, torch.inf)
    scale_NG = torch.ones_like(extreme_NG)
    for step in range(_TRIED):
        tried_NG = _storable(extreme_NG * (1 - step * 0.5 / _TRIED) / -8)
        error_NGK = round_groups(weight_NGK, tried_NG).mul_(tried_NG[..., None]).sub_(weight_NGK)
        error_NGK = error_NGK.square_() if worth_GK is None else error_NGK.square_().mul_(worth_GK)
        error_NG = error_NGK.sum(-1)
        scale_NG = torch.where(error_NG < best_NG, tried_NG, scale_NG)
        best_NG = torch.minimum(best_NG, error_NG)
    return scale_NG


def _storable(scale: Tensor) -> Tensor:
    """Return scales as the file holds them, never zero."""
    smallest = torch.finfo(torch.float16).smallest_normal
    scale = torch.where(scale < 0, scale.clamp_max(-smallest), scale.clamp_min(smallest))
    return scale.to(torch.float16).float()


def round_groups(weight_NGK: Tensor, scale_NG: Tensor) -> Tensor:
    """Return rounded_NGK in -8..7, as float32."""
    return (weight_NGK / scale_NG[..., None]).round_().clamp_(-8, 7)


def pack_int4(rounded_NGK: Tensor) -> Tensor:
    """Return packed_NK of rounded numbers."""
    stored_NGK = (rounded_NGK + 8).to(torch.uint8)
    low_NGJ, high_NGJ = stored_NGK.chunk(2, dim=-1)
    return (low_NGJ | high_NGJ << 4).flatten(1)


def groups(weight_NK: Tensor) -> Tensor:
    """Return weight_NGK."""
    return weight_NK.reshape(weight_NK.shape[0], -1, GROUP)


def largest_of_rows(x_MK: Tensor) -> Tensor:
    """Return largest_M1, the largest magnitude of each row."""
    return x_MK.abs().amax(dim=-1, keepdim=True).clamp_min_(SMALLEST)


def round_rows(x_MK: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Return rounded_MK (int8) and scale_M1: the largest activation of a row becomes `levels`."""
    largest_M1 = largest_of_rows(x_MK.float())
    rounded_MK = (x_MK / largest_M1 * levels).round_().to(torch.int8)
    return rounded_MK, largest_M1 / levels


def multiply_int8(x_MK: Tensor, matrix: Int8, levels: int = LEVELS) -> Tensor:
    """Return y_MN in float64: both sides in 8 bits, every sum exact."""
    rounded_MK, scale_M1 = round_rows(x_MK, levels)
    sums_MN = torch.zeros(*x_MK.shape[:-1], matrix.shape[0], dtype=torch.int32)
    for start in range(0, matrix.shape[1], _EXACT):
        part = slice(start, start + _EXACT)
        part_MN = rounded_MK[..., part].float() @ matrix.rounded_NK[:, part].float().T
        sums_MN += part_MN.to(torch.int32)
    return sums_MN * scale_M1.double() * matrix.scale_N.double()


def multiply_int4(x_MK: Tensor, matrix: Int4, levels: int = LEVELS) -> Tensor:
    """Return y_MN in float64: activations in 8 bits, weights in 4, every group's sum exact."""
    rounded_MK, scale_M1 = round_rows(x_MK, levels)
    sums_MNG = torch.einsum(
        "mgk,ngk->mng", groups(rounded_MK).double(), groups(matrix.unpack()).double()
    )
    return (sums_MNG * matrix.scale_NG.double()).sum(-1) * scale_M1.double()
