"""The number types that a model can run in, by name."""

from __future__ import annotations

from enum import StrEnum

import torch


class Precision(StrEnum):
    """How the matrices of a model are stored and multiplied."""

    FP64 = "fp64"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    """Weights in e4m3 with one scale a row; products in the type of the activations."""
    INT8 = "int8"
    """Weights in 8 bits with one scale a row; activations rounded to 8 bits row by row."""
    INT4 = "int4"
    """Weights in 4 bits with a scale for every 128; the embedding keeps 8 bits."""

    def activations(self, device: torch.device) -> torch.dtype:
        """Return the type of everything that is no quantised matrix."""
        if self in _FLOATS:
            return _FLOATS[self]
        return torch.float32 if device.type == "cpu" else torch.bfloat16

    @property
    def is_quantized(self) -> bool:
        """Tell whether weights are rounded to fewer bits than the activations have."""
        return self not in _FLOATS


_FLOATS = {
    Precision.FP64: torch.float64,
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
