"""What the allocator keeps of memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

LARGE = 1 << 20
"""Bytes from which a temporary copy is worth a call."""


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
