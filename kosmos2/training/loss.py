"""The loss over targets, apart in text, location tokens and patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.data.patches import UNKNOWN
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
    patch_loss: Tensor


class TargetLoss:
    """Cross-entropy of targets; a location target may be spread over its neighbours."""

    def __init__(self, recipe: LossRecipe, vocabulary: Vocabulary, device: torch.device) -> None:
        self.location_weight = recipe.location_weight
        self.patch_weight = recipe.patch_weight
        self.first = vocabulary.first_location
        self.cells = vocabulary.bins**2
        self.spread = recipe.location_spread
        self.soft_CC = _soft_cells(vocabulary.bins, recipe.location_spread).to(device)

    def __call__(self, logits_LV: Tensor, target_L: Tensor, patch_loss: Tensor) -> Losses:
        """Return the losses of L targets, and of the patches."""
        logits_LV = logits_LV.float()
        total_L = torch.logsumexp(logits_LV, dim=1)
        hard_L = total_L - logits_LV.gather(1, target_L[:, None])[:, 0]
        cell_L = target_L - self.first
        place_L = (cell_L >= 0) & (cell_L < self.cells)

        text, located = hard_L[~place_L].sum(), hard_L[place_L].sum()
        learnt = self._spread(logits_LV, total_L, cell_L, place_L) if self.spread else located
        weights = (~place_L).sum() + self.location_weight * place_L.sum()
        objective = (text + self.location_weight * learnt) / weights.clamp(min=1)
        return Losses(
            objective=objective + self.patch_weight * patch_loss,
            text_sum=text.detach(),
            text_count=(~place_L).sum(),
            location_sum=located.detach(),
            location_count=place_L.sum(),
            patch_loss=patch_loss.detach(),
        )

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

    def forward(self, features_NPE: Tensor, noun_BP: Tensor, sides_BP4: Tensor) -> Tensor:
        """Return the mean loss in nats: of the noun, plus of one side where there is a thing."""
        read_NPO = self.read(features_NPE[:, 1:] * self.scale).float()
        nouns_NPO, sides_NPO = read_NPO.split([self.num_nouns + 1, 4 * self.bins], dim=-1)
        noun = F.cross_entropy(nouns_NPO.flatten(0, 1), noun_BP.flatten(), ignore_index=UNKNOWN)
        sides = F.cross_entropy(
            sides_NPO.reshape(-1, self.bins), sides_BP4.flatten(), ignore_index=UNKNOWN
        )
        return noun.nan_to_num() + sides.nan_to_num()


def _soft_cells(bins: int, spread: float) -> Tensor:
    """Return soft_CC: row c is the target distribution of cell c (one-hot without spread)."""
    if not spread:
        return torch.eye(bins**2)
    place = torch.arange(bins, dtype=torch.float32)
    near = torch.exp(-((place[:, None] - place) ** 2) / (2 * spread**2))
    near = near / near.sum(1, keepdim=True)
    return torch.kron(near, near)
