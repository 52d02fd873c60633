"""AdamW with parameter groups, and how its learning rate goes: up in a line, down in a line."""

from __future__ import annotations

import torch
from torch import nn

from kosmos2.training.parts import Parts
from kosmos2.training.recipe import OptimizerRecipe


def optimizer_of(learner: nn.Module, recipe: OptimizerRecipe, parts: Parts) -> torch.optim.AdamW:
    """Return AdamW over what is trained, in groups that share `factor` and decay.

    Matrices decay; vectors (norms, biases, the class token) do not unless the recipe says so.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    trained = [each for each in learner.named_parameters() if each[1].requires_grad]
    for name, parameter in sorted(trained, key=lambda each: each[1].ndim < 2):
        decays = (recipe.decayed == "all" or parameter.ndim >= 2) and parts.decays(name)
        groups.setdefault((parts.factor(name), decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "factor": factor,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for (factor, decays), parameters in groups.items()
        ],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        eps=recipe.eps,
        fused=True,
    )


def learning_rate(recipe: OptimizerRecipe, step: int) -> float:
    """Return the rate of step 0, 1, ...: warm-up, then linear decay (paper, Table 7)."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    left = (recipe.steps - step) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (recipe.final_share + (1 - recipe.final_share) * left)
