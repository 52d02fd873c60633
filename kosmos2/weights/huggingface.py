"""The folder layout of `microsoft/kosmos-2-patch14-224`: what we save, transformers loads.

config.json                the sizes
model.safetensors          or shards with model.safetensors.index.json,
                           or pytorch_model.bin, or its shards with their index
generation_config.json     how the reference generates (written, not read)
preprocessor_config.json   how transformers prepares pictures for it (written, not read)
processor_config.json      the number of its location tokens (written, not read)
tokenizer.json ...         see `vocab.tokenizer`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from kosmos2 import images
from kosmos2.errors import WeightsError
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.tensors import (
    CastSource,
    RenamedSource,
    StateSource,
    TensorSource,
    assemble,
    open_pickled,
    open_safetensors,
    write_safetensors,
)

MAX_SHARD_BYTES = 4_000_000_000

# Our field -> Hugging Face's key and the other name it also understands.
TEXT_KEYS: Mapping[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "width": ("embed_dim", "hidden_size"),
    "feedforward_width": ("ffn_dim",),
    "num_layers": ("layers", "num_hidden_layers"),
    "num_heads": ("attention_heads", "num_attention_heads"),
    "norm_eps": ("layer_norm_eps",),
    "max_positions": ("max_position_embeddings",),
    "dropout": ("dropout",),
    "attention_dropout": ("attention_dropout",),
    "activation_dropout": ("activation_dropout",),
    "scale_embedding": ("scale_embedding",),
}
VISION_KEYS: Mapping[str, tuple[str, ...]] = {
    "width": ("hidden_size",),
    "feedforward_width": ("intermediate_size",),
    "num_layers": ("num_hidden_layers",),
    "num_heads": ("num_attention_heads",),
    "image_size": ("image_size",),
    "patch_size": ("patch_size",),
    "norm_eps": ("layer_norm_eps",),
    "attention_dropout": ("attention_dropout",),
}
# What this network is and cannot be told otherwise; an absent key means the same.
FIXED: Mapping[str, Mapping[str, object]] = {
    "text_config": {
        "activation_function": "gelu",
        "tie_word_embeddings": True,
        "add_cross_attention": False,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    },
    "vision_config": {"hidden_act": "quick_gelu", "num_channels": 3},
}


def read_config(folder: Path) -> ModelConfig:
    """Return the sizes in `config.json` of a model folder."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{folder} has no config.json. A model folder holds config.json, model.safetensors "
            "and tokenizer.json; the original kosmos-2.pt is named as a file."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    return parse_config(data, name=str(path))


def parse_config(data: object, *, name: str) -> ModelConfig:
    """Return the sizes in a Hugging Face configuration; a missing key has its default."""
    kind = data.get("model_type") if isinstance(data, dict) else None
    if not isinstance(data, dict) or kind != "kosmos-2":
        raise WeightsError(f"{name} has model_type {kind!r}, this package reads 'kosmos-2' alone")
    parts = {}
    for part, fixed in FIXED.items():
        parts[part] = data.get(part) or {}
        if not isinstance(parts[part], dict):
            raise WeightsError(f"{name}: {part} must be a table, got {parts[part]!r}")
        for key, value in fixed.items():
            if parts[part].get(key, value) != value:
                raise WeightsError(
                    f"{name}: {part}.{key} is {parts[part][key]!r}; this network has {value!r}"
                )
    latents = _field(data, ("latent_query_num",), ModelConfig().num_latents, name)
    text = _fields(parts["text_config"], TEXT_KEYS, TextConfig(), f"{name}: text_config")
    vision = _fields(parts["vision_config"], VISION_KEYS, VisionConfig(), f"{name}: vision_config")
    return ModelConfig(
        text=TextConfig(**text), vision=VisionConfig(**vision), num_latents=int(latents)
    )


def _fields(
    data: Mapping[str, Any], keys: Mapping[str, tuple[str, ...]], defaults: object, name: str
) -> dict[str, Any]:
    return {
        field: _field(data, names, getattr(defaults, field), name) for field, names in keys.items()
    }


def _field(
    data: Mapping[str, Any], keys: tuple[str, ...], default: bool | int | float, name: str
) -> bool | int | float:
    """Return the first key that is there, as the type of its default."""
    key = next((key for key in keys if key in data), None)
    if key is None:
        return default
    value = data[key]
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]  # a square size written as its two sides
    wanted = type(default)
    if wanted is float and type(value) is int:
        value = float(value)
    if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
        raise WeightsError(f"{name}.{key} must be {wanted.__name__}, got {data[key]!r}")
    return value


