"""A whole decoder in one C call: tokens of several rows in, their hidden states out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.kernels.native import Bound, CMatrix, library


class CNorm(ctypes.Structure):
    """`Norm` of native_types.h."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p))


class CBlock(ctypes.Structure):
    """`Block` of native_types.h."""

    _fields_ = (
        ("attention_norm", CNorm),
        ("mixed_norm", CNorm),
        ("feedforward_norm", CNorm),
        ("expanded_norm", CNorm),
        ("qkv", CMatrix),
        ("output", CMatrix),
        ("expand", CMatrix),
        ("contract", CMatrix),
    )


class CDecoder(ctypes.Structure):
    """`Decoder` of native_types.h."""

    _fields_ = (
        ("blocks", POINTER(CBlock)),
        ("norm", CNorm),
        ("num_blocks", c_int64),
        ("num_heads", c_int64),
        ("width", c_int64),
        ("feedforward_width", c_int64),
        ("norm_eps", c_double),
    )


class CCache(ctypes.Structure):
    """`Cache` of native_types.h."""

    _fields_ = (("memory", c_void_p), ("rows", c_int64), ("capacity", c_int64))


class CTokens(ctypes.Structure):
    """`Tokens` of native_types.h."""

    _fields_ = (
        ("count", c_int64),
        ("rows", POINTER(c_int64)),
        ("slots", POINTER(c_int64)),
        ("num_wanted", c_int64),
        ("wanted", POINTER(c_int64)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """The two vectors of a layer norm, float32."""

    weight_D: Tensor
    bias_D: Tensor

    def __post_init__(self) -> None:
        for tensor in (self.weight_D, self.bias_D):
            assert tensor.dtype is torch.float32 and tensor.is_contiguous()

    def to_c(self) -> CNorm:
        """Return where they lie."""
        return CNorm(self.weight_D.data_ptr(), self.bias_D.data_ptr())


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BoundBlock:
    """One decoder block as C reads it."""

    attention_norm: Gain
    mixed_norm: Gain
    feedforward_norm: Gain
    expanded_norm: Gain
    qkv: Bound
    output: Bound
    expand: Bound
    contract: Bound

    def to_c(self) -> CBlock:
        """Return where everything lies."""
        norms = (self.attention_norm, self.mixed_norm, self.feedforward_norm, self.expanded_norm)
        matrices = (self.qkv, self.output, self.expand, self.contract)
        return CBlock(*(norm.to_c() for norm in norms), *(bound.matrix for bound in matrices))


class NativeDecoder:
    """All blocks and the last norm."""

    def __init__(
        self, blocks: Sequence[BoundBlock], norm: Gain, num_heads: int, norm_eps: float
    ) -> None:
        self.blocks = tuple(blocks)  # keeps the tensors that C points to
        self.norm = norm
        self.width = len(norm.weight_D)
        self._native = library()
        self._step = self._native.functions.k2_step
        self._step.restype = None
        self._step.argtypes = (
            c_int, c_int, POINTER(CDecoder), POINTER(CCache), POINTER(CTokens), c_void_p, c_void_p,
        )  # fmt: skip
        self._blocks = (CBlock * len(self.blocks))(*(block.to_c() for block in self.blocks))
        self._decoder = CDecoder(
            self._blocks,
            norm.to_c(),
            len(self.blocks),
            num_heads,
            self.width,
            self.blocks[0].expand.matrix.n,
            norm_eps,
        )

    def step(
        self,
        x_ND: Tensor,
        memory_LRS2D: Tensor,
        rows_N: Sequence[int],
        slots_N: Sequence[int],
        wanted_M: Sequence[int],
    ) -> Tensor:
        """Write N tokens into slots of rows; return hidden_MD of the wanted, behind the last norm.

        Tokens of one row stand in the order of their slots, and a token sees the slots up to its
        own; wanted_M ascends.
        """
        layers, num_rows, capacity = memory_LRS2D.shape[:3]
        assert layers == len(self.blocks) and memory_LRS2D.shape[3:] == (2, self.width)
        for tensor in (x_ND, memory_LRS2D):
            assert tensor.dtype is torch.float32 and tensor.is_contiguous()
        assert x_ND.shape == (len(rows_N), self.width)
        assert all(0 <= row < num_rows for row in rows_N)
        assert all(0 <= slot < capacity for slot in slots_N)
        assert all(low < high for low, high in zip([-1, *wanted_M], [*wanted_M, len(rows_N)]))  # noqa: B905

        hidden_MD = torch.empty(len(wanted_M), self.width)
        tokens = CTokens(
            len(rows_N), _integers(rows_N), _integers(slots_N), len(wanted_M), _integers(wanted_M)
        )
        self._step(
            self._native.set,
            torch.get_num_threads(),
            byref(self._decoder),
            byref(CCache(memory_LRS2D.data_ptr(), num_rows, capacity)),
            byref(tokens),
            x_ND.data_ptr(),
            hidden_MD.data_ptr(),
        )
        return hidden_MD


def _integers(values: Sequence[int]) -> ctypes.Array[c_int64]:
    return (c_int64 * len(values))(*values)
