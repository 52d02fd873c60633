"""Who takes part: built when first needed, from one set of weights, and let go together."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from benchmarks import peer, weights
from benchmarks.names import is_native, is_ours, precision_of
from benchmarks.ours import Ours
from benchmarks.side import Contestant
from benchmarks.weights import source_of
from kosmos2.engine import build
from kosmos2.engine.native_runner import fastest
from kosmos2.kernels import native
from kosmos2.kernels.kind import Precision
from kosmos2.model import ModelConfig, Network
from kosmos2.weights.parts import FloatParts

CPU = torch.device("cpu")


class Lineup:
    """The contestants over one set of random weights, each built at its first call."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._peer = peer.build(config)
        self._network: Network = weights.as_ours(self._peer.model.state_dict(), config)
        self._source = source_of(self._network)
        self._built: dict[str, Contestant] = {self._peer.name: self._peer}

    def get(self, names: Sequence[str]) -> list[Contestant]:
        """Return contestants by name."""
        for name in names:
            if name not in self._built:
                self._built[name] = self._build(name)
        return [self._built[name] for name in names]

    def keep_only(self, names: Sequence[str]) -> None:
        """Free the memory of all others; the first peer stays, its weights are everyone's."""
        stay = {self._peer.name, *names}
        self._built = {name: each for name, each in self._built.items() if name in stay}
        gc.collect()
        release()

    @property
    def network(self) -> Network:
        """Return our network over the same weights."""
        return self._network

    def _build(self, name: str) -> Contestant:
        precision = precision_of(name)
        if not is_ours(name):
            return peer.cast(self._peer, self.config, precision)
        with native_kernels("auto" if is_native(name) else "off"):
            # As `api.loading` makes them, from tensors in memory instead of a file.
            parts = FloatParts(self.config, self._source, Precision(precision), CPU)
            return Ours(fastest(build.build(parts)), name)


def release() -> None:
    """Give freed memory back to the system; glibc keeps what lies between things still in use."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def prepare_native() -> str:
    """Build the optional kernels if a compiler is there; return in one line what came of it."""
    if not native.available():
        try:
            native.build()
        except Exception as error:  # no compiler, or one that cannot: a line of the page
            return f"not built: {str(error).splitlines()[0]}"
    return native.status()


@contextmanager
def native_kernels(switch: str) -> Iterator[None]:
    """Let what is built inside use the native kernels ("auto") or not ("off")."""
    before = os.environ.get(native.SWITCH)
    os.environ[native.SWITCH] = switch
    try:
        yield
    finally:
        if before is None:
            del os.environ[native.SWITCH]
        else:
            os.environ[native.SWITCH] = before
