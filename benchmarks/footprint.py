"""Memory and loading time of whole programs: the network is saved in every form, and each form
loaded by a fresh process of either side (`process_ours`, `process_peer`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import ROOT, Load
from benchmarks.names import NATIVE, is_native, is_ours, precision_of
from benchmarks.weights import source_of
from kosmos2.kernels import native
from kosmos2.kernels.kind import Precision
from kosmos2.model import Network
from kosmos2.weights import huggingface, quantized
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.tensors import (
    CastSource,
    RenamedSource,
    StateSource,
    write_file,
    write_safetensors,
)

FLOATS = ("transformers fp32", "transformers bf16", "ours fp32", "ours bf16", "ours bf16 native")
FEW_BITS = ("ours int8", *NATIVE)


def measure(network: Network) -> dict[str, Any]:
    """Save the network in every form, then load each form in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as root, Load() as load:
        plain = Path(root) / "bf16"
        save_floats(network, plain)
        rows += [in_a_process(name, plain) for name in FLOATS if _can_run(name)]
        for precision in quantized.STORED:
            folder = Path(root) / precision
            save_few_bits(network, folder, precision)
            rows += [
                in_a_process(name, folder)
                for name in FEW_BITS
                if precision_of(name) == precision and _can_run(name)
            ]
    return {"rows": rows, "others": load.others}


def _can_run(name: str) -> bool:
    return native.available() or not is_native(name)


def save_floats(network: Network, folder: Path) -> None:
    """Write a model folder in bf16, as transformers reads it, without a tokenizer."""
    state = StateSource({name: each.detach() for name, each in network.named_parameters()})
    names = {HUGGINGFACE.theirs(ours): ours for ours in state.state}
    _save_config(folder, huggingface.format_config(network.config, torch.bfloat16))
    write_safetensors(
        folder,
        CastSource(RenamedSource(state, names), torch.bfloat16),
        max_shard_bytes=huggingface.MAX_SHARD_BYTES,
        on_tensor=_ignore,
    )


def save_few_bits(network: Network, folder: Path, precision: Precision) -> None:
    """Write a folder of few bits, without a tokenizer."""
    rounded = quantized.RoundedSource(
        source_of(network),
        quantized.quantized_specs(network.config, precision),
        quantized.rounding_to(precision),
    )
    content = huggingface.format_config(network.config, torch.float32)
    content[quantized.KEY] = {"format": quantized.FORMAT, "precision": str(precision)}
    _save_config(folder, content)
    write_file(quantized.weight_file(folder, precision), rounded.specs, rounded, _ignore)


def _save_config(folder: Path, content: Mapping[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def in_a_process(name: str, folder: Path) -> dict[str, Any]:
    """Return seconds and gigabytes of a fresh process that loads this folder."""
    switch = "auto" if is_native(name) else "off"
    module = "benchmarks.process_ours" if is_ours(name) else "benchmarks.process_peer"
    arguments = [precision_of(name), str(folder), str(torch.get_num_threads())]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, native.SWITCH: switch},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {"name": name, "file": size / 1e9, **found}


def _ignore(_name: str) -> None:
    """Report no progress."""
