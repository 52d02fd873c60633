"""A run's state in one file, written whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from kosmos2.errors import TrainingError, one_line

FILE = "checkpoint.pt"


def write(folder: Path, state: dict[str, Any]) -> Path:
    """Write the checkpoint beside its place, then move it there; a kill leaves the old one."""
    path = folder / FILE
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # or a power cut after the move could leave an empty file
    os.replace(partial, path)
    return path


def check_present(folder: Path) -> None:
    """Refuse a folder without a checkpoint."""
    path = folder / FILE
    if not path.is_file():
        raise TrainingError(f"no checkpoint at {path}. Start that run first, without --resume.")


def read(folder: Path) -> dict[str, Any]:
    """Return the state that `write` saved; nothing in the file can run code."""
    check_present(folder)
    path = folder / FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = one_line(str(error).partition("\n")[0])
        raise TrainingError(f"{path} is damaged, or no checkpoint of ours ({reason})") from error
    return state
