"""First weights: all drawn from one generator, near places near."""

import math

import torch
from torch.nn.functional import cosine_similarity

from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.training.initialise import initialise
from kosmos2.vocab.special import Vocabulary

VOCABULARY = Vocabulary(num_pieces=30, bins=8)
CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=VOCABULARY.size, width=64, feedforward_width=128, num_layers=2, num_heads=2
    ),
    vision=VisionConfig(
        width=48, feedforward_width=96, num_layers=2, num_heads=2, image_size=32, patch_size=4
    ),
    num_latents=16,
)


def network(*, built_with: int = 0, seed: int = 3) -> Network:
    torch.manual_seed(built_with)
    made = Network(CONFIG)
    initialise(made, VOCABULARY, torch.Generator().manual_seed(seed))
    return made


def test_every_first_weight_comes_from_the_generator_alone() -> None:
    one, other = network(built_with=1), network(built_with=2)
    for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_another_seed_gives_other_weights() -> None:
    one, other = network(seed=3), network(seed=4)
    same = [
        name
        for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True)
        if ours.ndim > 1 and torch.equal(ours, theirs)
    ]
    assert not same


def test_all_weights_are_finite_and_none_is_left_at_zero() -> None:
    for name, parameter in network().named_parameters():
        assert parameter.isfinite().all(), name
        if parameter.ndim > 1:
            assert (parameter != 0).float().mean() > 0.9, name


def mean_similarity(rows_PD: torch.Tensor, side: int, distance: int) -> float:
    """Of all pairs of cells this far apart in a row."""
    grid = rows_PD.view(side, side, -1)
    return float(cosine_similarity(grid[:, :-distance], grid[:, distance:], dim=-1).mean())


def test_neighbouring_location_tokens_are_alike_and_far_ones_are_not() -> None:
    first, side = VOCABULARY.first_location, VOCABULARY.bins
    cells_PD = network().decoder.embedding.weight[first : first + side**2].detach()
    near, middle, far = (mean_similarity(cells_PD, side, distance) for distance in (1, 3, 7))
    assert near > 0.5
    assert near > middle > far


def test_every_location_token_is_most_like_its_own_neighbourhood() -> None:
    first, side = VOCABULARY.first_location, VOCABULARY.bins
    cells_PD = network().decoder.embedding.weight[first : first + side**2].detach()
    similarity_PP = cosine_similarity(cells_PD[:, None], cells_PD, dim=-1).fill_diagonal_(-1)
    for cell, nearest in enumerate(similarity_PP.argmax(dim=1).tolist()):
        (y, x), (other_y, other_x) = divmod(cell, side), divmod(nearest, side)
        assert max(abs(y - other_y), abs(x - other_x)) == 1


def test_location_tokens_are_as_loud_as_words() -> None:
    weight = network().decoder.embedding.weight.detach()
    words, cells = weight[4:34], weight[VOCABULARY.first_location :]
    assert math.isclose(float(words.std()), 64**-0.5, rel_tol=0.1)
    assert math.isclose(float(cells.std()), 64**-0.5, rel_tol=0.1)


def test_neighbouring_patches_have_like_positions_and_the_class_token_none() -> None:
    positions = network().vision.positions.detach()
    assert not positions[0].any()
    assert mean_similarity(positions[1:], 8, 1) > mean_similarity(positions[1:], 8, 6)


def test_padding_is_nothing() -> None:
    assert not network().decoder.embedding.weight[VOCABULARY.pad].any()


@torch.no_grad()
def test_each_latent_begins_by_looking_at_its_own_part_of_the_picture() -> None:
    made = network()
    resampler, tower = made.resampler, made.vision
    places_PE = torch.nn.functional.normalize(tower.positions[1:], dim=-1)
    keys_PD = resampler.key(resampler.input(places_PE))
    scores_QP = resampler.query(resampler.latents.view(16, -1)) @ keys_PD.T
    away = []
    for latent, patch in enumerate(scores_QP.argmax(dim=1).tolist()):
        y, x = (place * 2 + 0.5 for place in divmod(latent, 4))  # centres on the 8 x 8 patches
        patch_y, patch_x = divmod(patch, 8)
        away.append(math.hypot(patch_y - y, patch_x - x))
    assert sum(away) / len(away) < 1.8  # any two patches lie 4 apart in the mean
