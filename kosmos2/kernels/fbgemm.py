"""Products of int8 matrices in fbgemm, which every x86 build of torch brings along.

fbgemm rounds activations with one scale for a whole call. Here each row is divided by its largest
number first, so that one scale fits all rows and no row's result depends on another's.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.kernels.memory import give_back
from kosmos2.kernels.quantized import LEVELS, Int8, largest_of_rows

_FEWER_LEVELS = 63
"""Where the sum of two products must fit 16 bits: processors without VNNI saturate it."""


@functools.cache
def levels() -> int:
    """Return the largest rounded activation that gives exact sums here; 0 without fbgemm.

    Found by trying: no name of a processor feature says it for every library and release.
    """
    matrix = Int8(torch.full((16, 64), LEVELS, dtype=torch.int8), torch.full((16,), 1 / LEVELS))
    for candidate in (LEVELS, _FEWER_LEVELS):
        try:
            with warnings.catch_warnings():
                # torch says once that its quantised tensors, which carry a matrix, will go.
                warnings.simplefilter("ignore", UserWarning)
                product = Product(_pack(matrix), candidate)
            y_MN, _ = product(torch.ones(1, 64))
        except (RuntimeError, AttributeError):
            return 0
        if torch.allclose(y_MN, torch.full((1, 16), 64.0)):
            return candidate
    return 0


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A matrix in fbgemm's own layout."""

    packed: torch.ScriptObject
    levels: int

    def __call__(self, x_MK: Tensor) -> tuple[Tensor, Tensor]:
        """Return y_MN of rows divided by their largest number, and that number, largest_M1."""
        largest_M1 = largest_of_rows(x_MK)
        y_MN = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default(
            x_MK / largest_M1, 1 / self.levels, self.levels + 1, self.packed
        )
        return y_MN, largest_M1


def bind(matrix: Int8) -> Product:
    """Return the product of a matrix, which is copied and not needed any more.

    Threads may do this at the same time: one matrix takes one core.
    """
    most = levels()  # first, and so alone
    product = Product(_pack(matrix), most)
    give_back(matrix.rounded_NK.nbytes)
    return product


def _pack(matrix: Int8) -> torch.ScriptObject:
    zeros_N = torch.zeros(matrix.shape[0], dtype=torch.long)
    carrier = torch._make_per_channel_quantized_tensor(
        matrix.rounded_NK, matrix.scale_N.double(), zeros_N, 0
    )
    packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(carrier, None)
    return packed
