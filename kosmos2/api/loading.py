"""From a name to a runner: which device, which numbers, which weights."""

from __future__ import annotations

from pathlib import Path

import torch

from kosmos2.engine import Runner
from kosmos2.engine.build import consuming
from kosmos2.errors import ConfigError, one_line
from kosmos2.kernels.kind import Precision
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import load_pretrained


def load_runner(
    name_or_path: str | Path, precision: Precision, device: torch.device
) -> tuple[Runner, Tokenizer]:
    """Return the model of a name, its matrices packed for the device, and its tokenizer."""
    dtype = torch.float32 if precision.is_quantized else precision.activations(device)
    pretrained = load_pretrained(name_or_path, dtype=dtype, device=device)
    return consuming(pretrained.network, precision), pretrained.tokenizer


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"the device {name!r} is not here ({one_line(error)}); use cpu, or auto"
        ) from error
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision of that name.

    "auto" is bf16 where the device multiplies it in hardware, fp32 otherwise.
    """
    if name == "auto":
        return Precision.BF16 if multiplies_bf16(device) else Precision.FP32
    if name not in list(Precision):
        raise ConfigError(f"dtype must be one of {', '.join(['auto', *Precision])}, got {name!r}")
    return Precision(name)


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
