"""Linear layers and the token table in every precision, packed for the processor they run on.

A row's result never depends on the other rows of the call; in int8 and int4 to the last bit.
"""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.kernels.kind import Precision
from kosmos2.kernels.quantized import (
    LEVELS,
    Fp8,
    Int4,
    Int8,
    Quantized,
    fits_int4,
    round_fp8,
    round_int4,
    round_int8,
)

_TINY = torch.finfo(torch.float32).tiny
_ROWS_HINT = 8


def pack(weight_NK: Tensor, bias_N: Tensor | None, precision: Precision) -> Linear:
    """Return the layer x_MK -> y_MN in this precision, on the weight's device."""
    if precision.is_quantized:
        return pack_quantized(quantize(weight_NK, precision), bias_N)
    dtype = precision.activations(weight_NK.device)
    weight_NK = weight_NK.detach().to(dtype)
    bias_N = None if bias_N is None else bias_N.detach().to(dtype)
    if _packs(weight_NK):
        return PackedLinear(weight_NK, bias_N)
    return FloatLinear(weight_NK, bias_N)


def quantize(weight_NK: Tensor, precision: Precision) -> Quantized:
    """Return the matrix in the few bits of a quantised precision."""
    assert precision.is_quantized, precision
    if precision is Precision.FP8:
        return round_fp8(weight_NK)
    if precision is Precision.INT4 and fits_int4(weight_NK):
        return round_int4(weight_NK)
    return round_int8(weight_NK)


def pack_quantized(matrix: Quantized, bias_N: Tensor | None) -> Linear:
    """Return the layer of a matrix that is rounded already, as a file holds it."""
    bias_N = None if bias_N is None else bias_N.detach().float()
    if isinstance(matrix, Int8):
        return Int8Linear(matrix, bias_N)
    if isinstance(matrix, Int4):
        return Int4Linear(matrix, bias_N)
    return Fp8Linear(matrix, bias_N)


class Linear(nn.Module):
    """What all of them offer: x_MK -> y_MN, any number of leading dimensions."""

    def __init__(self, shape_NK: tuple[int, int]) -> None:
        super().__init__()
        self.out_features, self.in_features = shape_NK


class FloatLinear(Linear):
    """F.linear: every device, every type."""

    weight_NK: Tensor
    bias_N: Tensor | None

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        super().__init__((weight_NK.shape[0], weight_NK.shape[1]))
        self.register_buffer("weight_NK", weight_NK)
        self.register_buffer("bias_N", bias_N)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        return F.linear(x_MK, self.weight_NK, self.bias_N)


class PackedLinear(Linear):
    """A weight in the blocked layout of oneDNN: twice F.linear for few rows."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        super().__init__((weight_NK.shape[0], weight_NK.shape[1]))
        # Opaque to torch, so neither a buffer nor a parameter: it cannot be moved or saved.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK, _ROWS_HINT)
        self.register_buffer("bias_N", bias_N)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        y_MN: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_MK, self.packed, self.bias_N, "none", [], ""
        )
        return y_MN


class Int8Linear(Linear):
    """Both sides in 8 bits: weights scaled row by row, activations too."""

    def __init__(self, matrix: Int8, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape)
        self.register_buffer("bias_N", bias_N)
        self.packed = _pack_int8(matrix)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        largest_M = x_MK.abs().amax(dim=-1, keepdim=True).clamp_min_(_TINY * LEVELS)
        y_MN: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x_MK / largest_M, 1 / LEVELS, LEVELS + 1, self.packed
        )
        if self.bias_N is None:
            return y_MN.mul_(largest_M)
        return torch.addcmul(self.bias_N, y_MN, largest_M)


def _pack_int8(matrix: Int8) -> torch.ScriptObject:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch deprecates quantised tensors
        quantised = torch._make_per_channel_quantized_tensor(
            matrix.rounded_NK,
            matrix.scale_N.double(),
            torch.zeros(matrix.shape[0], dtype=torch.long),
            0,
        )
        packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(quantised, None)
    return packed


class Int4Linear(Linear):
    """Weights in 4 bits, dequantised for every product."""

    def __init__(self, matrix: Int4, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape)
        self.matrix = matrix
        self.register_buffer("bias_N", bias_N)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        return F.linear(x_MK, self.matrix.dequantise(), self.bias_N)


class Fp8Linear(Linear):
    """Weights in e4m3, dequantised for every product."""

    def __init__(self, matrix: Fp8, bias_N: Tensor | None) -> None:
        super().__init__(matrix.shape)
        self.matrix = matrix
        self.register_buffer("bias_N", bias_N)

    def forward(self, x_MK: Tensor) -> Tensor:
        """Return y_MN."""
        weight_NK = self.matrix.dequantise().to(x_MK.dtype)
        bias_N = None if self.bias_N is None else self.bias_N.to(x_MK.dtype)
        return F.linear(x_MK, weight_NK, bias_N)


def pack_table(weight_VD: Tensor, precision: Precision) -> Table:
    """Return the embedding, and the output layer that shares its matrix, in this precision."""
    if precision.is_quantized:
        return pack_quantized_table(round_int8(weight_VD))
    weight_VD = weight_VD.detach().to(precision.activations(weight_VD.device))
    return FloatTable(weight_VD, pack(weight_VD, None, precision))


def pack_quantized_table(matrix: Int8) -> Table:
    """Return the table of a matrix that is rounded already; it stays where it lies."""
    return Int8Table(matrix, Int8Linear(matrix, None))


class Table(nn.Module):
    """Rows by token, and one score per token of a hidden state."""

    def __init__(self, scores: Linear) -> None:
        super().__init__()
        self.scores = scores

    def rows(self, ids_N: Tensor) -> Tensor:
        """Return embeds_ND."""
        raise NotImplementedError

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Return logits_MV in float32, in float64 for float64."""
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

    def rows(self, ids_N: Tensor) -> Tensor:
        """Return embeds_ND."""
        return self.matrix.rounded_NK[ids_N] * self.matrix.scale_N[ids_N, None]


def _packs(weight_NK: Tensor) -> bool:
    """Tell whether oneDNN multiplies this matrix from a packed copy."""
    return weight_NK.device.type == "cpu" and weight_NK.dtype in _packed_types()


@functools.cache
def _packed_types() -> tuple[torch.dtype, ...]:
    if not torch.backends.mkldnn.is_available():
        return ()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        weight_NK = torch.eye(16, dtype=dtype)
        try:
            layer = PackedLinear(weight_NK, None)
            if torch.equal(layer(weight_NK), weight_NK):
                found.append(dtype)
        except (RuntimeError, AttributeError, NotImplementedError):
            continue
    return tuple(found)