def format_config(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of `config.json`."""
    text = {keys[0]: getattr(config.text, field) for field, keys in TEXT_KEYS.items()}
    vision = {keys[0]: getattr(config.vision, field) for field, keys in VISION_KEYS.items()}
    return {
        "architectures": ["Kosmos2ForConditionalGeneration"],
        "model_type": "kosmos-2",
        "torch_dtype": str(dtype).removeprefix("torch."),
        "tie_word_embeddings": True,
        "latent_query_num": config.num_latents,
        "text_config": {
            "model_type": "kosmos_2_text_model", **text, **FIXED["text_config"],
            "no_repeat_ngram_size": 3,  # where transformers before 5 looks for it
        },
        "vision_config": {
            "model_type": "kosmos_2_vision_model", **vision, **FIXED["vision_config"],
        },
    }  # fmt: skip


def open_tensors(folder: Path) -> TensorSource:
    """Return the weights of a model folder; safetensors go before pickled files."""
    if (folder / "model.safetensors").is_file():
        return open_safetensors(folder / "model.safetensors")
    if (folder / "model.safetensors.index.json").is_file():
        return open_safetensors(_read_index(folder / "model.safetensors.index.json"))
    if (folder / "pytorch_model.bin").is_file():
        return open_pickled(folder / "pytorch_model.bin")
    if (folder / "pytorch_model.bin.index.json").is_file():
        homes = _read_index(folder / "pytorch_model.bin.index.json")
        shards = {path: open_pickled(path).state for path in sorted(set(homes.values()))}
        return StateSource(
            {name: tensor for part in shards.values() for name, tensor in part.items()}
        )
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise WeightsError(
        f"{folder} has no model.safetensors, no pytorch_model.bin and no index of shards; "
        f"it holds {names}. Is the download complete?"
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that `open_tensors` reads tensors from."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return (folder / name,)
        if (folder / f"{name}.index.json").is_file():
            return tuple(sorted(set(_read_index(folder / f"{name}.index.json").values())))
    return ()


def _read_index(path: Path) -> dict[str, Path]:
    """Return tensor -> shard; a shard lies beside the index, never elsewhere."""
    try:
        homes = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = {str(tensor): str(name) for tensor, name in homes.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is no index of shards: {error!r}") from error
    for name in set(names.values()):
        if Path(name).name != name or not (path.parent / name).is_file():
            raise WeightsError(f"{path} names the shard {name!r}, which is not beside it")
    return {tensor: path.parent / name for tensor, name in names.items()}


def load(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Network:
    """Return the network of a model folder, in evaluation mode."""
    config = read_config(folder)
    return assemble(config, HUGGINGFACE, open_tensors(folder), dtype=dtype, device=device)


def save(network: Network, tokenizer: Tokenizer, folder: Path, *, dtype: torch.dtype) -> None:
    """Write a folder that `load` and transformers read; earlier weights there are replaced."""
    state = StateSource({name: tensor.detach() for name, tensor in network.named_parameters()})
    names = {HUGGINGFACE.theirs(ours): ours for ours in state.state}
    source = CastSource(RenamedSource(state, names), dtype)
    write(network.config, source, tokenizer, folder, on_tensor=_ignore)


def write(
    config: ModelConfig,
    source: TensorSource,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_tensor: Callable[[str], None],
) -> tuple[Path, ...]:
    """Write a model folder from tensors under Hugging Face names; return the weight files."""
    content = format_config(config, next(iter(source.specs.values())).dtype)
    write_settings(config, content, tokenizer, folder)
    return write_safetensors(folder, source, max_shard_bytes=max_shard_bytes, on_tensor=on_tensor)


def write_settings(
    config: ModelConfig, content: Mapping[str, Any], tokenizer: Tokenizer, folder: Path
) -> None:
    """Write all files of a model folder but the weights; `content` is that of config.json."""
    check_vocabulary(tokenizer, config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    files = {
        "config.json": content,
        "generation_config.json": {
            "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
            "max_new_tokens": 128, "no_repeat_ngram_size": 3,
        },
        "preprocessor_config.json": format_preprocessor(config.vision.image_size),
        "processor_config.json": {
            "processor_class": "Kosmos2Processor",
            "num_patch_index_tokens": tokenizer.vocabulary.num_locations,
        },
    }  # fmt: skip
    for name, data in files.items():
        text = json.dumps(data, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def check_vocabulary(tokenizer: Tokenizer, config: ModelConfig, folder: Path) -> None:
    """Refuse a tokenizer that is not of these weights."""
    if tokenizer.vocabulary.size != config.text.vocab_size:
        raise WeightsError(
            f"{folder}: the tokenizer has {tokenizer.vocabulary.size} tokens, the embedding "
            f"{config.text.vocab_size} rows. Do the tokenizer's files belong to these weights?"
        )


def format_preprocessor(size: int) -> dict[str, Any]:
    """Return the content of `preprocessor_config.json`: a square bicubic resize, as trained.

    The hub's file says the same with `use_square_size` and a shortest edge, but transformers 5
    then takes 224 whatever the file says; a height and a width are read alike by every release.
    """
    return {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "Kosmos2Processor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images.MEAN),
        "image_std": list(images.STD),
    }


def _ignore(_name: str) -> None:
    """Report no progress."""
