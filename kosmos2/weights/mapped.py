"""One safetensors file mapped into memory: a tensor costs nothing until it is used."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kosmos2.weights.tensors import Spec, open_safetensors


@dataclass(frozen=True, slots=True, eq=False)
class MappedFile:
    """Tensors that lie in the file. The file must not change while they are in use."""

    path: Path
    specs: Mapping[str, Spec]
    starts: Mapping[str, int]
    """Where a tensor begins in the file."""
    memory: mmap.mmap

    @classmethod
    def open(cls, path: Path) -> MappedFile:
        """Map a file; refuses one that is cut short or is no safetensors."""
        specs = open_safetensors(path).specs  # the library checks the header, so what follows fits
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            # A private map can be written to in theory, which is what torch wants of a tensor.
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        starts = {name: 8 + length + header[name]["data_offsets"][0] for name in specs}
        return cls(path, specs, starts, memory)

    def read(self, name: str) -> Tensor:
        """Return a tensor that lies in the map."""
        spec = self.specs[name]
        count = spec.num_bytes() // spec.dtype.itemsize
        flat = torch.frombuffer(
            self.memory, dtype=spec.dtype, count=count, offset=self.starts[name]
        )
        return flat.view(spec.shape)

    def release(self, name: str) -> None:
        """Give the memory of a tensor back to the system; it stays readable."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return  # such a system takes pages back when it needs them
        start = self.starts[name]
        stop = start + self.specs[name].num_bytes()
        start -= start % mmap.PAGESIZE
        self.memory.madvise(mmap.MADV_DONTNEED, start, stop - start)
