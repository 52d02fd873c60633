"""A device: what it is, what it can do at best, and how long things take on it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.machine import describe


@dataclass(frozen=True, slots=True)
class Probe:
    """How much is read and multiplied to find the limits."""

    bytes_read: int
    side: int
    """Of two square matrices."""


class Card:
    """Times work on one device; waits before it looks at the clock."""

    def __init__(self, device: torch.device, probe: Probe) -> None:
        self.device = device
        self._probe = probe
        self._memory_X = torch.ones(probe.bytes_read // 4, device=device)
        shape = (probe.side, probe.side)
        self._left = torch.randn(shape, device=device).to(torch.bfloat16)
        self._right = torch.randn(shape, device=device).to(torch.bfloat16)

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Let the device finish."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], times: int = 1) -> float:
        """Return seconds of one call, averaged over several without a wait between them."""
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - start) / times

    def bandwidth(self) -> float:
        """Return bytes a second of a plain sum over memory far larger than the caches."""
        return self._probe.bytes_read / self.seconds(self._memory_X.sum, 5)

    def rate(self) -> float:
        """Return operations a second of a large product in bf16."""
        return 2 * self._probe.side**3 / self.seconds(lambda: self._left @ self._right, 5)

    def facts(self) -> list[str]:
        """Return the machine, its software and the commit, a line each."""
        if not self.is_gpu:
            name = f"{platform.processor() or platform.machine()} (no GPU: a walk, not a result)"
        else:
            found = torch.cuda.get_device_properties(self.device)
            name = (
                f"{found.name}, {found.multi_processor_count} SMs, "
                f"{found.total_memory / 1e9:.0f} GB; driver {_driver()}"
            )
        return [
            name,
            f"torch {torch.__version__} (CUDA {torch.version.cuda or 'no'}), "
            f"triton {_version('triton')}, transformers {_version('transformers')}, "
            f"Python {platform.python_version()}",
            f"commit {describe()}, {time.strftime('%Y-%m-%d', time.gmtime())}",
        ]


def missing() -> str | None:
    """Return in one line what a measurement on a GPU lacks here, None if it lacks nothing."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a CUDA build of it"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device here (nvidia-smi tells whether the driver does)"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed, which CUDA builds of torch bring: pip install triton"
    return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    """Return the driver's version and the card's clock and power limits."""
    if shutil.which("nvidia-smi") is None:
        return "unknown (no nvidia-smi)"
    wanted = "driver_version,clocks.max.sm,clocks.max.memory,power.limit"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else "unknown"
