"""AdamW with parameter groups, and how its learning rate goes: up in a line, down in a line."""

from __future__ import annotations

import torch
from torch import nn

from kosmos2.training.recipe import OptimizerRecipe


def optimizer_of(network: nn.Module, recipe: OptimizerRecipe) -> torch.optim.AdamW:
    """Return AdamW; matrices decay, and vectors (norms, biases, the class token) do not."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True
    )


def learning_rate(recipe: OptimizerRecipe, step: int) -> float:
    """Return the rate of step 0, 1, ...: warm-up, then linear decay (paper, Table 7)."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    left = (recipe.steps - step) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (recipe.final_share + (1 - recipe.final_share) * left)
