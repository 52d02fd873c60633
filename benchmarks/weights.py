"""Random weights at full size, the same for both sides, in half a minute and without a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from kosmos2.model import ModelConfig, Network
from kosmos2.weights.fused import FusedSource, fused_names
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.tensors import StateSource, assemble

EMBEDDING_STD = 0.02
"""As transformers initialises it."""
LAST_NORM_STD = 3.0
"""Weights of both signs, or the tied matrices would only repeat the last token; this large,
logits have a standard deviation of about 2.7, so that divergences mean something."""
LAST_NORM = "text_model.model.layer_norm.weight"


def fill(parameters: Iterable[tuple[str, Tensor]]) -> None:
    """Write random numbers into transformers' tensors; a name always gets the same numbers.

    Matrices keep the variance of what they are multiplied with, norms are nearly neutral.
    """
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        list(pool.map(lambda item: _fill_one(*item), parameters))


@torch.no_grad()
def _fill_one(name: str, tensor: Tensor) -> None:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    if name == LAST_NORM:
        tensor.normal_(std=LAST_NORM_STD, generator=generator)
        return
    if tensor.dim() == 1:
        tensor.normal_(std=0.02, generator=generator)
        if name.endswith("weight"):
            tensor.add_(1)
        return
    std = EMBEDDING_STD if "embed" in name else 1 / math.sqrt(tensor[0].numel())
    tensor.normal_(std=std, generator=generator)


def source_of(network: Network) -> FusedSource:
    """Return the weights of a network as the engine reads them from a file."""
    state = StateSource({name: each.detach() for name, each in network.named_parameters()})
    return FusedSource(state, fused_names(network.config))


def as_ours(state: dict[str, Tensor], config: ModelConfig) -> Network:
    """Return our network over transformers' own tensors: nothing is copied."""
    tensors = {name: tensor.detach() for name, tensor in state.items() if name != HUGGINGFACE.tied}
    dtype = next(iter(tensors.values())).dtype
    return assemble(
        config, HUGGINGFACE, StateSource(tensors), dtype=dtype, device=torch.device("cpu")
    )
