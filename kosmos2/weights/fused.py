"""Our parameters as the engine wants them: query, key and value of a block as one matrix.

decoder.blocks.3.qkv.weight     rows of decoder.blocks.3.query.weight, then key, then value
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kosmos2.model import ModelConfig
from kosmos2.weights.mapping import EMBEDDING, Layout
from kosmos2.weights.tensors import (
    Spec,
    StateSource,
    TensorSource,
    match_source,
    parameter_shapes,
    skeleton,
)

QKV = ("query", "key", "value")


@dataclass(frozen=True, slots=True)
class FusedSource:
    """Another source under the engine's names; a tensor is made when it is read."""

    source: TensorSource
    parts: Mapping[str, tuple[str, ...]]
    """The engine's name -> the source's, joined along their rows."""

    @property
    def specs(self) -> Mapping[str, Spec]:
        specs = self.source.specs
        return {name: _joined([specs[part] for part in self.parts[name]]) for name in self.parts}

    def read(self, name: str) -> Tensor:
        parts = self.parts[name]
        if len(parts) == 1:
            return self.source.read(parts[0])
        return torch.cat([self.source.read(part) for part in parts])


def _joined(specs: list[Spec]) -> Spec:
    rows = sum(spec.shape[0] for spec in specs)
    return Spec((rows, *specs[0].shape[1:]), specs[0].dtype)


def fuse(config: ModelConfig, layout: Layout, source: TensorSource) -> FusedSource:
    """Return the tensors of a checkpoint under the engine's names; strict as `match_source`."""
    parameters = parameter_shapes(skeleton(config))
    theirs = match_source(layout, source, parameters)
    return FusedSource(
        source,
        {
            name: tuple(theirs[ours] for ours in parts)
            for name, parts in fused_names(config).items()
        },
    )


def fused_names(config: ModelConfig) -> Mapping[str, tuple[str, ...]]:
    """Return the engine's name -> our parameters, joined along their rows."""
    network = skeleton(config)
    names: dict[str, tuple[str, ...]] = {}
    for name, _ in network.named_parameters():
        module, _, end = name.rpartition(".")
        block, _, part = module.rpartition(".")
        if ".blocks." not in module or part not in QKV:
            names[name] = (name,)
        elif part == QKV[0]:
            names[f"{block}.qkv.{end}"] = tuple(f"{block}.{each}.{end}" for each in QKV)
    return names


def fused_specs(config: ModelConfig) -> Mapping[str, Spec]:
    """Return the engine's name -> its shape, in float32."""
    state = StateSource(dict(skeleton(config).named_parameters()))
    return FusedSource(state, fused_names(config)).specs


def matrices(config: ModelConfig) -> frozenset[str]:
    """Return the engine's names of what precisions of few bits round: layers and the embedding."""
    network = skeleton(config)
    layers = {
        f"{name}.weight" for name, part in network.named_modules() if isinstance(part, nn.Linear)
    }
    rounded = {*layers, EMBEDDING}
    return frozenset(
        name for name, parts in fused_names(config).items() if rounded.issuperset(parts)
    )
