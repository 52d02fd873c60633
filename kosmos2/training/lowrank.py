"""Low-rank layers (LoRA, Hu et al. 2021): learnt beside frozen ones, merged into them at the end.

The file of the layers alone, `lora.safetensors`, has for every target
    decoder.blocks.3.query.lora_down    rank x inputs
    decoder.blocks.3.query.lora_up      outputs x rank
and the settings as metadata. W + alpha / rank * up @ down is the plain weight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kosmos2 import config
from kosmos2.errors import TrainingError
from kosmos2.model.network import Network
from kosmos2.training.recipe import LoraRecipe

FILE = "lora.safetensors"
DOWN, UP = "lora_down", "lora_up"


class LowRankLinear(nn.Linear):
    """A linear layer whose own weights keep their names, and a product of two thin matrices."""

    def __init__(self, layer: nn.Linear, recipe: LoraRecipe, generator: torch.Generator) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = recipe.alpha / recipe.rank
        bound = layer.in_features**-0.5
        down = torch.empty(recipe.rank, layer.in_features)
        down.uniform_(-bound, bound, generator=generator)
        self.lora_down = nn.Parameter(down.to(layer.weight.device))
        self.lora_up = nn.Parameter(layer.weight.new_zeros(layer.out_features, recipe.rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the plain layer would with the merged weight."""
        thin = F.linear(F.linear(x, self.lora_down), self.lora_up)
        return super().forward(x) + self.scale * thin


def is_low_rank(name: str) -> bool:
    """Tell whether a weight belongs to such a layer's thin matrices."""
    return name.endswith((f".{DOWN}", f".{UP}"))


def add(network: Network, recipe: LoraRecipe, generator: torch.Generator) -> None:
    """Put a low-rank layer in place of every target; at first the outputs are the same."""
    for name, layer in targeted(network, recipe).items():
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, LowRankLinear(layer, recipe, generator))


def targeted(network: Network, recipe: LoraRecipe) -> dict[str, nn.Linear]:
    """Return the linear layers that the recipe names; refuses a pattern that names none."""
    linear = {name: each for name, each in network.named_modules() if isinstance(each, nn.Linear)}
    for pattern in recipe.targets:
        if not any(fnmatchcase(name, pattern) for name in linear):
            raise TrainingError(
                f"lora.targets: {pattern!r} names no linear layer. There are such as "
                f"{', '.join(sorted({_generic(name) for name in linear}))}"
            )
    return {
        name: layer
        for name, layer in linear.items()
        if any(fnmatchcase(name, pattern) for pattern in recipe.targets)
    }


def merged(state: Mapping[str, Tensor], recipe: LoraRecipe) -> dict[str, Tensor]:
    """Return the weights of a plain network that computes the same."""
    plain = {name: tensor for name, tensor in state.items() if not is_low_rank(name)}
    for name in state:
        if name.endswith(f".{DOWN}"):
            layer = name.removesuffix(f".{DOWN}")
            thin = state[f"{layer}.{UP}"].float() @ state[name].float()
            weight = plain[f"{layer}.weight"]
            plain[f"{layer}.weight"] = weight + (recipe.alpha / recipe.rank * thin).to(weight)
    return plain


def write(state: Mapping[str, Tensor], recipe: LoraRecipe, base: str, path: Path) -> None:
    """Write the thin matrices alone; `base` names the model that they belong to."""
    thin = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if is_low_rank(name)
    }
    partial = path.with_suffix(".partial")
    settings = {"base": base, "lora": json.dumps(asdict(recipe))}
    save_file(thin, partial, metadata={"format": "pt", **settings})
    partial.replace(path)


def read(path: Path) -> tuple[dict[str, Tensor], LoraRecipe]:
    """Return the thin matrices and their settings."""
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["lora"])
            thin = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path} holds no low-rank layers of ours: {error}") from error
    return thin, config.build(LoraRecipe, settings, where=str(path))


@torch.no_grad()
def merge_file(network: Network, path: Path) -> None:
    """Add the thin matrices of a file to the plain weights of a network."""
    thin, recipe = read(path)
    plain = dict(network.named_parameters())
    for name in thin:
        layer, _, _ = name.rpartition(".")
        weight, down, up = (
            plain.get(f"{layer}.weight"),
            thin.get(f"{layer}.{DOWN}"),
            thin.get(f"{layer}.{UP}"),
        )
        fits = None not in (weight, down, up)
        if weight is None or down is None or up is None or not fits:
            raise TrainingError(f"{path}: {name} has no counterpart in this network")
        if weight.shape != (up.shape[0], down.shape[1]):
            raise TrainingError(
                f"{path}: {layer} is {tuple(weight.shape)} here, "
                f"{(up.shape[0], down.shape[1])} in the file"
            )
    state = {name: each.detach() for name, each in plain.items()}
    for name, tensor in merged({**state, **thin}, recipe).items():
        plain[name].copy_(tensor)


def _generic(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
