"""One checkpoint format into the other, or into another number type, without a network in memory.

Tensors go from file to file, one at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from kosmos2.errors import WeightsError
from kosmos2.kernels.kind import Precision
from kosmos2.weights import fairseq, huggingface, quantized
from kosmos2.weights.fused import fuse
from kosmos2.weights.mapping import HUGGINGFACE, ORIGINAL
from kosmos2.weights.pretrained import Checkpoint, open_checkpoint, resolve
from kosmos2.weights.tensors import (
    CastSource,
    RenamedSource,
    TensorSource,
    match_source,
    parameter_shapes,
    sha256,
    skeleton,
)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "sentencepiece.bpe.model",
    "dict.txt",
)


class Format(StrEnum):
    HUGGINGFACE = "huggingface"
    """A folder that transformers loads."""
    ORIGINAL = "original"
    """One `.pt` file with the names of the released one, its tokenizer beside it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor that has been read."""

    tensor: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Written:
    """One file of weights that was made."""

    path: Path
    sha256: str

    def __str__(self) -> str:
        """Return a line that `sha256sum --check` reads."""
        return f"{self.sha256}  {self.path.name}"


def convert(
    source: str | Path,
    target: Path,
    *,
    to: Format,
    dtype: torch.dtype | None = None,
    progress: Callable[[Step], None],
    max_shard_bytes: int = huggingface.MAX_SHARD_BYTES,
) -> tuple[Written, ...]:
    """Write the model of that name or path in a format; return the files of weights made.

    Everything is checked before anything is written. A dtype of None keeps every tensor's own.
    """
    checkpoint = open_checkpoint(resolve(source))
    tokenizer = checkpoint.read_tokenizer()
    layout = HUGGINGFACE if to is Format.HUGGINGFACE else ORIGINAL
    parameters = parameter_shapes(skeleton(checkpoint.config))
    matched = match_source(checkpoint.layout, checkpoint.source, parameters)
    names = {layout.theirs(ours): theirs for ours, theirs in matched.items()}
    tensors: TensorSource = RenamedSource(checkpoint.source, names)
    if dtype is not None:
        tensors = CastSource(tensors, dtype)

    count = _Count(len(names), progress)
    if to is Format.HUGGINGFACE:
        _check_folder(target)
        files = huggingface.write(
            checkpoint.config,
            tensors,
            tokenizer,
            target,
            max_shard_bytes=max_shard_bytes,
            on_tensor=count,
        )
    else:
        _check_file(target, checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        fairseq.write(checkpoint.config, tensors, target, on_tensor=count)
        for name in _tokenizer_files(checkpoint.folder):
            if not (target.parent / name).exists():
                shutil.copyfile(checkpoint.folder / name, target.parent / name)
        files = (target,)
    return tuple(Written(path, sha256(path)) for path in files)


def convert_to_few_bits(
    source: str | Path,
    target: Path,
    *,
    precision: Precision,
    rounding: quantized.Rounding,
    progress: Callable[[Step], None],
) -> Written:
    """Write the model of that name or path into a folder in int8 or int4.

    `quantized.rounding_to` rounds by the weights alone.
    """
    checkpoint = open_checkpoint(resolve(source))
    tokenizer = checkpoint.read_tokenizer()
    weights = fuse(checkpoint.config, checkpoint.layout, checkpoint.source)
    _check_folder(target)
    path = quantized.save(
        checkpoint.config,
        weights,
        tokenizer,
        target,
        precision=precision,
        rounding=rounding,
        on_tensor=_Count(len(quantized.quantized_specs(checkpoint.config, precision)), progress),
    )
    return Written(path, sha256(path))


class _Count:
    """Turns the names of tensors into numbered steps."""

    def __init__(self, total: int, progress: Callable[[Step], None]) -> None:
        self.done = 0
        self.total = total
        self.progress = progress

    def __call__(self, tensor: str) -> None:
        self.done += 1
        self.progress(Step(tensor, self.done, self.total))


def _check_folder(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError(f"{target} is there and is not an empty folder. Name a new one.")


def _check_file(target: Path, checkpoint: Checkpoint) -> None:
    """Refuse to overwrite, and to lie beside a tokenizer of other weights."""
    if target.suffix != ".pt" or target.exists():
        raise WeightsError(f"{target} must be a new file whose name ends in .pt")
    for name in _tokenizer_files(target.parent):
        ours, theirs = checkpoint.folder / name, target.parent / name
        if not ours.is_file() or ours.read_bytes() != theirs.read_bytes():
            raise WeightsError(
                f"{theirs} is the tokenizer of another model. Put {target.name} into a folder of "
                "its own, because it is read with the tokenizer beside it."
            )


def _tokenizer_files(folder: Path) -> tuple[str, ...]:
    return tuple(name for name in TOKENIZER_FILES if (folder / name).is_file())
