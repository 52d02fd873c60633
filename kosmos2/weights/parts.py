"""The parts of an engine, made one by one from a file: the whole network is never in memory twice.

Parts go by the names of `weights.fused`, without `.weight` and `.bias`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import (
    Linear,
    Table,
    pack,
    pack_quantized,
    pack_quantized_table,
    pack_table,
)
from kosmos2.kernels.quantized import Int8
from kosmos2.model import ModelConfig
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights.fused import FusedSource, fuse
from kosmos2.weights.huggingface import check_vocabulary
from kosmos2.weights.pretrained import open_checkpoint
from kosmos2.weights.quantized import QuantizedFolder, read_quantized, stored_precision

MANY_ROWS = 257
"""What the layers of the vision tower and the resampler multiply at once: a picture's patches."""


def open_parts(
    path: Path, precision: Precision, device: torch.device
) -> tuple[FloatParts | QuantizedParts, Tokenizer]:
    """Return the parts of a resolved folder or file and its tokenizer.

    A folder of few bits has one precision, which `quantized.stored_precision` tells.
    """
    if stored_precision(path) is None:
        checkpoint = open_checkpoint(path)
        source = fuse(checkpoint.config, checkpoint.layout, checkpoint.source)
        parts = FloatParts(checkpoint.config, source, precision, device)
        return parts, checkpoint.read_tokenizer()
    folder = read_quantized(path, precision)
    tokenizer = Tokenizer.from_folder(path)
    check_vocabulary(tokenizer, folder.config, path)
    return QuantizedParts(folder, device), tokenizer


class FloatParts:
    """The parts of a checkpoint in floating point, in any precision."""

    def __init__(
        self,
        config: ModelConfig,
        source: FusedSource,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.config = config
        self.precision = precision
        self.device = device
        self._source = source

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that stays in floating point, in the type of the activations."""
        dtype = self.precision.activations(self.device)
        return self._source.read(name).to(device=self.device, dtype=dtype, copy=True)

    def linear(self, name: str) -> Linear:
        """Return a layer, packed."""
        return pack(
            self._source.read(f"{name}.weight").to(self.device),
            self._source.read(f"{name}.bias").to(self.device),
            self.precision,
            rows=1 if name.startswith("decoder.") else MANY_ROWS,
        )

    def table(self, name: str) -> Table:
        """Return the embedding."""
        weight_VD = self._source.read(f"{name}.weight").to(self.device)
        return pack_table(weight_VD, self.precision)


class QuantizedParts:
    """The parts of a folder of few bits. On a CPU they use the mapped file where a kernel can."""

    def __init__(self, folder: QuantizedFolder, device: torch.device) -> None:
        self.config = folder.config
        self.precision = folder.precision
        self.device = device
        self._folder = folder

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that stays in floating point, in the type of the activations."""
        tensor = self._folder.read(name)
        assert isinstance(tensor, Tensor), name
        dtype = self.precision.activations(self.device)
        return tensor.to(device=self.device, dtype=dtype, copy=True)

    def linear(self, name: str) -> Linear:
        """Return a layer, packed."""
        matrix = self._folder.read(f"{name}.weight")
        assert not isinstance(matrix, Tensor), name
        layer = pack_quantized(matrix.to(self.device), self.tensor(f"{name}.bias"))
        self._folder.release(f"{name}.weight")
        return layer

    def table(self, name: str) -> Table:
        """Return the embedding; only the rows that are looked up come into memory."""
        matrix = self._folder.read(f"{name}.weight")
        assert isinstance(matrix, Int8), name
        table = pack_quantized_table(matrix.to(self.device))
        self._folder.release(f"{name}.weight")
        return table
