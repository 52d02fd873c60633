"""The optional C kernels: built once by `kosmos2 native build`, used from then on where found.

Nothing here needs a compiler until `build` is called. `KOSMOS2_NATIVE=off` leaves them out;
`plain`, `avx2` and `avx512` force one instruction set, which in int8 and int4 changes the speed and
no bit; bf16 needs `avx512` and a processor that has instructions for it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
import time
from ctypes import POINTER, byref, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.kernels.memory import fresh
from kosmos2.kernels.quantized import Int4, Int8

SOURCES = (
    "native.c", "native_types.h", "native_team.h", "native_float.h",
    "native_plain.h", "native_avx2.h", "native_avx512.h", "native_rows512.h",
    "native_bf16.h", "native_rows16.h", "native_tower.h",
)  # fmt: skip
FLAGS = (
    "-std=gnu11", "-O3", "-fopenmp", "-shared", "-fPIC",
    # Products end in float steps that must be the same everywhere: nothing is fused or reordered.
    "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
SETS = ("plain", "avx2", "avx512")
"""Instruction sets, slowest first; their places are the numbers that C knows them by."""
SWITCH = "KOSMOS2_NATIVE"
PANEL = 64
"""Rows of a matrix in bf16 that lie side by side."""


class CMatrix(ctypes.Structure):
    """`Matrix` of native_types.h."""

    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("n", c_int64),
        ("k", c_int64),
        ("bits", c_int64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """The kernels, loaded, and the instruction set to use."""

    path: Path
    functions: ctypes.CDLL
    set: int


def available() -> bool:
    """Tell whether the kernels are built, loadable and not switched off."""
    return isinstance(_find(), Library)


def status() -> str:
    """Return in one line what `doctor` says of the kernels."""
    found = _find()
    return found if isinstance(found, str) else f"{SETS[found.set]}, {found.path}"


def library() -> Library:
    """Return the kernels; an error says how to get them."""
    found = _find()
    if isinstance(found, str):
        raise MissingExtraError(f"the native kernels are not in use: {found}")
    return found


def build() -> Path:
    """Compile the kernels into the cache folder and return the file."""
    target = _path(_cache())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        source = Path(__file__).with_name(SOURCES[0])
        command = [*_compiler(), *FLAGS, str(source), "-o", str(fresh), "-lm"]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            raise ConfigError(
                f"the native kernels do not compile: {' '.join(command)} ended with "
                f"{done.returncode}: {done.stderr.strip()[:2000]}. Everything works without them; "
                "set CC to another compiler (gcc 10 or newer, with OpenMP) to try again."
            )
        if isinstance(found := _open(fresh, "auto"), str):
            raise ConfigError(f"the native kernels were built but do not run: {found}")
        fresh.replace(target)  # at once: a reader sees the old file or the whole new one
    _load.cache_clear()
    return target


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A matrix that C may read: the tensors are kept where they are."""

    native: Library
    matrix: CMatrix
    tensors: tuple[Tensor, ...]

    def __call__(self, x_MK: Tensor) -> Tensor:
        """Return y_MN of float32 activations, which are rounded row by row, or to bf16."""
        matrix, functions = self.matrix, self.native.functions
        assert x_MK.dtype is torch.float32 and x_MK.shape[-1] == matrix.k, (x_MK.dtype, x_MK.shape)
        x_MK = x_MK.contiguous()
        y_MN = torch.empty(*x_MK.shape[:-1], matrix.n)
        if rows := x_MK.numel() // matrix.k:
            functions.k2_expect_huge_pages(y_MN.data_ptr(), y_MN.nbytes)
            functions.k2_linear(
                self.native.set,
                torch.get_num_threads(),
                byref(matrix),
                x_MK.data_ptr(),
                rows,
                y_MN.data_ptr(),
            )
        return y_MN


@dataclass(frozen=True, slots=True, eq=False)
class Bf16:
    """A matrix in bf16, arranged for the kernels: panels of 64 rows, two columns at a time."""

    shape: tuple[int, int]
    panels: Tensor
    """Pairs of bf16 as int32, (N / 64, K / 2, 64); zeros where N is no multiple of 64, K of 32."""


Matrix: TypeAlias = Int8 | Int4 | Bf16


def multiplies_bf16() -> bool:
    """Tell whether the kernels are in use and the processor has instructions for bf16."""
    found = _find()
    return (
        isinstance(found, Library)
        and SETS[found.set] == "avx512"
        and bool(found.functions.k2_has_bf16())
    )


