"""Tensors in files, read and written one at a time: safetensors and pickled state dicts."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kosmos2.errors import WeightsError
from kosmos2.model import ModelConfig, Network
from kosmos2.weights.mapping import EMBEDDING, Layout, Shape, match

SAFETENSORS_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
}
ALIGNMENT = 64
"""Bytes of a line of the processor's cache."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of a tensor before it is read."""

    shape: Shape
    dtype: torch.dtype

    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorSource(Protocol):
    """Named tensors that are read one by one."""

    @property
    def specs(self) -> Mapping[str, Spec]: ...

    def read(self, name: str) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class StateSource:
    """Tensors that are there already, or mapped from a file: a state dict."""

    state: Mapping[str, Tensor]

    @property
    def specs(self) -> Mapping[str, Spec]:
        return {name: _spec(tensor) for name, tensor in self.state.items()}

    def read(self, name: str) -> Tensor:
        return self.state[name]


@dataclass(frozen=True, slots=True)
class SafetensorsSource:
    """One or several safetensors files; nothing stays open between two reads."""

    homes: Mapping[str, Path]
    """Tensor -> the file that holds it."""
    specs: Mapping[str, Spec]

    def read(self, name: str) -> Tensor:
        with safe_open(self.homes[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


@dataclass(frozen=True, slots=True)
class RenamedSource:
    """Another source under other names."""

    source: TensorSource
    names: Mapping[str, str]
    """New name -> the source's name."""

    @property
    def specs(self) -> Mapping[str, Spec]:
        specs = self.source.specs
        return {new: specs[old] for new, old in self.names.items()}

    def read(self, name: str) -> Tensor:
        return self.source.read(self.names[name])


@dataclass(frozen=True, slots=True)
class CastSource:
    """Another source in another floating-point type."""

    source: TensorSource
    dtype: torch.dtype

    @property
    def specs(self) -> Mapping[str, Spec]:
        return {name: Spec(spec.shape, self.dtype) for name, spec in self.source.specs.items()}

    def read(self, name: str) -> Tensor:
        return self.source.read(name).to(self.dtype)


def open_safetensors(paths: Mapping[str, Path] | Path) -> SafetensorsSource:
    """Return the tensors of one file, or of the shards that an index names."""
    files = [paths] if isinstance(paths, Path) else sorted(set(paths.values()))
    homes: dict[str, Path] = {}
    specs: dict[str, Spec] = {}
    for path in files:
        for name, spec in _safetensors_specs(path).items():
            homes[name], specs[name] = path, spec
    if not isinstance(paths, Path):
        missing = sorted(name for name, path in paths.items() if homes.get(name) != path)
        if missing:
            raise WeightsError(
                f"{missing[0]} and {len(missing) - 1} more tensors are not in the file that the "
                f"index names ({paths[missing[0]].name}). Is the download complete?"
            )
    return SafetensorsSource(homes, specs)


def _safetensors_specs(path: Path) -> dict[str, Spec]:
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: Spec(tuple(part.get_shape()), _dtype(part.get_dtype(), name, path))
                for name, part in parts.items()
            }
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"cannot read {path}: {error}. Is the file complete, and is it safetensors?"
        ) from error


def _dtype(code: str, name: str, path: Path) -> torch.dtype:
    if code not in SAFETENSORS_TYPES:
        raise WeightsError(f"{path}: {name} is stored as {code}, which is not read here")
    return SAFETENSORS_TYPES[code]


def open_pickled(path: Path) -> StateSource:
    """Return the tensors of one `pytorch_model.bin`, read with torch's weights-only unpickler."""
    try:
        state: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read {path} as a plain state dict: {str(error).splitlines()[0]}"
        ) from error
    return StateSource(check_state(state, path))


def check_state(state: object, path: Path) -> dict[str, Tensor]:
    """Return the state dict, or refuse anything that is not names with tensors."""
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise WeightsError(
                f"{path} is no state dict: {name!r} is a {type(tensor).__name__}, not a tensor"
            )
    return {name: tensor.detach() for name, tensor in state.items()}


