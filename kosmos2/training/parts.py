"""Which weights are trained and how fast; what is frozen stays equal to the bit."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from kosmos2.errors import TrainingError
from kosmos2.model.network import Network
from kosmos2.training.lowrank import is_low_rank
from kosmos2.training.recipe import TrainRecipe
from kosmos2.vocab.special import Vocabulary

EMBEDDING = "network.decoder.embedding.weight"
_BLOCK = re.compile(r"network\.decoder\.blocks\.(\d+)\.")


class Parts:
    """The tables [parts] and [lora], asked by the name of a weight."""

    def __init__(self, recipe: TrainRecipe, vocabulary: Vocabulary) -> None:
        self.parts = recipe.parts
        self.lora = recipe.lora
        self.rows = slice(None)
        if recipe.parts.embedding_rows == "locations":
            self.rows = slice(vocabulary.first_location, vocabulary.size)
        last = recipe.model.text.num_layers - 1
        if self.parts.decoder_blocks and self.parts.decoder_blocks[1] > last:
            raise TrainingError(
                f"parts.decoder_blocks is {list(self.parts.decoder_blocks)}, "
                f"but the decoder's blocks are 0 to {last}"
            )

    def factor(self, name: str) -> float:
        """Return the factor of the learning rate of a learner's weight; 0: it is frozen."""
        if not name.startswith("network.") or is_low_rank(name):
            return 1.0
        part = _part_of(name)
        if self.lora.rank and part not in self.lora.also:
            return 0.0
        if part == "decoder" and self.parts.decoder_blocks:
            first, last = self.parts.decoder_blocks
            block = _BLOCK.match(name)
            if block is None or not first <= int(block[1]) <= last:
                return 0.0
        factor: float = getattr(self.parts, part)
        return factor

    def decays(self, name: str) -> bool:
        """Tell whether weight decay may pull on it: on no row that is not trained."""
        return name != EMBEDDING or self.rows == slice(None)

    def freeze(self, learner: nn.Module) -> None:
        """Mark what is trained; refuses a recipe that trains nothing of the network."""
        trained = False
        for name, parameter in learner.named_parameters():
            parameter.requires_grad_(self.factor(name) > 0)
            trained = trained or (parameter.requires_grad and name.startswith("network."))
        if not trained:
            raise TrainingError("[parts] and [lora] freeze the whole network: nothing to train")

    def trains(self, learner: nn.Module, prefix: str) -> bool:
        """Tell whether any weight below this prefix is trained."""
        return any(
            parameter.requires_grad
            for name, parameter in learner.named_parameters()
            if name.startswith(prefix)
        )

    def mask_rows(self, network: Network) -> None:
        """Clear the gradients of embedding rows that are not trained."""
        gradient = network.decoder.embedding.weight.grad
        if gradient is None or self.rows == slice(None):
            return
        rows_VD, first = _local_rows(gradient)
        keep_V = torch.zeros(len(rows_VD), dtype=torch.bool, device=rows_VD.device)
        keep_V[max(0, self.rows.start - first) : max(0, self.rows.stop - first)] = True
        rows_VD[~keep_V] = 0


def _part_of(name: str) -> str:
    if name == EMBEDDING:
        return "embedding"
    return name.split(".")[1]


def _local_rows(gradient: Tensor) -> tuple[Tensor, int]:
    """Return the rows that this rank holds, and the number of the first."""
    if not isinstance(gradient, DTensor):
        return gradient, 0
    _, offset = compute_local_shape_and_global_offset(
        gradient.shape, gradient.device_mesh, gradient.placements
    )
    return gradient.to_local(), offset[0]
