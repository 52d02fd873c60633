"""A run's state, written by all its ranks, whole or not at all; any number of ranks reads it.

OUT/checkpoints/step-00000500/          renamed from step-00000500.partial when it is whole
    checkpoint.json                     step, number of ranks, the recipe
    __0_0.distcp  .metadata             tensors alone, by torch.distributed.checkpoint

Earlier releases wrote one file, OUT/checkpoint.pt; such a run can be gone on with, and then
writes the new form. Nothing in either form can run code when it is read.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from kosmos2.errors import TrainingError, one_line
from kosmos2.training.ranks import Ranks
from kosmos2.training.recipe import CheckpointsRecipe
from kosmos2.training.tensorsonly import Reader, TensorsOnly

FOLDER = "checkpoints"
NOTE = "checkpoint.json"
OLD_FILE = "checkpoint.pt"
TRAINED = "trained."
"""Before the names of weights among the tensors of a checkpoint."""
_DAMAGE = (RuntimeError, OSError, EOFError, ValueError, KeyError, AssertionError)


class Checkpoints:
    """Writes the checkpoints of one run and removes those that need not stay."""

    def __init__(self, folder: Path, recipe: CheckpointsRecipe, ranks: Ranks) -> None:
        self.folder = folder / FOLDER
        self.recipe = recipe
        self.ranks = ranks
        self._pending: tuple[Future[Any], int] | None = None
        self._group = None
        if recipe.asynchronous and ranks.size > 1:  # training must not hear what writers say
            self._group = dist.new_group(backend="gloo")

    def save(self, step: int, tensors: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> None:
        """Write a checkpoint, or begin to; every rank gives its part of the tensors."""
        self.finish()
        partial = _partial(self.folder, step)
        if self.ranks.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            note = {"step": step, "ranks": self.ranks.size, "recipe": recipe}
            (partial / NOTE).write_text(json.dumps(note), encoding="utf-8")
        self.ranks.wait()
        writer = FileSystemWriter(partial, thread_count=1)  # it ends with fsync
        with _quiet():
            if self.recipe.asynchronous:
                future = state_dict_saver.async_save(
                    dict(tensors), storage_writer=writer, process_group=self._group
                )
                assert isinstance(future, Future)
                self._pending = future, step
                return
            state_dict_saver.save(dict(tensors), storage_writer=writer)
        self._publish(step)

    def look(self) -> None:
        """Take up a checkpoint that was finished in the background, if there is one."""
        if self._pending is not None and self._pending[0].done():
            self.finish()

    def finish(self) -> None:
        """Return when nothing is being written any more."""
        if self._pending is None:
            return
        (future, step), self._pending = self._pending, None
        try:
            future.result()
        except (CheckpointException, *_DAMAGE) as error:
            raise TrainingError(
                f"the checkpoint of step {step} could not be written: {_reason(error)}"
            ) from error
        self._publish(step)

    def _publish(self, step: int) -> None:
        if not self.ranks.is_first:
            return
        final = place(self.folder.parent, step)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(_partial(self.folder, step), final)
        descriptor = os.open(self.folder, os.O_RDONLY)
        os.fsync(descriptor)  # or a power cut could take the new name back
        os.close(descriptor)
        there = steps(self.folder.parent)
        every = self.recipe.keep_every
        for old in there[: -self.recipe.keep]:
            if not (every and old % every == 0):
                shutil.rmtree(place(self.folder.parent, old))


def place(folder: Path, step: int) -> Path:
    """Return where a run's checkpoint of a step is."""
    return folder / FOLDER / f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """Return the steps of a run's whole checkpoints, rising."""
    found = (folder / FOLDER).glob(f"step-????????/{NOTE}")
    return sorted(int(path.parent.name.removeprefix("step-")) for path in found)


def exists(folder: Path) -> bool:
    """Tell whether a folder holds a run that can be gone on with."""
    return bool(steps(folder)) or (folder / OLD_FILE).is_file()


def check_present(folder: Path) -> None:
    """Refuse a folder without a checkpoint."""
    if not exists(folder):
        raise TrainingError(
            f"no checkpoint in {folder / FOLDER}. Start that run first, without --resume."
        )


def read_note(path: Path) -> dict[str, Any]:
    """Return step, ranks and recipe of a checkpoint."""
    try:
        note: dict[str, Any] = json.loads((path / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} is damaged, or no checkpoint ({_reason(error)})") from error
    return note


def names(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Return shape and type of all tensors of a checkpoint."""
    try:
        metadata = Reader(path).read_metadata()
        return {
            name: (each.size, each.properties.dtype)
            for name, each in metadata.state_dict_metadata.items()
            if isinstance(each, TensorStorageMetadata)
        }
    except (pickle.UnpicklingError, AttributeError, *_DAMAGE) as error:
        raise TrainingError(f"{path} is damaged, or no checkpoint ({_reason(error)})") from error


def load(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill the tensors, or this rank's parts of them, from the checkpoint; every rank calls it."""
    try:
        with _quiet():
            state_dict_loader.load(
                dict(tensors), storage_reader=Reader(path), planner=TensorsOnly()
            )
    except (pickle.UnpicklingError, CheckpointException, *_DAMAGE) as error:
        raise TrainingError(f"{path} is damaged, or no checkpoint ({_reason(error)})") from error


def weights(folder: Path, step: int) -> dict[str, Tensor]:
    """Return the weights of a run's checkpoint on this machine's processor: `network.*`, ...

    Each rank that calls it reads all of them.
    """
    if step not in steps(folder):
        return read_old(folder)["trained"]  # type: ignore[no-any-return]
    path = place(folder, step)
    tensors = {
        name: torch.empty(size, dtype=dtype)
        for name, (size, dtype) in names(path).items()
        if name.startswith(TRAINED)
    }
    try:
        with _quiet():
            state_dict_loader.load(
                dict(tensors), storage_reader=Reader(path), planner=TensorsOnly(), no_dist=True
            )
    except (pickle.UnpicklingError, CheckpointException, *_DAMAGE) as error:
        raise TrainingError(f"{path} is damaged, or no checkpoint ({_reason(error)})") from error
    return {name.removeprefix(TRAINED): tensor for name, tensor in tensors.items()}


def last(folder: Path) -> int:
    """Return the step of a run's last checkpoint; -1: there is only that of an earlier release."""
    check_present(folder)
    return max(steps(folder), default=-1)


def read_old(folder: Path) -> dict[str, Any]:
    """Return the state in the file of an earlier release."""
    path = folder / OLD_FILE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} is damaged, or no checkpoint of ours ({_reason(error)})"
        ) from error
    return state


def _partial(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.partial"


def _reason(error: BaseException) -> str:
    """Return the first line of the first cause."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return one_line(str(error).strip().partition("\n")[0] or type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the warning that one process alone handles a distributed checkpoint."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
