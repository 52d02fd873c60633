"""What a run must not forget, as named tensors: weights, the optimizer's moments, random states.

trained.network.decoder.norm.weight               in parts, where ranks hold parts
optimizer.network.decoder.norm.weight.exp_avg     only of weights that have had a gradient
random.0  random_device.0                         by rank
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kosmos2.training import checkpoint
from kosmos2.training.checkpoint import TRAINED
from kosmos2.training.ranks import Ranks

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def collect(
    learner: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> dict[str, Tensor]:
    """Return the tensors, not copied but for the random states."""
    tensors = {TRAINED + name: each.detach() for name, each in learner.named_parameters()}
    for name, parameter in learner.named_parameters():
        for moment in MOMENTS:
            if moment in optimizer.state.get(parameter, {}):
                tensors[f"optimizer.{name}.{moment}"] = optimizer.state[parameter][moment]
    tensors[f"random.{ranks.rank}"] = torch.get_rng_state()
    device = next(learner.parameters()).device
    if device.type == "cuda":  # dropout draws there
        tensors[f"random_device.{ranks.rank}"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(path: Path, learner: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Fill learner, optimizer and random states from a checkpoint of any number of ranks.

    A rank that was not there when it was written keeps the random state that it has.
    """
    there = checkpoint.names(path)
    for name, parameter in learner.named_parameters():
        if f"optimizer.{name}.step" in there and parameter.requires_grad:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    tensors = collect(learner, optimizer, ranks)
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith("random") or name in there
    }
    checkpoint.load(path, tensors)
    _set_random(tensors, ranks, next(learner.parameters()).device)


def restore_old(
    state: Mapping[str, Any], learner: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> None:
    """Do so from the state of an earlier release, which numbered weights in the groups' order."""
    learner.load_state_dict(state["trained"])
    moments = state["optimizer"]["state"]
    for number, parameter in enumerate(_in_groups(optimizer)):
        if number in moments:
            optimizer.state[parameter] = {
                name: value.to(parameter.device) for name, value in moments[number].items()
            }
    tensors = {"random.0": state["random"]}
    if "device_random" in state:
        tensors["random_device.0"] = state["device_random"]
    _set_random(tensors, ranks, next(learner.parameters()).device)


def _in_groups(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _set_random(tensors: Mapping[str, Tensor], ranks: Ranks, device: torch.device) -> None:
    if (host := tensors.get(f"random.{ranks.rank}")) is not None:
        torch.set_rng_state(host)
    if device.type == "cuda" and (own := tensors.get(f"random_device.{ranks.rank}")) is not None:
        torch.cuda.set_rng_state(own, device)
