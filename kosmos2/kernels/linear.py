"""Linear layers and the token table in every precision, packed for the processor they run on.

A row's result never depends on the other rows of the call; in int8 and int4 to the last bit.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.kernels import fbgemm, native
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.memory import give_back
from kosmos2.kernels.quantized import (
    Fp8,
    Int4,
    Int8,
    Quantized,
    fits_int4,
    multiply_int8,
    round_fp8,
    round_int4,
    round_int8,
)


def pack(
    weight_NK: Tensor, bias_N: Tensor | None, precision: Precision, *, rows: int = 1
) -> Linear:
    """Return the layer x_MK -> y_MN in this precision, on the weight's device.

    `rows` is how many rows most calls have: 1 in decoding, hundreds in a vision tower. It changes
    the speed alone.
    """
    if precision.is_quantized:
        return pack_quantized(quantize(weight_NK, precision), bias_N)
    dtype = precision.activations(weight_NK.device)
    if weight_NK.device.type == "cpu" and dtype is torch.bfloat16 and native.multiplies_bf16():
        matrix = native.pack_bf16(weight_NK)
        give_back(weight_NK.nbytes)
        return NativeLinear(matrix, None if bias_N is None else bias_N.detach().float())
    weight_NK = weight_NK.detach().to(dtype)
    bias_N = None if bias_N is None else bias_N.detach().to(dtype)
    if weight_NK.device.type == "cpu" and dtype in _packed_types():
        layer = PackedLinear(weight_NK, bias_N, rows)
        give_back(weight_NK.nbytes)  # what an earlier matrix left
        return layer
    return FloatLinear(weight_NK, bias_N)


def quantize(weight_NK: Tensor, precision: Precision) -> Quantized:
    """Return the matrix in the few bits of a quantised precision."""
    assert precision.is_quantized, precision
    if precision is Precision.FP8:
        return round_fp8(weight_NK)
    if precision is Precision.INT4 and fits_int4(weight_NK.shape[1]):
        return round_int4(weight_NK)
    return round_int8(weight_NK)


def pack_quantized(matrix: Quantized, bias_N: Tensor | None) -> Linear:
    """Return the layer of a matrix that is rounded already, as a file holds it."""
    bias_N = None if bias_N is None else bias_N.detach().float()
    if isinstance(matrix, Fp8) or matrix.device.type != "cpu":
        if isinstance(matrix, Int4):
            return DequantisedLinear(matrix, bias_N)
        return ScaledLinear(matrix, bias_N)
    if native.available() and native.fits(matrix):
        return NativeLinear(matrix, bias_N)
    if isinstance(matrix, Int4):
        # Without a compiler the product in 8 bits is the fastest, at twice the memory.
        matrix = round_int8(matrix.dequantise())
    return FbgemmLinear(matrix, bias_N) if fbgemm.levels() else ExactLinear(matrix, bias_N)


class Linear(nn.Module):
    """What all of them offer: x_MK -> y_MN, with any leading dimensions."""

    bias_N: Tensor | None

    def __init__(self, shape_NK: tuple[int, int], bias_N: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = shape_NK
        self.register_buffer("bias_N", bias_N)


class FloatLinear(Linear):
    """F.linear: every device, every type."""

    weight_NK: Tensor

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        super().__init__((weight_NK.shape[0], weight_NK.shape[1]), bias_N)
        self.register_buffer("weight_NK", weight_NK)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        return F.linear(x_MK, self.weight_NK, self.bias_N)


class PackedLinear(Linear):
    """A weight in the blocked layout of oneDNN: for few rows twice as fast as F.linear."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None, rows: int) -> None:
        super().__init__((weight_NK.shape[0], weight_NK.shape[1]), bias_N)
        # float32 has one layout for a single row and one for all other counts; the first is a
        # sixth faster there and a sixth slower elsewhere. bfloat16 has the second alone.
        rows = 1 if rows == 1 and weight_NK.dtype is torch.float32 else 64
        # Opaque to torch, so neither buffer nor parameter: it cannot be moved or saved.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK, rows)
        self._multiply = torch.ops.mkldnn._linear_pointwise.default

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        added = _room(x_MK.shape[0]) - x_MK.shape[0] if x_MK.dim() == 2 else 0
        if added:
            x_MK = F.pad(x_MK, (0, 0, 0, added))
        y_MN: Tensor = self._multiply(x_MK, self.packed, self.bias_N, "none", [], "")
        return y_MN[:-added] if added else y_MN


