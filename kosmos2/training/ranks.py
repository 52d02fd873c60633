"""The processes that train together: who this one is, and what they tell each other.

Without torchrun there is one, and nothing here talks to anybody.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from kosmos2.errors import TrainingError

TIMEOUT = datetime.timedelta(hours=2)
"""Longest wait of one rank for another: rank 0 evaluates alone. A rank that ends, torchrun sees."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `size` that train together."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Tell whether this process is the one that writes and reports."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """Return the largest of the numbers of all ranks."""
        if self.size == 1:
            return number
        numbers = [0] * self.size
        dist.all_gather_object(numbers, number)
        return max(numbers)

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Ranks()


@contextmanager
def joined(
    kind: Literal["none", "ddp", "fsdp"], device: torch.device
) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun started, and give this one's number and device."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if kind == "none":
        if size > 1:
            raise TrainingError(
                f"torchrun started {size} processes, but parallel.kind is 'none'. "
                "Pass --set parallel.kind=ddp (or fsdp), or start one process."
            )
        yield ALONE, device
        return
    if "RANK" not in os.environ:
        raise TrainingError(
            f"parallel.kind is '{kind}', but torchrun did not start this process. Start "
            "`torchrun --nproc-per-node GPUS -m kosmos2 train ...`, or --set parallel.kind=none."
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # Checkpoints in the background talk over gloo, whatever the device.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
