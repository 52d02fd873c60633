"""The loss over targets, apart in text, location tokens and patches."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.data.patches import UNKNOWN
from kosmos2.training.recipe import LossRecipe
from kosmos2.vocab.special import Vocabulary


class Losses(NamedTuple):
    """Of one batch. A tuple, for parallel wrappers look for tensors in what a module returns."""

    objective: Tensor
    """What is minimised: this batch's share of the step's mean."""
    text_sum: Tensor
    """In nats, as `location_sum`."""
    text_count: Tensor
    location_sum: Tensor
    location_count: Tensor
    patch_loss: Tensor
    """This batch's share of the step's mean, in nats."""


class TargetLoss:
    """Cross-entropy of targets; a location target may be spread over its neighbours.

    Sums are divided by the totals of the whole step, so that it does not matter into how many
    batches and over how many ranks its rows were cut.
    """

    def __init__(self, recipe: LossRecipe, vocabulary: Vocabulary, device: torch.device) -> None:
        self.location_weight = recipe.location_weight
        self.patch_weight = recipe.patch_weight
        self.first = vocabulary.first_location
        self.cells = vocabulary.bins**2
        self.spread = recipe.location_spread
        self.soft_CC = _soft_cells(vocabulary.bins, recipe.location_spread).to(device)

    def totals(self, target_L: Tensor, noun_NP: Tensor, sides_NP4: Tensor) -> Tensor:
        """Return totals_3: the weight of all targets, how many nouns and how many sides are known.

        Totals of several batches add up.
        """
        place_L = self._is_place(target_L)
        weight = (~place_L).sum() + self.location_weight * place_L.sum()
        nouns, sides = (noun_NP != UNKNOWN).sum(), (sides_NP4 != UNKNOWN).sum()
        return torch.stack([weight.float(), nouns.float(), sides.float()])

    def __call__(
        self, logits_LV: Tensor, target_L: Tensor, patches_2: Tensor, totals_3: Tensor
    ) -> Losses:
        """Return the losses of L targets, and of the patches (see `PatchHead`)."""
        logits_LV = logits_LV.float()
        total_L = torch.logsumexp(logits_LV, dim=1)
        hard_L = total_L - logits_LV.gather(1, target_L[:, None])[:, 0]
        place_L = self._is_place(target_L)

        text, located = hard_L[~place_L].sum(), hard_L[place_L].sum()
        learnt = located
        if self.spread:
            learnt = self._spread(logits_LV, total_L, target_L - self.first, place_L)
        weight, nouns, sides = totals_3.clamp(min=1)
        objective = (text + self.location_weight * learnt) / weight
        patch_loss = patches_2[0] / nouns + patches_2[1] / sides
        return Losses(
            objective=objective + self.patch_weight * patch_loss,
            text_sum=text.detach(),
            text_count=(~place_L).sum(),
            location_sum=located.detach(),
            location_count=place_L.sum(),
            patch_loss=patch_loss.detach(),
        )

    def _is_place(self, target_L: Tensor) -> Tensor:
        return (target_L >= self.first) & (target_L < self.first + self.cells)

    def _spread(
        self, logits_LV: Tensor, total_L: Tensor, cell_L: Tensor, place_L: Tensor
    ) -> Tensor:
        soft_LC = self.soft_CC[cell_L[place_L]]
        cells_LC = logits_LV[place_L, self.first : self.first + self.cells]
        return (total_L[place_L] - (soft_LC * cells_LC).sum(1)).sum()


class PatchHead(nn.Module):
    """What a patch shows, read linearly off the tower's output; used in training alone."""

    def __init__(self, width: int, num_nouns: int, bins: int) -> None:
        super().__init__()
        self.num_nouns = num_nouns
        self.bins = bins
        self.scale = width**0.5  # the tower's vectors have unit length
        self.read = nn.Linear(width, num_nouns + 1 + 4 * bins)

    def forward(self, features_NPE: Tensor, noun_NP: Tensor, sides_NP4: Tensor) -> Tensor:
        """Return patches_2: sums in nats over known nouns, and over the sides of things."""
        read_NPO = self.read(features_NPE[:, 1:] * self.scale).float()
        nouns_NPO, sides_NPO = read_NPO.split([self.num_nouns + 1, 4 * self.bins], dim=-1)
        noun = F.cross_entropy(
            nouns_NPO.flatten(0, 1), noun_NP.flatten(), ignore_index=UNKNOWN, reduction="sum"
        )
        sides = F.cross_entropy(
            sides_NPO.reshape(-1, self.bins),
            sides_NP4.flatten(),
            ignore_index=UNKNOWN,
            reduction="sum",
        )
        return torch.stack([noun, sides])


def _soft_cells(bins: int, spread: float) -> Tensor:
    """Return soft_CC: row c is the target distribution of cell c (one-hot without spread)."""
    if not spread:
        return torch.eye(bins**2)
    place = torch.arange(bins, dtype=torch.float32)
    near = torch.exp(-((place[:, None] - place) ** 2) / (2 * spread**2))
    near = near / near.sum(1, keepdim=True)
    return torch.kron(near, near)
