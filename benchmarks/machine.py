"""What a number was measured on, and who else was using it at the time."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import torch

from kosmos2.kernels import native

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (
    "THP_MEM_ALLOC_ENABLE", "OMP_NUM_THREADS", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY",
    "ONEDNN_MAX_CPU_ISA", "LD_PRELOAD", "KOSMOS2_NATIVE",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When, where and with what a section was measured."""

    commit: str
    """As `git describe` says; ends with "-dirty" where files differ from the commit."""
    date: str
    processor: str
    features: tuple[str, ...]
    cores: int
    memory_gb: float
    threads: int
    torch: str
    transformers: str
    python: str
    native: str
    """The optional kernels: instruction set, or why they are not there."""
    settings: tuple[str, ...]
    """Variables of the environment that change how torch and the kernels run."""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def stamp() -> Stamp:
    """Return the stamp of this moment."""
    return Stamp(
        commit=describe(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_cpuinfo("model name"),
        features=features(_cpuinfo("flags").split()),
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        transformers=version("transformers"),
        python=platform.python_version(),
        native=native.status().split(",")[0],
        settings=tuple(f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ),
    )


def describe() -> str:
    """Return the commit of this checkout, "unknown" where there is none."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def features(flags: list[str]) -> tuple[str, ...]:
    """Return what of the processor's abilities decides which kernels run."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "asimd")
    return tuple(flag for flag in wanted if flag in flags)


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in found if name.strip() == key), "unknown")


class Load:
    """A `with` block that knows afterwards how busy the others kept the processors meanwhile."""

    others: float
    """Share of all processors' time that other processes and other machines took, 0 to 1."""

    def __enter__(self) -> Load:
        self._start = _clocks()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.others = others_share(self._start, _clocks())


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds that the processors were busy (stolen time included), and that this process was."""

    wall: float
    busy: float
    own: float


def others_share(before: Clocks, after: Clocks, cores: int | None = None) -> float:
    """Return the share of the processors' time that went to others between two readings."""
    available = (after.wall - before.wall) * (cores or os.cpu_count() or 1)
    others = (after.busy - before.busy) - (after.own - before.own)
    return min(1.0, max(0.0, others / available)) if available else 0.0


def _clocks() -> Clocks:
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    path = Path("/proc/stat")
    if not path.is_file():
        return Clocks(time.monotonic(), own, own)
    fields = [int(field) for field in path.read_text(encoding="utf-8").split("\n")[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields[:8]
    ticks = user + nice + system + irq + softirq + steal
    return Clocks(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own)


def peak_memory() -> dict[str, float]:
    """Return GB of this process: the most it ever had resident, and what that is made of now."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    wanted = {"peak": "VmHWM", "anonymous": "RssAnon", "file": "RssFile"}
    return {name: int(fields[key].split()[0]) * 1024 / 1e9 for name, key in wanted.items()}
