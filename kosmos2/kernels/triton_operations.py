"""A decode step in few launches on a GPU: the parts of `operations` by Triton kernels.

One row: every product is one kernel, with the norm before it and the GELU after it. More rows: a
kernel for sum and norm, then the product, which for float weights is the vendor's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kosmos2.kernels import triton_attention, triton_linear, triton_norm
from kosmos2.kernels.linear import FloatLinear, FloatTable, Int8Table, ScaledLinear, Table
from kosmos2.kernels.operations import Feedforward, Places
from kosmos2.kernels.triton_linear import MOST_ROWS, Matrix, Norm


class TritonOperations:
    """For CUDA devices and float types up to 32 bits; num_cores is the number of SMs."""

    def __init__(self, num_cores: int) -> None:
        self._num_cores = num_cores

    def project(
        self, x_ND: Tensor, change_ND: Tensor | None, norm: nn.Module, linear: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Return sum_ND and linear(norm(sum_ND))."""
        matrix = matrix_of(linear)
        if len(x_ND) == 1 and matrix is not None:
            return triton_linear.norm_multiply_row(x_ND, change_ND, _norm_of(norm), matrix)
        sum_ND, normed_ND = _add_norm(x_ND, change_ND, norm)
        return sum_ND, _multiply(normed_ND, linear)

    def attend(
        self, qkv_N3D: Tensor, memory_RSCD: Tensor, places: Places, num_heads: int, num_slots: int
    ) -> Tensor:
        """Append keys and values; return mixed_ND."""
        splits = triton_attention.splits_for(
            len(places.slots_R), num_heads, num_slots, self._num_cores
        )
        return triton_attention.attend(qkv_N3D, memory_RSCD, places, num_heads, splits)

    def feedforward(
        self, x_ND: Tensor, change_ND: Tensor, parts: Feedforward
    ) -> tuple[Tensor, Tensor]:
        """Return sum_ND and the change to it."""
        expand, contract = matrix_of(parts.expand), matrix_of(parts.contract)
        if len(x_ND) == 1 and expand is not None and contract is not None:
            sum_ND, expanded_NF = triton_linear.norm_multiply_row_gelu(
                x_ND, change_ND, _norm_of(parts.norm), expand
            )
            norm = _norm_of(parts.expanded_norm)
            return sum_ND, triton_linear.norm_multiply_row(expanded_NF, None, norm, contract)[1]
        sum_ND, normed_ND = _add_norm(x_ND, change_ND, parts.norm)
        norm = _norm_of(parts.expanded_norm)
        normed_NF = triton_norm.gelu_norm(
            _multiply(normed_ND, parts.expand), norm.weight_K, norm.bias_K, norm.eps
        )
        return sum_ND, _multiply(normed_NF, parts.contract)

    def finish(self, x_ND: Tensor, change_ND: Tensor, norm: nn.Module) -> Tensor:
        """Return norm(x_ND + change_ND)."""
        return _add_norm(x_ND, change_ND, norm)[1]

    def scores(self, hidden_MD: Tensor, table: Table) -> Tensor:
        """Return logits_MV."""
        matrix = _matrix_of_table(table)
        if matrix is not None and len(hidden_MD) == 1:
            return triton_linear.multiply_row(hidden_MD, matrix, torch.float32)
        if matrix is not None and matrix.scale_N is not None and len(hidden_MD) <= MOST_ROWS:
            return triton_linear.multiply(hidden_MD, matrix, torch.float32)
        return table.logits(hidden_MD)


def matrix_of(linear: nn.Module) -> Matrix | None:
    """Return what a kernel reads of a layer; None for a layer that multiplies in its own way."""
    if isinstance(linear, FloatLinear):
        return Matrix(linear.weight_NK, None, linear.bias_N)
    if isinstance(linear, ScaledLinear):
        return Matrix(linear.matrix.rounded_NK, linear.matrix.scale_N, linear.bias_N)
    return None


def _matrix_of_table(table: Table) -> Matrix | None:
    if isinstance(table, FloatTable):
        return Matrix(table.weight_VD, None, None)
    if isinstance(table, Int8Table):
        return Matrix(table.matrix.rounded_NK, table.matrix.scale_N, None)
    return None


def _multiply(x_MK: Tensor, linear: nn.Module) -> Tensor:
    matrix = matrix_of(linear)
    if matrix is None or matrix.scale_N is None or len(x_MK) > MOST_ROWS:
        y_MN: Tensor = linear(x_MK)
        return y_MN
    return triton_linear.multiply(x_MK, matrix, x_MK.dtype)


def _norm_of(norm: nn.Module) -> Norm:
    assert isinstance(norm, nn.LayerNorm), norm
    return Norm(norm.weight, norm.bias, norm.eps)


def _add_norm(x_ND: Tensor, change_ND: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    parts = _norm_of(norm)
    if change_ND is None:
        return x_ND, triton_norm.norm(x_ND, parts.weight_K, parts.bias_K, parts.eps)
    return triton_norm.add_norm(x_ND, change_ND, parts.weight_K, parts.bias_K, parts.eps)
