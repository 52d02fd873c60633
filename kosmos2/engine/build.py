"""From weights to a `Runner`: matrices packed for the processor, query, key and value as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from kosmos2.engine.runner import BlockParts, FusedBlock, Runner
from kosmos2.engine.vision import FusedVisionBlock
from kosmos2.errors import RequestError
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import Linear, Table, pack, pack_table
from kosmos2.model import ModelConfig, Network
from kosmos2.model.resampler import Resampler
from kosmos2.model.vision import VisionTower

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_OF_DTYPE = {
    torch.float64: Precision.FP64,
    torch.float32: Precision.FP32,
    torch.bfloat16: Precision.BF16,
    torch.float16: Precision.FP16,
}
QKV = ("query", "key", "value")


class Weights(Protocol):
    """Where a runner's parts come from, by our parameter names."""

    config: ModelConfig
    precision: Precision

    def tensor(self, name: str) -> Tensor:
        """Return a tensor that stays in floating point, in the type of the activations."""
        ...

    def linear(self, name: str) -> Linear:
        """Return a layer, packed; a block's `qkv` is query, key and value as one."""
        ...

    def table(self, name: str) -> Table:
        """Return the embedding, which is the output layer too."""
        ...


class NetworkWeights:
    """The weights of a network, which keeps them."""

    def __init__(self, network: Network, precision: Precision) -> None:
        self.config = network.config
        self.precision = precision
        self._network = network

    def tensor(self, name: str) -> Tensor:
        """Return a copy in the type of the activations."""
        parameter = self._network.get_parameter(name)
        return parameter.detach().to(self.precision.activations(parameter.device), copy=True)

    def linear(self, name: str) -> Linear:
        """Return a layer, packed."""
        prefix, _, last = name.rpartition(".")
        names = [f"{prefix}.{part}" for part in QKV] if last == "qkv" else [name]
        weights = [self._network.get_parameter(f"{each}.weight").detach() for each in names]
        biases = [self._network.get_parameter(f"{each}.bias").detach() for each in names]
        self._release(f"{each}.weight" for each in names)
        weight_NK = weights[0] if len(weights) == 1 else torch.cat(weights)
        weights.clear()
        return pack(weight_NK, torch.cat(biases), self.precision)

    def table(self, name: str) -> Table:
        """Return the embedding."""
        weight_VD = self._network.get_parameter(f"{name}.weight").detach()
        self._release([f"{name}.weight"])
        return pack_table(weight_VD, self.precision)

    def _release(self, names: Iterator[str] | list[str]) -> None:
        """Keep the matrices."""


class ConsumedWeights(NetworkWeights):
    """The weights of a network that nobody needs any more: each matrix goes when it is packed."""

    def _release(self, names: Iterator[str] | list[str]) -> None:
        for name in names:
            self._network.get_parameter(name).data = torch.empty(0)


def from_network(network: Network, precision: Precision | None = None) -> Runner:
    """Return a runner with copies of a network's weights, by default in the network's type."""
    return build(NetworkWeights(_checked(network), precision or precision_of(network)))


def consuming(network: Network, precision: Precision) -> Runner:
    """Return a runner with a network's weights; the network is empty afterwards."""
    return build(ConsumedWeights(_checked(network), precision))


def precision_of(network: Network) -> Precision:
    """Return the precision of a network's own type."""
    return _OF_DTYPE[network.decoder.embedding.weight.dtype]


def build(weights: Weights) -> Runner:
    """Return the runner of some weights."""
    config = weights.config
    with torch.device("meta"):
        vision, resampler = VisionTower(config.vision), Resampler(config)
    with torch.inference_mode():
        for layer in range(config.vision.num_layers):
            vision.blocks[layer] = _vision_block(layer, weights)
        return Runner(
            config,
            weights.precision,
            vision=_filled(vision, "vision", weights),
            resampler=_filled(resampler, "resampler", weights),
            table=weights.table("decoder.embedding"),
            blocks=[_block(layer, weights) for layer in range(config.text.num_layers)],
            norm=_norm("decoder.norm", weights, config.text.norm_eps),
        )


def _block(layer: int, weights: Weights) -> FusedBlock:
    name, config = f"decoder.blocks.{layer}", weights.config.text
    parts = BlockParts(
        attention_norm=_norm(f"{name}.attention_norm", weights, config.norm_eps),
        qkv=weights.linear(f"{name}.qkv"),
        mixed_norm=_norm(f"{name}.mixed_norm", weights, config.norm_eps),
        output=weights.linear(f"{name}.output"),
        feedforward_norm=_norm(f"{name}.feedforward_norm", weights, config.norm_eps),
        expand=weights.linear(f"{name}.expand"),
        expanded_norm=_norm(f"{name}.expanded_norm", weights, config.norm_eps),
        contract=weights.linear(f"{name}.contract"),
    )
    return FusedBlock(config, layer, parts)


def _vision_block(layer: int, weights: Weights) -> FusedVisionBlock:
    name, config = f"vision.blocks.{layer}", weights.config.vision
    return FusedVisionBlock(
        config,
        attention_norm=_norm(f"{name}.attention_norm", weights, config.norm_eps),
        qkv=weights.linear(f"{name}.qkv"),
        output=weights.linear(f"{name}.output"),
        feedforward_norm=_norm(f"{name}.feedforward_norm", weights, config.norm_eps),
        expand=weights.linear(f"{name}.expand"),
        contract=weights.linear(f"{name}.contract"),
    )


def _norm(name: str, weights: Weights, eps: float) -> nn.LayerNorm:
    weight_D = weights.tensor(f"{name}.weight")
    with torch.device("meta"):
        norm = nn.LayerNorm(len(weight_D), eps=eps)
    norm.weight = nn.Parameter(weight_D, requires_grad=False)
    norm.bias = nn.Parameter(weights.tensor(f"{name}.bias"), requires_grad=False)
    return norm


def _filled(module: ModuleT, prefix: str, weights: Weights) -> ModuleT:
    """Return a module with the weights it lacks: linear layers packed, the rest as it is."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, weights.linear(f"{prefix}.{name}"))
        elif any(parameter.is_meta for parameter in child.parameters()):
            _filled(child, f"{prefix}.{name}", weights)
    for name, _ in module.named_parameters(recurse=False):
        value = nn.Parameter(weights.tensor(f"{prefix}.{name}"), requires_grad=False)
        setattr(module, name, value)
    return module.eval()


def _checked(network: Network) -> Network:
    if network.training:
        raise RequestError(
            "the network is in training mode, its dropout would change the answer. "
            "Call network.eval() first."
        )
    return network
