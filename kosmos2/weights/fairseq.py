"""The released `kosmos-2.pt`: a fairseq trainer's file, read without fairseq and written alike.

    {"args": None, "cfg": <omegaconf>, "model": {"gpt_model.decoder.embed_tokens.weight": ..., ...},
     "criterion": ..., "optimizer_history": [...], "task_state": {...}, "extra_state": {...}}

888 tensors in full size: 885 parameters, the tied output matrix and two that nothing reads.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kosmos2.errors import WeightsError
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.weights.huggingface import format_config, parse_config
from kosmos2.weights.mapping import EMBEDDING, ORIGINAL, Shape
from kosmos2.weights.tensors import (
    Spec,
    StateSource,
    TensorSource,
    assemble,
    check_state,
    raw_bytes,
    replacing,
)
from kosmos2.weights.unpickle import Inert, read_container

HEAD_WIDTH = 64
"""Of every attention in the released model; head counts are not to be seen in shapes."""

_ALIGNMENT = 64
_STORAGES: Mapping[torch.dtype, Any] = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
}


def load(path: Path, *, dtype: torch.dtype, device: torch.device) -> Network:
    """Return the network in a fairseq file, in evaluation mode."""
    config, source = open_container(path)
    return assemble(config, ORIGINAL, source, dtype=dtype, device=device)


def open_container(path: Path) -> tuple[ModelConfig, StateSource]:
    """Return the sizes and the tensors of a fairseq file; nothing in it is run."""
    container = read_container(path)
    if not isinstance(container, dict) or not isinstance(container.get("model"), dict):
        names = sorted(map(str, container)) if isinstance(container, dict) else container
        raise WeightsError(f"{path} is no fairseq checkpoint: no 'model' in {names}")
    source = StateSource(check_state(container["model"], path))
    shapes = {name: spec.shape for name, spec in source.specs.items()}
    return read_sizes(container, shapes, path), source


def read_sizes(
    container: Mapping[str, object], shapes: Mapping[str, Shape], path: Path
) -> ModelConfig:
    """Return the sizes that we wrote ourselves, or those that the tensors show."""
    ours = _plain(_setting(container, "cfg", "kosmos2"), depth=2)
    if isinstance(ours, dict):
        return parse_config(ours, name=f"{path}: cfg.kosmos2")

    def shape(name: str) -> Shape:
        theirs = ORIGINAL.theirs(name)
        if theirs not in shapes:
            raise WeightsError(f"{path} has no {theirs}: is it a Kosmos-2 checkpoint?")
        return shapes[theirs]

    vocab_size, width = shape(EMBEDDING)
    patches = shape("vision.positions")[0] - 1
    vision_width, _channels, patch_size, _ = shape("vision.patches.weight")
    heads = _setting(container, "cfg", "model", "decoder_attention_heads")
    heads = heads or _setting(container, "args", "decoder_attention_heads")
    return ModelConfig(
        text=TextConfig(
            vocab_size=vocab_size,
            width=width,
            feedforward_width=shape("decoder.blocks.0.expand.weight")[0],
            num_layers=_count_layers("decoder.blocks.0.query.bias", shapes),
            num_heads=heads if isinstance(heads, int) else _heads(width, path),
        ),
        vision=VisionConfig(
            width=vision_width,
            feedforward_width=shape("vision.blocks.0.expand.weight")[0],
            num_layers=_count_layers("vision.blocks.0.query.bias", shapes),
            num_heads=_heads(vision_width, path),
            image_size=math.isqrt(patches) * patch_size,
            patch_size=patch_size,
        ),
        num_latents=shape("resampler.latents")[0],
    )


def _count_layers(first: str, shapes: Mapping[str, Shape]) -> int:
    """Return the number of layers that have the counterpart of this tensor of layer 0."""
    pattern = re.escape(ORIGINAL.theirs(first)).replace(r"\.0\.", r"\.\d+\.")
    return sum(re.fullmatch(pattern, name) is not None for name in shapes)


def _heads(width: int, path: Path) -> int:
    if width % HEAD_WIDTH:
        raise WeightsError(
            f"{path}: a width of {width} is no multiple of {HEAD_WIDTH}, the width of a head in "
            "the original, and the file does not tell the number of heads"
        )
    return width // HEAD_WIDTH


def _setting(container: Mapping[str, object], *path: str) -> object:
    """Return a setting in plain dictionaries, omegaconf nodes or a Namespace, None without it."""
    value: object = container
    for key in path:
        value = _unwrap(value)
        value = value.get(key) if isinstance(value, dict) else None
    return _unwrap(value)


def _unwrap(value: object) -> object:
    """Return what an inert settings object holds: omegaconf's content or value, or attributes."""
    if not isinstance(value, Inert) or not isinstance(value.state, dict):
        return value
    for attribute in ("_content", "_val"):
        if attribute in value.state:
            return value.state[attribute]
    return value.state


