"""The loss against PyTorch's own, and its parts apart."""

import pytest
import torch
import torch.nn.functional as F

from kosmos2.data.patches import UNKNOWN
from kosmos2.training.loss import Losses, PatchHead, TargetLoss
from kosmos2.training.recipe import LossRecipe
from kosmos2.vocab.special import Vocabulary

VOCABULARY = Vocabulary(num_pieces=20, bins=4)
FIRST = VOCABULARY.first_location
TARGET_L = torch.tensor([5, FIRST, 9, FIRST + 6, FIRST + 15, 2])
PLACE_L = TARGET_L >= FIRST
CPU = torch.device("cpu")
NO_PATCHES = torch.zeros(2)


def logits() -> torch.Tensor:
    return torch.randn(len(TARGET_L), VOCABULARY.size, generator=torch.Generator().manual_seed(1))


def loss(**recipe: float) -> TargetLoss:
    return TargetLoss(LossRecipe(**recipe), VOCABULARY, CPU)


def alone(
    ours: TargetLoss, patches_2: torch.Tensor = NO_PATCHES, rows: slice = slice(None)
) -> Losses:
    """Of some targets that are all of a step, with one noun and one side known."""
    totals_3 = ours.totals(TARGET_L[rows], torch.zeros(1).long(), torch.zeros(1).long())
    return ours(logits()[rows], TARGET_L[rows], patches_2, totals_3)


def test_without_spread_the_objective_is_plain_cross_entropy() -> None:
    objective = alone(loss()).objective
    torch.testing.assert_close(objective, F.cross_entropy(logits(), TARGET_L))


def test_locations_weigh_as_the_recipe_says() -> None:
    class_weights = torch.ones(VOCABULARY.size)
    class_weights[FIRST : FIRST + 16] = 0.3
    objective = alone(loss(location_weight=0.3)).objective
    torch.testing.assert_close(objective, F.cross_entropy(logits(), TARGET_L, class_weights))


def test_spread_locations_are_cross_entropy_with_soft_targets() -> None:
    spread = 0.8
    soft_LV = F.one_hot(TARGET_L, VOCABULARY.size).float()
    for row in PLACE_L.nonzero()[:, 0]:
        y, x = divmod(int(TARGET_L[row]) - FIRST, 4)
        near = torch.tensor(
            [(X - x) ** 2 + (Y - y) ** 2 for Y in range(4) for X in range(4)], dtype=torch.float32
        )
        soft_LV[row] = 0
        soft_LV[row, FIRST : FIRST + 16] = torch.softmax(-near / (2 * spread**2), dim=0)

    objective = alone(loss(location_spread=spread)).objective
    torch.testing.assert_close(objective, F.cross_entropy(logits(), soft_LV))


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_text_and_location_sums_are_counted_apart_in_nats_of_the_true_token(spread: float) -> None:
    losses = alone(loss(location_spread=spread, location_weight=0.5))
    nats_L = F.cross_entropy(logits(), TARGET_L, reduction="none")
    torch.testing.assert_close(losses.text_sum, nats_L[~PLACE_L].sum())
    torch.testing.assert_close(losses.location_sum, nats_L[PLACE_L].sum())
    assert (int(losses.text_count), int(losses.location_count)) == (3, 3)


