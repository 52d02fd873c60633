"""The loss against PyTorch's own, and its parts apart."""

import pytest
import torch
import torch.nn.functional as F

from kosmos2.data.patches import UNKNOWN
from kosmos2.training.loss import PatchHead, TargetLoss
from kosmos2.training.recipe import LossRecipe
from kosmos2.vocab.special import Vocabulary

VOCABULARY = Vocabulary(num_pieces=20, bins=4)
FIRST = VOCABULARY.first_location
TARGET_L = torch.tensor([5, FIRST, 9, FIRST + 6, FIRST + 15, 2])
PLACE_L = TARGET_L >= FIRST
CPU = torch.device("cpu")
NO_PATCHES = torch.zeros(())


def logits() -> torch.Tensor:
    return torch.randn(len(TARGET_L), VOCABULARY.size, generator=torch.Generator().manual_seed(1))


def loss(**recipe: float) -> TargetLoss:
    return TargetLoss(LossRecipe(**recipe), VOCABULARY, CPU)


def test_without_spread_the_objective_is_plain_cross_entropy() -> None:
    objective = loss()(logits(), TARGET_L, NO_PATCHES).objective
    torch.testing.assert_close(objective, F.cross_entropy(logits(), TARGET_L))


def test_locations_weigh_as_the_recipe_says() -> None:
    class_weights = torch.ones(VOCABULARY.size)
    class_weights[FIRST : FIRST + 16] = 0.3
    objective = loss(location_weight=0.3)(logits(), TARGET_L, NO_PATCHES).objective
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

    objective = loss(location_spread=spread)(logits(), TARGET_L, NO_PATCHES).objective
    torch.testing.assert_close(objective, F.cross_entropy(logits(), soft_LV))


@pytest.mark.parametrize("spread", [0.0, 0.8])
def test_text_and_location_sums_are_counted_apart_in_nats_of_the_true_token(spread: float) -> None:
    losses = loss(location_spread=spread, location_weight=0.5)(logits(), TARGET_L, NO_PATCHES)
    nats_L = F.cross_entropy(logits(), TARGET_L, reduction="none")
    torch.testing.assert_close(losses.text_sum, nats_L[~PLACE_L].sum())
    torch.testing.assert_close(losses.location_sum, nats_L[PLACE_L].sum())
    assert (int(losses.text_count), int(losses.location_count)) == (3, 3)


def test_what_patches_show_is_added_by_its_weight() -> None:
    patches = torch.tensor(2.5)
    alone = loss()(logits(), TARGET_L, NO_PATCHES).objective
    losses = loss(patch_weight=0.4)(logits(), TARGET_L, patches)
    torch.testing.assert_close(losses.objective, alone + 0.4 * 2.5)
    assert losses.patch_loss == patches


def test_without_targets_the_patches_alone_are_learnt() -> None:
    none = loss(patch_weight=1.0)(
        torch.zeros(0, VOCABULARY.size), TARGET_L[:0], torch.tensor(2.5, requires_grad=True)
    )
    none.objective.backward()  # type: ignore[no-untyped-call]
    assert none.objective == 2.5


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
    torch.testing.assert_close(ours(features_NPE, noun_BP, sides_BP4), expected)


def test_pictures_of_unknown_patches_neither_cost_nor_teach() -> None:
    ours = head()
    features_NPE = torch.randn(2, 4, 8, requires_grad=True)
    cost = ours(features_NPE, torch.full((2, 3), UNKNOWN), torch.full((2, 3, 4), UNKNOWN))
    cost.backward()
    assert cost == 0
    for learner in (features_NPE, ours.read.weight):
        assert learner.grad is not None
        assert not learner.grad.any()
