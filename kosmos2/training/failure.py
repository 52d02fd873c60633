"""The batches of a step whose loss or gradient was not finite, in a file to look into.

>>> failure = read(Path("runs/mine/failure-000123-rank0.pt"))
>>> failure.objectives
[2.13, nan]
>>> failure.batches[1].ids_BT
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from kosmos2.data.collate import Batch
from kosmos2.errors import TrainingError, one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What one rank was at."""

    step: int
    """Counted from 1, as in the log."""
    objectives: list[float]
    """The loss of each batch, as its share of the step's mean."""
    batches: list[Batch]


def write(folder: Path, rank: int, failure: Failure) -> Path:
    """Write the file, and return its path."""
    path = folder / f"failure-{failure.step:06d}-rank{rank}.pt"
    state = {
        "step": failure.step,
        "objectives": failure.objectives,
        "batches": [_tensors(batch) for batch in failure.batches],
    }
    torch.save(state, path)
    return path


def read(path: Path) -> Failure:
    """Return what `write` wrote; nothing in the file can run code."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        batches = [Batch(**tensors) for tensors in state["batches"]]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} holds no batches of ours ({one_line(error)})") from error
    return Failure(step=state["step"], objectives=state["objectives"], batches=batches)


def not_finite(step: int, loss: float, norm: float, folder: Path, written: Path) -> str:
    """Return what to tell the user."""
    what = "loss" if math.isfinite(norm) else "gradient"
    return (
        f"step {step}: the {what} is not finite (loss {loss}, gradient norm {norm}). The batches "
        f"are in {written} (kosmos2.training.failure.read). Start a new run with a lower learning "
        f'rate; start_from = "{folder}" gives it the weights of the last checkpoint.'
    )


def _tensors(batch: Batch) -> dict[str, object]:
    values = {each.name: getattr(batch, each.name) for each in fields(batch)}
    return {
        name: value.detach().cpu() if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }
