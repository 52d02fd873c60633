"""All blocks of a vision tower in one C call: patches of several pictures in, their states out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.kernels.native import Bound, CMatrix, library
from kosmos2.kernels.native_step import CNorm, Gain


class CTowerBlock(ctypes.Structure):
    """`TowerBlock` of native_tower.h."""

    _fields_ = (
        ("attention_norm", CNorm),
        ("feedforward_norm", CNorm),
        ("qkv", CMatrix),
        ("output", CMatrix),
        ("expand", CMatrix),
        ("contract", CMatrix),
    )


class CTower(ctypes.Structure):
    """`Tower` of native_tower.h."""

    _fields_ = (
        ("blocks", POINTER(CTowerBlock)),
        ("num_blocks", c_int64),
        ("num_heads", c_int64),
        ("width", c_int64),
        ("feedforward_width", c_int64),
        ("norm_eps", c_double),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BoundTowerBlock:
    """One block as C reads it; its matrices are in bf16."""

    attention_norm: Gain
    feedforward_norm: Gain
    qkv: Bound
    output: Bound
    expand: Bound
    contract: Bound

    def to_c(self) -> CTowerBlock:
        """Return where everything lies."""
        matrices = (self.qkv, self.output, self.expand, self.contract)
        return CTowerBlock(
            self.attention_norm.to_c(),
            self.feedforward_norm.to_c(),
            *(bound.matrix for bound in matrices),
        )


class Tower:
    """All blocks."""

    def __init__(self, blocks: Sequence[BoundTowerBlock], num_heads: int, norm_eps: float) -> None:
        self.blocks = tuple(blocks)  # keeps the tensors that C points to
        self.width = len(self.blocks[0].attention_norm.weight_D)
        self._native = library()
        self._run = self._native.functions.k2_tower
        self._run.restype = None
        self._run.argtypes = (c_int, c_int, POINTER(CTower), c_int64, c_int64, c_void_p)
        self._blocks = (CTowerBlock * len(self.blocks))(*(block.to_c() for block in self.blocks))
        self._tower = CTower(
            self._blocks,
            len(self.blocks),
            num_heads,
            self.width,
            self.blocks[0].expand.matrix.n,
            norm_eps,
        )

    def __call__(self, x_NPE: Tensor) -> Tensor:
        """Return float32 x_NPE behind the last block; every patch looks at its own picture's."""
        x_NPE = x_NPE.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        assert x_NPE.ndim == 3 and x_NPE.shape[2] == self.width, x_NPE.shape
        if x_NPE.numel():
            self._run(
                self._native.set,
                torch.get_num_threads(),
                byref(self._tower),
                *x_NPE.shape[:2],
                x_NPE.data_ptr(),
            )
        return x_NPE
