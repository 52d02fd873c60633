"""One learner over several processes, and memory or compilation against time; from outside.

The network's files know nothing of this, and the names of its parameters do not change.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from kosmos2.training.learner import Learner
from kosmos2.training.ranks import Ranks
from kosmos2.training.recipe import ParallelRecipe, RunRecipe


def spread(learner: Learner, parallel: ParallelRecipe, run: RunRecipe, ranks: Ranks) -> nn.Module:
    """Prepare the learner in place, and return what to call in its stead."""
    blocks = [*learner.network.vision.blocks, *learner.network.decoder.blocks]
    for block in blocks:
        _prepare(block, parallel)
    match parallel.kind:
        case "none":
            return learner
        case "ddp":
            return DistributedDataParallel(learner)
        case "fsdp":
            device = next(learner.parameters()).device
            mesh = init_device_mesh(device.type, (ranks.size,))
            half = torch.bfloat16 if run.precision == "bf16" else None
            # What travels in half precision are the blocks; embedding and first layers stay whole.
            policy = MixedPrecisionPolicy(
                param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
            )
            for block in blocks:
                fully_shard(block, mesh=mesh, mp_policy=policy)
            fully_shard(learner, mesh=mesh)
            return learner


def whole(parameter: Tensor) -> Tensor:
    """Return all of a parameter on this rank; every rank calls it, for its part may be asked."""
    detached = parameter.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def _prepare(block: nn.Module, parallel: ParallelRecipe) -> None:
    """Change what the block's call does, not the block's names."""
    forward: Any = block.forward
    if parallel.compile == "blocks":
        forward = torch.compile(forward)
    if parallel.recompute == "blocks":
        forward = partial(checkpoint, forward, use_reentrant=False)
    if forward != block.forward:
        block.forward = forward
