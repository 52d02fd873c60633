"""Work of fixed shapes over fixed memory, recorded once and replayed: CUDA graphs, on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from kosmos2.engine.cache import RowCache
from kosmos2.kernels.operations import Places
from kosmos2.model import TextConfig

FoundT = TypeVar("FoundT")

Size = tuple[int, int]
"""Rows of a program, and the most tokens that one of them holds."""


class Recorder(Protocol):
    """Makes work cheaper to repeat."""

    def record(self, work: Callable[[], FoundT]) -> Callable[[], FoundT]:
        """Return a function that does the work again; its results may be at the same place."""
        ...


class CallAgain:
    """The recorder of devices without graphs."""

    def record(self, work: Callable[[], FoundT]) -> Callable[[], FoundT]:
        """Return the work itself."""
        return work


class CudaGraphs:
    """The recorder of CUDA devices. Its graphs share memory, so they run one at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], FoundT]) -> Callable[[], FoundT]:
        """Run the work twice, so that kernels are compiled and libraries awake; then record it."""
        with torch.cuda.device(self._device):
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                work()
                work()
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the device meanwhile, say for pictures.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                found = work()

        def replay() -> FoundT:
            graph.replay()
            return found

        return replay


def recorder_for(device: torch.device) -> Recorder:
    """Return the recorder of a device."""
    return CudaGraphs(device) if device.type == "cuda" else CallAgain()


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The memory that a program of R rows reads; the last of them may be spare."""

    numbers_3R: Tensor
    """Ids, rows of the cache, lengths; int32."""
    x_RD: Tensor
    """What the first block reads, for programs that begin there."""
    starts_R: Tensor
    """0, 1, ..., R: one token a row."""
    places_SD: Tensor
    """The sinusoids of padding, at index 0, and behind them of the token of every slot."""
    num_slots: int

    @property
    def ids_R(self) -> Tensor:
        return self.numbers_3R[0]

    @property
    def lengths_R(self) -> Tensor:
        return self.numbers_3R[2]

    @property
    def places(self) -> Places:
        return Places(self.numbers_3R[1], self.lengths_R, self.starts_R)

    def put(self, ids: Sequence[int], first: int, lengths: Sequence[int], spare: int) -> None:
        """Place one token in each row from `first` on; the rows that are too many in `spare`."""
        beyond = len(self.starts_R) - 1 - len(ids)
        rows = [*range(first, first + len(ids)), *[spare] * beyond]
        numbers = [[*ids, *[0] * beyond], rows, [*lengths, *[0] * beyond]]
        self.numbers_3R.copy_(pinned(numbers, self.numbers_3R.device), non_blocking=True)


class Program(Generic[FoundT]):
    """Recorded work and the memory that it reads."""

    def __init__(self, inputs: Inputs, replay: Callable[[], FoundT]) -> None:
        self.inputs = inputs
        self.replay = replay


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What is behind one more token of each row, and which one the model itself would take."""

    logits_RV: Tensor
    """float32."""
    ids_R: Tensor
    """The most probable next tokens, int32."""
    logprobs_R: Tensor

    def first(self, num_rows: int) -> Decoded:
        """Return copies for the first rows: the next step overwrites the originals."""
        return Decoded(
            self.logits_RV[:num_rows].clone(),
            self.ids_R[:num_rows].clone(),
            self.logprobs_R[:num_rows].clone(),
        )


class CapturedCache(RowCache):
    """A cache with one row more than it tells, for rows that are there to fill a program."""

    def __init__(
        self,
        config: TextConfig,
        num_rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(config, num_rows + 1, capacity, dtype, device)
        # Programs know this memory and no other.
        self.from_vectors: dict[Size, Program[Tensor]] = {}
        self.from_tokens: dict[Size, Program[Decoded]] = {}

    @property
    def num_rows(self) -> int:
        return self.spare

    @property
    def spare(self) -> int:
        """The row that nobody uses."""
        return self.memory.shape[1] - 1

    def grow(self, num_rows: int, capacity: int) -> None:
        """Take more memory; what is held stays, programs are made anew."""
        super().grow(num_rows + 1, capacity)
        self.from_vectors.clear()
        self.from_tokens.clear()


def pinned(numbers: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return int32 numbers on the host, from where the device can fetch them by itself."""
    host = torch.tensor([list(row) for row in numbers], dtype=torch.int32)
    return host.pin_memory() if device.type == "cuda" else host


class Uploads:
    """Pictures on their way to a device, beside what it is doing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )

    def send(self, pixels: Tensor) -> Tensor:
        """Return the pixels on the device; later work there waits for them, the host does not."""
        if self._stream is None or pixels.device.type != "cpu":
            return pixels.to(self._device)
        working = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            sent = pixels.pin_memory().to(self._device, non_blocking=True)
        working.wait_stream(self._stream)
        sent.record_stream(working)
        return sent
