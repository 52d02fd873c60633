"""Memory that is taken only when it is used, and given back to the system when it is free."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LARGE = 1 << 20
"""Bytes from which a temporary copy is worth a call."""


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on a CPU a page of them is taken when it is first used.

    `torch.zeros` writes them all at once.
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LARGE:
        return torch.zeros(*shape, dtype=dtype, device=device)
    return torch.frombuffer(fresh(size), dtype=dtype).view(*shape)


def fresh(size: int) -> mmap.mmap:
    """Return bytes of zeros, of which a page is taken when it is first used."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def give_back(freed: int) -> None:
    """Give freed memory back, if that many bytes are worth it.

    glibc leaves a hole where a temporary copy of a matrix was, and a copy of the next one of the
    same size does not fit into it: without this a model of full size takes twice its bytes.
    """
    if freed >= LARGE:
        _trim()()


@functools.cache
def _trim() -> Callable[[], object]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return _nothing
    return functools.partial(trim, ctypes.c_size_t(0))


def _nothing() -> None:
    """Leave it to the allocator."""