def assemble(
    config: ModelConfig,
    layout: Layout,
    source: TensorSource,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> Network:
    """Return the network of these sizes, ready to use, filled tensor by tensor.

    Nothing is allocated before its tensor is read, so the peak is the network and one tensor.
    """
    network = skeleton(config)
    sources = match_source(layout, source, parameter_shapes(network))
    state = {
        ours: source.read(theirs).to(device=device, dtype=dtype) for ours, theirs in sources.items()
    }
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def skeleton(config: ModelConfig) -> Network:
    """Return a network of these sizes whose parameters have shapes and no numbers."""
    with torch.device("meta"), _Unfilled():
        return Network(config)


class _Unfilled(TorchFunctionMode):
    """Leave out random numbers, for which torch would load its compiler: 100 MB and a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = kwargs or {}
        return given["tensor"] if func is nn.init.normal_ else func(*args, **given)


def parameter_shapes(network: Network) -> dict[str, Shape]:
    """Return the shape of every parameter."""
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def match_source(
    layout: Layout, source: TensorSource, parameters: Mapping[str, Shape]
) -> Mapping[str, str]:
    """Return our parameter -> tensor, complete, with a second embedding matrix compared."""
    specs = source.specs
    matched = match(layout, {name: spec.shape for name, spec in specs.items()}, parameters)
    for name in matched.sources.values():
        if not specs[name].dtype.is_floating_point:
            raise WeightsError(f"{name} holds {specs[name].dtype}, not floating-point numbers")
    if matched.tied is not None:
        embedding = matched.sources[EMBEDDING]
        if not torch.equal(source.read(matched.tied), source.read(embedding)):
            raise WeightsError(
                f"{matched.tied} differs from {embedding}, but this model has one matrix for both. "
                "Were these weights trained with an untied head? They cannot be used here."
            )
    return matched.sources


def write_safetensors(
    folder: Path,
    source: TensorSource,
    *,
    max_shard_bytes: int,
    on_tensor: Callable[[str], None],
) -> tuple[Path, ...]:
    """Write model.safetensors, or shards and their index; return the files, shards first.

    Files appear under their names when they are complete; weights of an earlier save that are not
    overwritten are removed.
    """
    specs = source.specs
    shards = _shards(specs, max_shard_bytes)
    count = len(shards)
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    if count == 1:
        names = ["model.safetensors"]
    written = []
    for name, shard in zip(names, shards, strict=True):
        write_file(folder / name, {tensor: specs[tensor] for tensor in shard}, source, on_tensor)
        written.append(folder / name)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(spec.num_bytes() for spec in specs.values())},
            "weight_map": {
                tensor: name
                for name, shard in zip(names, shards, strict=True)
                for tensor in sorted(shard)
            },
        }
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        written.append(path)
    for stale in {*folder.glob("model*.safetensors"), *folder.glob("model*.index.json")}:
        if stale not in written:
            stale.unlink()
    return tuple(written)


def write_file(
    path: Path, specs: Mapping[str, Spec], source: TensorSource, on_tensor: Callable[[str], None]
) -> None:
    """Write one safetensors file, one tensor in memory at a time.

    The library's own writer wants them all at once: 3.3 GB for the full size in half precision.
    """
    names = _aligned(specs)
    codes = {dtype: code for code, dtype in SAFETENSORS_TYPES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + specs[name].num_bytes()
        header[name] = {
            "dtype": codes[specs[name].dtype],
            "shape": specs[name].shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(raw_bytes(source.read(name)))
            on_tensor(name)
        assert file.tell() == 8 + len(text) + end


def _aligned(specs: Mapping[str, Spec]) -> list[str]:
    """Return the names so that each tensor begins at a multiple of its numbers' size.

    Those that fill whole lines of the cache go first, so that each of them begins with one.
    """
    whole = [name for name, spec in specs.items() if spec.num_bytes() % ALIGNMENT == 0]
    rest = [name for name, spec in specs.items() if spec.num_bytes() % ALIGNMENT]
    return whole + sorted(rest, key=lambda name: -specs[name].dtype.itemsize)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` if all goes well."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Return the numbers of a tensor as they lie in memory, row after row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _shards(specs: Mapping[str, Spec], max_bytes: int) -> list[list[str]]:
    """Return the names in order, cut where the next tensor would make a shard too large."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if shards[-1] and size + spec.num_bytes() > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += spec.num_bytes()
    return shards


def sha256(path: Path) -> str:
    """Return the checksum of a file in hexadecimal, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spec(tensor: Tensor) -> Spec:
    return Spec(tuple(tensor.shape), tensor.dtype)
