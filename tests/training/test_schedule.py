"""How the learning rate goes, and which weights decay."""

import pytest
import run_cases
from torch import nn

from kosmos2.errors import ConfigError
from kosmos2.model import Network
from kosmos2.training.parts import Parts
from kosmos2.training.recipe import OptimizerRecipe
from kosmos2.training.schedule import learning_rate, optimizer_of
from kosmos2.vocab.special import Vocabulary

RECIPE = OptimizerRecipe(steps=100, learning_rate=0.4, warmup_steps=8, weight_decay=0.05)
PARTS = Parts(run_cases.RECIPE, Vocabulary(num_pieces=300, bins=8))


def rates(recipe: OptimizerRecipe) -> list[float]:
    return [learning_rate(recipe, step) for step in range(recipe.steps)]


def test_the_rate_rises_in_a_line_to_its_top_and_falls_in_a_line_to_nothing() -> None:
    rising, falling = rates(RECIPE)[:8], rates(RECIPE)[8:]
    assert rising == pytest.approx([0.05 * step for step in range(1, 9)])
    assert falling == pytest.approx([0.4 * (92 - step) / 92 for step in range(92)])
    assert learning_rate(RECIPE, 100) == 0


def test_the_decay_may_lead_to_a_share_of_the_top() -> None:
    recipe = OptimizerRecipe(steps=50, learning_rate=0.4, warmup_steps=10, final_share=0.25)
    assert learning_rate(recipe, 10) == pytest.approx(0.4)
    assert learning_rate(recipe, 30) == pytest.approx(0.25)
    assert learning_rate(recipe, 50) == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0, 10])
def test_no_warm_up_and_nothing_else_are_schedules_too(warmup: int) -> None:
    recipe = OptimizerRecipe(steps=10, learning_rate=0.4, warmup_steps=warmup)
    assert max(rates(recipe)) == pytest.approx(0.4)
    assert min(rates(recipe)) > 0


def test_matrices_decay_and_vectors_do_not() -> None:
    network = Network(run_cases.RECIPE.model)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decayed, kept = (
        {names[id(each)] for each in group["params"]}
        for group in optimizer_of(network, RECIPE, PARTS).param_groups
    )

    vectors = {"vision.class_embedding"}
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm):
            vectors |= {f"{name}.weight", f"{name}.bias"}
        elif isinstance(module, nn.Linear):
            vectors.add(f"{name}.bias")
    assert kept == vectors
    assert decayed == set(names.values()) - vectors


def test_the_optimizer_is_the_recipe_s() -> None:
    optimizer = optimizer_of(nn.Linear(2, 2), RECIPE, PARTS)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert optimizer.defaults["betas"] == RECIPE.betas
    assert optimizer.defaults["eps"] == RECIPE.eps


def test_frozen_weights_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    assert (
        sum(len(group["params"]) for group in optimizer_of(layer, RECIPE, PARTS).param_groups) == 1
    )


@pytest.mark.parametrize("warmup", [-1, 11])
def test_a_warm_up_longer_than_the_run_is_refused(warmup: int) -> None:
    with pytest.raises(ConfigError, match="warmup_steps"):
        OptimizerRecipe(steps=10, warmup_steps=warmup)