def _room(num_rows: int) -> int:
    """Return num_rows, or from 17 on at most an eighth more: one of few numbers.

    For every number of rows oneDNN writes code of its own, which takes it a millisecond, and keeps
    half a megabyte for it. Packed prompts have any number.
    """
    if num_rows <= 16:
        return num_rows
    step = max(8, 1 << ((num_rows - 1).bit_length() - 4))
    return -(-num_rows // step) * step


@functools.cache
def _packed_types() -> tuple[torch.dtype, ...]:
    """Return the types that this build of torch multiplies packed, on this processor."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        weight_NK = torch.eye(16, dtype=dtype)
        try:
            if torch.equal(PackedLinear(weight_NK, None, 1)(weight_NK), weight_NK):
                found.append(dtype)
        except (RuntimeError, AttributeError):
            continue
    return tuple(found)


class NativeLinear(Linear):
    """8 or 4 bits in the C kernels, which read the matrix where it lies; or bf16, packed."""

    def __init__(self, matrix: native.Matrix, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape, bias_N)
        self.matrix = matrix
        self._multiply = native.bind(matrix, bias_N)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        return self._multiply(x_MK.float()).to(x_MK.dtype)


class FbgemmLinear(Linear):
    """8 bits in the library that torch brings; the matrix is copied into its layout."""

    def __init__(self, matrix: Int8, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape, bias_N)
        self._multiply = fbgemm.bind(matrix)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        y_MN, largest_M1 = self._multiply(x_MK)
        if self.bias_N is None:
            return y_MN.mul_(largest_M1)
        return torch.addcmul(self.bias_N, y_MN, largest_M1)


class ExactLinear(Linear):
    """8 bits in plain torch: slow, for builds of torch without any of the libraries."""

    def __init__(self, matrix: Int8, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape, bias_N)
        self.matrix = matrix

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        y_MN = multiply_int8(x_MK, self.matrix).float()
        return y_MN if self.bias_N is None else y_MN + self.bias_N


class ScaledLinear(Linear):
    """Weights in 8 bits, activations as they come: what is left where no kernel is."""

    def __init__(self, matrix: Int8 | Fp8, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape, bias_N)
        self.matrix = matrix

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        sums_MN = F.linear(x_MK, self.matrix.rounded_NK.to(x_MK.dtype))
        y_MN = sums_MN.float() * self.matrix.scale_N
        return (y_MN if self.bias_N is None else y_MN + self.bias_N).to(x_MK.dtype)


class DequantisedLinear(Linear):
    """Weights in 4 bits, written out for every product."""

    def __init__(self, matrix: Int4, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape, bias_N)
        self.matrix = matrix

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        y_MN = F.linear(x_MK, self.matrix.dequantise().to(x_MK.dtype))
        return y_MN if self.bias_N is None else (y_MN.float() + self.bias_N).to(x_MK.dtype)


def pack_table(weight_VD: Tensor, precision: Precision) -> Table:
    """Return the embedding, and the output layer that shares its matrix, in this precision."""
    if precision.is_quantized:
        return pack_quantized_table(quantize_table(weight_VD))
    weight_VD = weight_VD.detach().to(precision.activations(weight_VD.device))
    return FloatTable(weight_VD, pack(weight_VD, None, precision))


def quantize_table(weight_VD: Tensor) -> Int8:
    """Return the embedding in few bits: 8 in every such precision, also in int4.

    It is a sixteenth of the parameters, and an error of it is in every position and every score.
    """
    return round_int8(weight_VD)


def pack_quantized_table(matrix: Int8) -> Table:
    """Return the table of a matrix that is rounded already; the matrix stays where it lies."""
    return Int8Table(matrix, pack_quantized(matrix, None))


class Table(nn.Module):
    """Rows by token, and one score per token of a hidden state."""

    def __init__(self, scores: Linear) -> None:
        super().__init__()
        self.scores = scores

    def rows(self, ids_N: Tensor) -> Tensor:
        """Return embeds_ND."""
        raise NotImplementedError

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Return logits_MV in float32, of float64 in float64."""
        logits_MV: Tensor = self.scores(hidden_MD)
        return logits_MV if logits_MV.dtype is torch.float64 else logits_MV.float()


class FloatTable(Table):
    """A table of floating-point numbers."""

    weight_VD: Tensor

    def __init__(self, weight_VD: Tensor, scores: Linear) -> None:
        super().__init__(scores)
        self.register_buffer("weight_VD", weight_VD)

    def rows(self, ids_N: Tensor) -> Tensor:
        """Return embeds_ND."""
        return F.embedding(ids_N, self.weight_VD)


class Int8Table(Table):
    """A table of 8 bits with one scale a token."""

    def __init__(self, matrix: Int8, scores: Linear) -> None:
        super().__init__(scores)
        self.matrix = matrix
        self._dtype = Precision.INT8.activations(matrix.device)

    def rows(self, ids_N: Tensor) -> Tensor:
        """Return embeds_ND."""
        embeds_ND = self.matrix.rounded_NK[ids_N] * self.matrix.scale_N[ids_N, None]
        return embeds_ND.to(self._dtype)
