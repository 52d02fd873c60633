"""What the machine can do at best, measured: bytes read a second, operations a second.

The bandwidth is that of a plain sum over half a gigabyte in huge pages with all threads, or of the
native kernels' own probe where they are built and read faster. The rates are those of the best
matrix product that torch offers in each number type; on the machine of the published page they
reach 88 to 95 % of what the registers alone can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.work import Work

BUFFER_BYTES = 1 << 29
PRODUCT_SHAPE = (1024, 4096, 4096)


@dataclass(frozen=True, slots=True)
class Limits:
    """One reading of the machine."""

    bandwidth: float
    """Bytes read from memory in a second."""
    rates: Mapping[str, float]
    """Number type -> operations in a second (a multiplication and an addition are two)."""

    def seconds(self, stages: Sequence[Work]) -> float:
        """Return the least time for stages in turn: for each the longer of reading, calculating."""
        return sum(self._stage(work) for work in stages)

    def _stage(self, work: Work) -> float:
        reading = work.bytes_read / self.bandwidth
        rate = self.rates.get(work.arithmetic)
        return max(reading, work.operations / rate) if rate else reading


class Bandwidth:
    """Reads half a gigabyte again and again; it stays allocated, so that no page fault is timed."""

    def __init__(self) -> None:
        # numpy asks for huge pages for large arrays; torch does so only by an environment variable.
        self._memory_X = torch.from_numpy(np.ones(BUFFER_BYTES // 4, dtype=np.float32))
        self.measure()

    def measure(self) -> float:
        """Return bytes a second of one pass."""
        return BUFFER_BYTES / _seconds(self._memory_X.sum)


class Products:
    """The fastest product of two matrices in each number type."""

    def __init__(self) -> None:
        rows, inner, columns = PRODUCT_SHAPE
        left = torch.randn(rows, inner)
        right = torch.randn(columns, inner)
        self._products: dict[str, Callable[[], Tensor]] = {
            name: _product(left.to(dtype), right.to(dtype))
            for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        }
        left_int8 = (left * 30).clamp(-127, 127).to(torch.int8)
        right_int8 = (right * 30).clamp(-127, 127).to(torch.int8).T
        self._products["int8"] = lambda: torch._int_mm(left_int8, right_int8)
        self.measure()

    def measure(self) -> dict[str, float]:
        """Return operations a second of each number type."""
        operations = 2 * PRODUCT_SHAPE[0] * PRODUCT_SHAPE[1] * PRODUCT_SHAPE[2]
        return {name: operations / _seconds(each) for name, each in self._products.items()}


def _product(left: Tensor, right: Tensor) -> Callable[[], Tensor]:
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # oneDNN with weights in its own order: a third faster than MKL on AMD's processors.
        packed = torch.ops.mkldnn._reorder_linear_weight(right, left.shape[0])
        return lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")
    return lambda: left @ right.T


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
