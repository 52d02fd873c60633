"""`python -m benchmarks.process_ours PRECISION FOLDER THREADS`: see `process`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.ours import Ours
from benchmarks.process import report
from kosmos2.engine import build
from kosmos2.engine.native_runner import fastest
from kosmos2.kernels.kind import Precision
from kosmos2.weights import huggingface, quantized
from kosmos2.weights.fused import fuse
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.parts import FloatParts, QuantizedParts

CPU = torch.device("cpu")


def load(folder: Path, name: str) -> Ours:
    """Return our side from either kind of folder."""
    precision = Precision(name)
    if quantized.stored_precision(folder):
        parts: FloatParts | QuantizedParts = QuantizedParts(
            quantized.read_quantized(folder, precision), CPU
        )
    else:
        config = huggingface.read_config(folder)
        source = fuse(config, HUGGINGFACE, huggingface.open_tensors(folder))
        parts = FloatParts(config, source, precision, CPU)
    return Ours(fastest(build.build(parts)), f"ours {precision}")


if __name__ == "__main__":
    report(load, *sys.argv[1:])
