"""From a name to a runner: which device, which numbers, which weights."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from kosmos2.engine import Runner
from kosmos2.engine.build import build
from kosmos2.engine.capture import CapturedRunner
from kosmos2.engine.native_runner import fastest
from kosmos2.errors import ConfigError, one_line
from kosmos2.kernels.kind import Precision
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights.parts import open_parts
from kosmos2.weights.pretrained import resolve
from kosmos2.weights.quantized import stored_precision

CAPTURE = "KOSMOS2_CAPTURE"
"""Set to "on" to record the decode step as CUDA graphs. Off by itself: it has yet to see a GPU."""


def load_runner(
    name_or_path: str | Path, dtype: str, device: torch.device
) -> tuple[Runner, Tokenizer]:
    """Return the model of a name, packed for the device part by part, and its tokenizer.

    The dtype "auto" is what a folder of few bits holds; else see `choose_precision`.
    """
    path = resolve(name_or_path)
    parts, tokenizer = open_parts(path, precision_of(path, dtype, device), device)
    runner = build(parts)
    if device.type == "cuda" and os.environ.get(CAPTURE) == "on":
        return CapturedRunner.of(runner), tokenizer
    return fastest(runner), tokenizer


def precision_of(path: Path, dtype: str, device: torch.device) -> Precision:
    """Return the precision that a model would be loaded in; reads no weights."""
    stored = stored_precision(path) if path.is_dir() else None
    if stored is not None and dtype == "auto":
        return stored
    return choose_precision(dtype, device)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"the device {name!r} is not here ({one_line(error)}); use cpu, or auto"
        ) from error
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision of that name.

    "auto" is bf16 where the device multiplies it in hardware, fp32 otherwise.
    """
    if name == "auto":
        return Precision.BF16 if multiplies_bf16(device) else Precision.FP32
    if name not in list(Precision):
        raise ConfigError(f"dtype must be one of {', '.join(['auto', *Precision])}, got {name!r}")
    return Precision(name)


def use_physical_cores() -> None:
    """Let torch compute with one thread for each core that this process may use.

    Two threads of one core share its multipliers: a second one only makes both wait.
    """
    wanted = os.environ.get("KOSMOS2_THREADS") or os.environ.get("OMP_NUM_THREADS")
    if wanted is not None and not (wanted.isdecimal() and int(wanted)):
        raise ConfigError(f"KOSMOS2_THREADS must be a number of threads, got {wanted!r}")
    torch.set_num_threads(int(wanted) if wanted else min(torch.get_num_threads(), _allowed_cpus()))


def _allowed_cpus() -> int:
    """Return the processors that affinity and the container's quota leave to this process."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        share, _, period = quota.read_text(encoding="ascii").partition(" ")
        if share.isdecimal():
            return max(1, min(cpus or 1, int(share) // int(period)))
    return cpus or 1


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