def pack_bf16(weight_NK: Tensor) -> Bf16:
    """Return a matrix in bf16, as a copy on huge pages."""
    num_rows, width = weight_NK.shape
    weight_NK = weight_NK.detach().to(torch.bfloat16)
    weight_NK = F.pad(weight_NK, (0, -width % 32, 0, -num_rows % PANEL)).contiguous()
    pairs_XRJ = weight_NK.view(torch.int32).view(-1, PANEL, weight_NK.shape[1] // 2)
    panels = arena(weight_NK.nbytes).view(torch.int32).view_as(pairs_XRJ.transpose(1, 2))
    panels.copy_(pairs_XRJ.transpose(1, 2))
    return Bf16((num_rows, width), panels)


def fits(matrix: Matrix) -> bool:
    """Tell whether C can read a matrix as it lies in memory."""
    if isinstance(matrix, Bf16):
        return multiplies_bf16()
    if isinstance(matrix, Int8):
        tensors, scale_type = (matrix.rounded_NK, matrix.scale_N), torch.float32
    else:
        tensors, scale_type = (matrix.packed_NK, matrix.scale_NG), torch.float16
    return tensors[1].dtype is scale_type and all(
        tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in tensors
    )


def weight_of(matrix: Matrix) -> Tensor:
    """Return the rounded numbers, where they lie."""
    if isinstance(matrix, Bf16):
        return matrix.panels
    return matrix.rounded_NK if isinstance(matrix, Int8) else matrix.packed_NK


def bind(matrix: Matrix, bias_N: Tensor | None) -> Bound:
    """Return the layer x_MK -> y_MN of a matrix that `fits`."""
    assert fits(matrix), matrix.shape
    weight = weight_of(matrix)
    if isinstance(matrix, Bf16):
        tensors, scale, bits = [weight], None, 16
    elif isinstance(matrix, Int8):
        tensors, scale, bits = [weight, matrix.scale_N], matrix.scale_N.data_ptr(), 8
    else:
        tensors, scale, bits = [weight, matrix.scale_NG], matrix.scale_NG.data_ptr(), 4
    if bias_N is not None:
        bias_N = bias_N.detach().float().contiguous()
        assert bias_N.shape == matrix.shape[:1]
        tensors.append(bias_N)
    bias = None if bias_N is None else bias_N.data_ptr()
    c_matrix = CMatrix(weight.data_ptr(), scale, bias, *matrix.shape, bits)
    return Bound(library(), c_matrix, tuple(tensors))


def linear_int8(x_MK: Tensor, weight_NK: Tensor, scale_N: Tensor, bias_N: Tensor | None) -> Tensor:
    """Return y_MN of float32 activations, which are rounded row by row."""
    return bind(Int8(weight_NK, scale_N), bias_N)(x_MK)


def linear_int4(x_MK: Tensor, packed_NK: Tensor, scale_NG: Tensor, bias_N: Tensor | None) -> Tensor:
    """Return y_MN of float32 activations, which are rounded row by row."""
    return bind(Int4(packed_NK, scale_NG), bias_N)(x_MK)


def arena(size: int) -> Tensor:
    """Return that many bytes of zeros in one piece, on huge pages where the system has them."""
    memory = fresh(max(size, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def expect_huge_pages(tensor: Tensor) -> int:
    """Let memory not yet touched come in huge pages; return the bytes concerned."""
    return int(library().functions.k2_expect_huge_pages(tensor.data_ptr(), tensor.nbytes))


def use_huge_pages(tensor: Tensor) -> int:
    """Move memory in use onto huge pages, in place; return the bytes that are on them now."""
    return int(library().functions.k2_use_huge_pages(tensor.data_ptr(), tensor.nbytes))


def read_bandwidth(size: int = 512 << 20, repeats: int = 5) -> float:
    """Return the best GB/s of reading fresh memory on huge pages with torch's threads."""
    native, threads = library(), torch.get_num_threads()
    memory = arena(size).fill_(1)
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        native.functions.k2_read(native.set, threads, memory.data_ptr(), size // 8)
        best = max(best, size / (time.perf_counter() - start) / 1e9)
    return best


def _find() -> Library | str:
    """Return the library for what the environment says now, or in words why there is none."""
    switch = os.environ.get(SWITCH, "").strip().lower() or "auto"
    if switch == "off":
        return f"switched off by {SWITCH}=off"
    if switch != "auto" and switch not in SETS:
        return f"{SWITCH}={switch} is none of auto, off, {', '.join(SETS)}"
    return _load(switch, _cache())


@functools.cache
def _load(switch: str, folder: Path) -> Library | str:
    path = _path(folder)
    if not path.exists():
        return "not built; `kosmos2 native build` compiles them with the system's C compiler"
    return _open(path, switch)


def _open(path: Path, switch: str) -> Library | str:
    try:
        # After torch, so that both share the OpenMP runtime, and so one pool of threads.
        functions = ctypes.CDLL(str(path))
        _declare(functions)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded ({error}); `kosmos2 native build` makes it anew"
    best = int(functions.k2_best())
    wanted = best if switch == "auto" else SETS.index(switch)
    if wanted > best:
        return f"{SWITCH}={switch}, but the best that this processor has is {SETS[best]}"
    return Library(path, functions, wanted)


def _declare(functions: ctypes.CDLL) -> None:
    matrix = POINTER(CMatrix)
    functions.k2_best.argtypes = ()
    functions.k2_has_bf16.argtypes = ()
    functions.k2_linear.argtypes = (c_int, c_int, matrix, c_void_p, c_int64, c_void_p)
    functions.k2_linear.restype = None
    functions.k2_read.argtypes = (c_int, c_int, c_void_p, c_int64)
    functions.k2_read.restype = c_int64
    for advise in (functions.k2_expect_huge_pages, functions.k2_use_huge_pages):
        advise.argtypes = (c_void_p, c_int64)
        advise.restype = c_int64


def _path(folder: Path) -> Path:
    """Return where the build of exactly these sources lies."""
    digest = hashlib.sha256(" ".join((*FLAGS, platform.machine())).encode())
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return folder / f"{digest.hexdigest()[:16]}.so"


def _cache() -> Path:
    """Return `$KOSMOS2_CACHE/native`, else the user's cache folder."""
    if own := os.environ.get("KOSMOS2_CACHE"):
        return Path(own) / "native"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kosmos2" / "native"


def _compiler() -> list[str]:
    """Return the command of a C compiler: $CC, else gcc, cc or clang."""
    if own := os.environ.get("CC", "").split():
        if shutil.which(own[0]):
            return own
        raise MissingExtraError(f"CC={own[0]} is no command here; unset CC to use gcc, cc or clang")
    for name in ("gcc", "cc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise MissingExtraError(
        "the native kernels need a C compiler, and none of gcc, cc and clang is installed "
        "(Debian: apt install gcc). Everything works without them, only slower."
    )
