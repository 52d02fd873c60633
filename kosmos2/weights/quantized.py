"""Models in few bits on disk: written tensor by tensor, read by memory map.

config.json               Hugging Face's, and the table kosmos2_quantization:
                              {"format": 1, "precision": "int4"}
model-int4.safetensors    tensors under the names of `weights.fused`; a matrix is two of them,
                              decoder.blocks.0.qkv.weight   U8    (3 * 2048, 2048 / 2)
                              decoder.blocks.0.qkv.scale    F16   (3 * 2048, 2048 / 128)
                          as `kernels.quantized` lays them out; all others are F32
tokenizer.json ...        as in every model folder
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kosmos2.errors import WeightsError
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import quantize, quantize_table
from kosmos2.kernels.quantized import GROUP, Int4, Int8, Quantized, fits_int4
from kosmos2.model import ModelConfig
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.fused import FusedSource, fused_specs, matrices
from kosmos2.weights.mapped import MappedFile
from kosmos2.weights.mapping import EMBEDDING
from kosmos2.weights.tensors import Spec, write_file

KEY = "kosmos2_quantization"
FORMAT = 1
STORED = (Precision.INT8, Precision.INT4)
"""The precisions that have files; fp8 is made when a model is loaded."""

Rounding = Callable[[str, Tensor], Quantized]
"""From the name and the numbers of a matrix to its few bits."""


def stored_precision(folder: Path) -> Precision | None:
    """Return the precision of a folder of few bits; None for any other folder or file."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8")).get(KEY)
    except (ValueError, AttributeError):
        return None  # `read_config` says what is wrong
    if table is None:
        return None
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: {KEY} is {table!r}, this release reads format {FORMAT}. "
            "Update kosmos2, or convert the model again."
        )
    if table.get("precision") not in STORED:
        raise WeightsError(f"{path}: {KEY}.precision must be one of {', '.join(STORED)}")
    return Precision(table["precision"])


def refuse_other(folder: Path, wanted: str) -> None:
    """Refuse a folder of few bits where other numbers are asked for."""
    stored = stored_precision(folder)
    if stored is not None and stored != wanted:
        raise WeightsError(
            f"{folder} holds {stored} weights, which cannot become {wanted} again. "
            f"Use dtype {stored}, or the model that it was converted from."
        )


def weight_file(folder: Path, precision: Precision) -> Path:
    """Return where the tensors of a folder are."""
    return folder / f"model-{precision}.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizedFolder:
    """A folder of few bits, opened: its tensors lie in the file until they are used."""

    folder: Path
    config: ModelConfig
    precision: Precision
    file: MappedFile

    def read(self, name: str) -> Tensor | Quantized:
        """Return a tensor or a matrix, where it lies in the map. It must not be written to."""
        tensor = self.file.read(name)
        if tensor.is_floating_point():
            return tensor
        scale = self.file.read(_scale(name))
        return Int4(tensor, scale) if tensor.dtype is torch.uint8 else Int8(tensor, scale)

    def release(self, name: str) -> None:
        """Give the memory of a tensor back; it comes again from the file if it is read again."""
        self.file.release(name)


def read_quantized(folder: Path, precision: Precision) -> QuantizedFolder:
    """Open a folder of few bits; refuses one that does not hold exactly its model."""
    refuse_other(folder, precision)
    if stored_precision(folder) is None:
        raise WeightsError(f"{folder} holds no weights in few bits. Use `kosmos2 convert` first.")
    config = huggingface.read_config(folder)
    file = MappedFile.open(weight_file(folder, precision))
    _check_specs(file, quantized_specs(config, precision))
    for name, spec in file.specs.items():
        if name.endswith(".scale") and not file.read(name).float().isfinite().all():
            raise WeightsError(f"{file.path}: {name} {spec.shape} holds infinite or no numbers")
    return QuantizedFolder(folder=folder, config=config, precision=precision, file=file)


def quantized_specs(config: ModelConfig, precision: Precision) -> Mapping[str, Spec]:
    """Return what the file of a model holds."""
    rounded = matrices(config)
    found: dict[str, Spec] = {}
    for name, spec in fused_specs(config).items():
        if name not in rounded:
            found[name] = Spec(spec.shape, torch.float32)
            continue
        rows, width = spec.shape
        if precision is Precision.INT4 and name != EMBEDDING and fits_int4(width):
            found[name] = Spec((rows, width // 2), torch.uint8)
            found[_scale(name)] = Spec((rows, width // GROUP), torch.float16)
        else:
            found[name] = Spec((rows, width), torch.int8)
            found[_scale(name)] = Spec((rows,), torch.float32)
    return found


@dataclass(frozen=True, slots=True)
class RoundedSource:
    """Floating-point weights in few bits, rounded one by one as they are read."""

    source: FusedSource
    specs: Mapping[str, Spec]
    rounding: Rounding
    _scales: dict[str, Tensor] = field(default_factory=dict)
    """Of matrices that have been read; a scale is read once, after its matrix or before."""

    def read(self, name: str) -> Tensor:
        """Return a tensor of the file."""
        if name in self._scales:
            return self._scales.pop(name)
        if _scale(name) in self.specs:
            weight, self._scales[_scale(name)] = _tensors(self._round(name))
            return weight
        if name not in self.source.parts:
            return _tensors(self._round(name.removesuffix(".scale") + ".weight"))[1]
        return self.source.read(name).float()

    def _round(self, name: str) -> Quantized:
        return self.rounding(name, self.source.read(name))


def rounding_to(precision: Precision) -> Rounding:
    """Return the rounding that looks at nothing but the numbers."""

    def rounding(name: str, weight_NK: Tensor) -> Quantized:
        return quantize_table(weight_NK) if name == EMBEDDING else quantize(weight_NK, precision)

    return rounding


def save(
    config: ModelConfig,
    source: FusedSource,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    precision: Precision,
    rounding: Rounding,
    on_tensor: Callable[[str], None],
) -> Path:
    """Write a folder of few bits, one matrix in memory at a time; return the file of weights."""
    if precision not in STORED:
        raise WeightsError(f"files hold {' or '.join(STORED)}, not {precision}")
    rounded = RoundedSource(source, quantized_specs(config, precision), rounding)
    path = weight_file(folder, precision)
    content = huggingface.format_config(config, torch.float32)
    content[KEY] = {"format": FORMAT, "precision": str(precision)}
    huggingface.write_settings(config, content, tokenizer, folder)
    write_file(path, rounded.specs, rounded, on_tensor)
    return path


def _tensors(matrix: Quantized) -> tuple[Tensor, Tensor]:
    if isinstance(matrix, Int4):
        return matrix.packed_NK, matrix.scale_NG.half()
    return matrix.rounded_NK, matrix.scale_N


def _scale(name: str) -> str:
    return name.removesuffix(".weight") + ".scale"


def _check_specs(file: MappedFile, wanted: Mapping[str, Spec]) -> None:
    missing = [name for name in wanted if name not in file.specs]
    extra = [name for name in file.specs if name not in wanted]
    differing = [
        f"{name} {file.specs[name].dtype} {file.specs[name].shape} for {spec.dtype} {spec.shape}"
        for name, spec in wanted.items()
        if file.specs.get(name, spec) != spec
    ]
    if missing or extra or differing:
        raise WeightsError(
            f"{file.path} does not match its config.json: {len(missing)} tensors are missing "
            f"{missing[:4]}, {len(extra)} are not of this model {extra[:4]}, {len(differing)} "
            f"differ {differing[:4]}"
        )
