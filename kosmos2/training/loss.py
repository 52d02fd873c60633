"""The loss over targets, apart in text and location tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.training.recipe import LossRecipe
from kosmos2.vocab.special import Vocabulary


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums in nats and counts; `objective` is what is minimised."""

    objective: Tensor
    text_sum: Tensor
    text_count: Tensor
    location_sum: Tensor
    location_count: Tensor


class TargetLoss:
    """Cross-entropy of targets; a location target may be spread over its neighbours."""

    def __init__(self, recipe: LossRecipe, vocabulary: Vocabulary, device: torch.device) -> None:
        self.weight = recipe.location_weight
        self.first = vocabulary.first_location
        self.cells = vocabulary.bins**2
        self.spread = recipe.location_spread
        self.soft_CC = _soft_cells(vocabulary.bins, recipe.location_spread).to(device)

    def __call__(self, logits_LV: Tensor, target_L: Tensor) -> Losses:
        """Return the losses of L targets."""
        logits_LV = logits_LV.float()
        total_L = torch.logsumexp(logits_LV, dim=1)
        hard_L = total_L - logits_LV.gather(1, target_L[:, None])[:, 0]
        cell_L = target_L - self.first
        place_L = (cell_L >= 0) & (cell_L < self.cells)

        objective = hard_L[~place_L].sum()
        if self.spread:
            soft_LC = self.soft_CC[cell_L[place_L]]
            cells_LC = logits_LV[place_L, self.first : self.first + self.cells]
            located = (total_L[place_L] - (soft_LC * cells_LC).sum(1)).sum()
        else:
            located = hard_L[place_L].sum()
        weights = (~place_L).sum() + self.weight * place_L.sum()
        return Losses(
            objective=(objective + self.weight * located) / weights,
            text_sum=hard_L[~place_L].detach().sum(),
            text_count=(~place_L).sum(),
            location_sum=hard_L[place_L].detach().sum(),
            location_count=place_L.sum(),
        )


def _soft_cells(bins: int, spread: float) -> Tensor:
    """Return soft_CC: row c is the target distribution of cell c (one-hot without spread)."""
    if not spread:
        return torch.eye(bins**2)
    place = torch.arange(bins, dtype=torch.float32)
    near = torch.exp(-((place[:, None] - place) ** 2) / (2 * spread**2))
    near = near / near.sum(1, keepdim=True)
    return torch.kron(near, near)