def _plain(value: object, *, depth: int) -> object:
    """Return nested settings as dictionaries, as far down as asked."""
    value = _unwrap(value)
    if isinstance(value, dict) and depth:
        return {key: _plain(child, depth=depth - 1) for key, child in value.items()}
    return value


def write(
    config: ModelConfig, source: TensorSource, path: Path, *, on_tensor: Callable[[str], None]
) -> None:
    """Write a fairseq file from tensors under original names, one tensor in memory at a time.

    torch.save would hold them all. The settings are plain dictionaries, which fairseq accepts;
    `cfg.kosmos2` holds what shapes do not show. The file appears when it is complete.
    """
    tensors = _Lazy.of(source.specs)
    embedding = tensors[ORIGINAL.theirs(EMBEDDING)]
    extra = unread_tensors(config, embedding.spec.dtype)
    model = {
        **tensors,
        ORIGINAL.tied: embedding,  # the same storage twice, as torch.save has it
        **_Lazy.of(extra.specs, start=len(tensors)),
    }
    container: dict[str, object] = {
        "args": None,
        "cfg": {"kosmos2": format_config(config, embedding.spec.dtype)},
        "model": model,
        "criterion": None,
        "optimizer_history": [],
        "task_state": {},
        "extra_state": {},
    }
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=2).dump(container)

    with (
        replacing(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
    ):
        _write_record(archive, "data.pkl", pickled.getbuffer())
        _write_record(archive, "byteorder", b"little")
        for name, lazy in tensors.items():
            _write_record(archive, f"data/{lazy.key}", raw_bytes(source.read(name)))
            on_tensor(name)
        for name, tensor in extra.state.items():
            _write_record(archive, f"data/{model[name].key}", raw_bytes(tensor))
        _write_record(archive, "version", b"3\n")


def unread_tensors(config: ModelConfig, dtype: torch.dtype) -> StateSource:
    """Return the two tensors that the original's strict loading expects and never reads."""
    width = config.text.width // config.text.num_heads
    scale = (torch.arange(0, width, 2) + 0.4 * width) / (1.4 * width)
    return StateSource(
        {
            "gpt_model.decoder.embed_positions._float_tensor": torch.zeros(1, dtype=dtype),
            "gpt_model.decoder.self_attn_sope.scale": scale.to(dtype),
        }
    )


@dataclass(frozen=True, slots=True)
class _Lazy:
    """A tensor in a pickle whose numbers are written elsewhere, under a key."""

    spec: Spec
    key: str

    @classmethod
    def of(cls, specs: Mapping[str, Spec], start: int = 0) -> dict[str, _Lazy]:
        return {name: cls(spec, str(start + i)) for i, (name, spec) in enumerate(specs.items())}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as torch does: a storage with an offset, a shape and strides."""
        shape = self.spec.shape
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        storage = _Storage(self.spec, self.key)
        return torch._utils._rebuild_tensor_v2, (storage, 0, shape, strides, False, OrderedDict())


@dataclass(frozen=True, slots=True)
class _Storage:
    spec: Spec
    key: str


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> tuple[object, ...] | None:
        if not isinstance(obj, _Storage):
            return None
        storage_type = _STORAGES[obj.spec.dtype]
        return "storage", storage_type, obj.key, "cpu", math.prod(obj.spec.shape)


def _write_record(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Write one record whose bytes begin at a multiple of 64, so that torch can map them."""
    info = zipfile.ZipInfo(f"kosmos-2/{name}")
    large = len(data) >= zipfile.ZIP64_LIMIT // 2
    header = 30 + len(info.filename) + 4 + (20 if large else 0)
    assert archive.fp is not None
    padding = -(archive.fp.tell() + header) % _ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=large) as record:
        record.write(data)