def test_what_patches_show_is_added_by_its_weight() -> None:
    plain = alone(loss()).objective
    losses = alone(loss(patch_weight=0.4), torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(losses.objective, plain + 0.4 * 2.5)
    assert losses.patch_loss == 2.5


def test_without_targets_the_patches_alone_are_learnt() -> None:
    patches_2 = torch.tensor([2.0, 0.5], requires_grad=True)
    none = alone(loss(patch_weight=1.0), patches_2, slice(0))
    none.objective.backward()  # type: ignore[no-untyped-call]
    assert none.objective == 2.5


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_a_step_costs_the_same_however_its_targets_are_cut_into_batches(spread: float) -> None:
    ours = loss(location_weight=0.3, location_spread=spread, patch_weight=0.5)
    nouns, sides = torch.tensor([0, 1, UNKNOWN]), torch.tensor([2, UNKNOWN, UNKNOWN])
    whole_3 = ours.totals(TARGET_L, nouns, sides)
    whole = ours(logits(), TARGET_L, torch.tensor([3.0, 1.0]), whole_3).objective

    cuts = (slice(0, 1), slice(1, 5), slice(5, 6))
    totals = [
        ours.totals(TARGET_L[cut], nouns[n : n + 1], sides[n : n + 1]) for n, cut in enumerate(cuts)
    ]
    torch.testing.assert_close(torch.stack(totals).sum(0), whole_3)
    parts = [
        ours(logits()[cut], TARGET_L[cut], torch.tensor(patches), whole_3).objective
        for cut, patches in zip(cuts, ([1.5, 1.0], [1.5, 0.0], [0.0, 0.0]), strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_one_batch_costs_to_the_bit_what_it_cost_when_batches_had_their_own_mean() -> None:
    # The published embedded model was trained so.
    ours, patches = loss(location_weight=0.7, patch_weight=1.0), head()
    features_NPE = F.normalize(torch.randn(2, 4, 8), dim=-1)
    noun_NP = torch.tensor([[0, 2, UNKNOWN], [3, UNKNOWN, 1]])
    sides_NP4 = torch.where(torch.arange(4) > 1, noun_NP[..., None].clamp(0, 3), UNKNOWN)

    def before(logits_LV: torch.Tensor, read_NPO: torch.Tensor) -> torch.Tensor:
        nats_L = torch.logsumexp(logits_LV, 1) - logits_LV.gather(1, TARGET_L[:, None])[:, 0]
        weights = (~PLACE_L).sum() + 0.7 * PLACE_L.sum()
        answers = (nats_L[~PLACE_L].sum() + 0.7 * nats_L[PLACE_L].sum()) / weights
        noun = F.cross_entropy(read_NPO[..., :4].flatten(0, 1), noun_NP.flatten())
        side = F.cross_entropy(read_NPO[..., 4:].reshape(-1, 4), sides_NP4.flatten())
        return answers + 1.0 * (noun + side)

    def gradients(objective: torch.Tensor, logits_LV: torch.Tensor) -> list[torch.Tensor]:
        inputs = [logits_LV, patches.read.weight, patches.read.bias]
        return [objective.detach(), *torch.autograd.grad(objective, inputs)]

    old_LV, new_LV = logits().requires_grad_(), logits().requires_grad_()
    read_NPO = patches.read(features_NPE[:, 1:] * patches.scale)
    old = gradients(before(old_LV, read_NPO), old_LV)
    totals_3 = ours.totals(TARGET_L, noun_NP, sides_NP4)
    patches_2 = patches(features_NPE, noun_NP, sides_NP4)
    new = gradients(ours(new_LV, TARGET_L, patches_2, totals_3).objective, new_LV)
    assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))


def head() -> PatchHead:
    torch.manual_seed(0)
    return PatchHead(width=8, num_nouns=3, bins=4)


def test_the_patch_loss_is_noun_plus_side_cross_entropy_over_what_is_known() -> None:
    ours = head()
    features_NPE = F.normalize(torch.randn(2, 4, 8), dim=-1)
    noun_BP = torch.tensor([[0, 2, UNKNOWN], [3, UNKNOWN, 1]])
    sides_BP4 = torch.full((2, 3, 4), UNKNOWN)
    sides_BP4[0, 1] = torch.tensor([0, 1, 2, 3])
    sides_BP4[1, 2] = torch.tensor([3, 3, 0, 0])

    read = [[ours.read(features_NPE[n, p + 1] * 8**0.5) for p in range(3)] for n in range(2)]
    known = [(0, 0), (0, 1), (1, 0), (1, 2)]
    nouns = [F.cross_entropy(read[n][p][:4], noun_BP[n, p]) for n, p in known]
    sides = [
        F.cross_entropy(read[n][p][4 + 4 * side : 8 + 4 * side], sides_BP4[n, p, side])
        for n, p in ((0, 1), (1, 2))
        for side in range(4)
    ]
    expected = torch.stack(nouns).mean() + torch.stack(sides).mean()
    known_2 = torch.tensor([4, 8])
    torch.testing.assert_close((ours(features_NPE, noun_BP, sides_BP4) / known_2).sum(), expected)


def test_pictures_of_unknown_patches_neither_cost_nor_teach() -> None:
    ours = head()
    features_NPE = torch.randn(2, 4, 8, requires_grad=True)
    cost = ours(features_NPE, torch.full((2, 3), UNKNOWN), torch.full((2, 3, 4), UNKNOWN))
    cost.sum().backward()
    assert not cost.any()
    for learner in (features_NPE, ours.read.weight):
        assert learner.grad is not None
        assert not learner.grad.any()
