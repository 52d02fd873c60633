"""Operations counted by formula = counted by PyTorch while they happen."""

import dataclasses

import pytest
import torch
from run_cases import RECIPE
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kosmos2.model import ModelConfig, Network
from kosmos2.model.decoder import causal_mask, positions_of
from kosmos2.training.flops import Flops, Load, forward_flops, training_flops

CONFIG = dataclasses.replace(
    RECIPE.model,
    text=dataclasses.replace(
        RECIPE.model.text, width=24, feedforward_width=40, num_layers=3, vocab_size=50
    ),
    num_latents=5,
)
PARTS = Flops(vision=100.0, resampler=10.0, decoder=1000.0)


def counted(network: Network, *, pictures: int, targets: int) -> int:
    keep_BT = torch.ones(pictures, 12, dtype=torch.bool)
    side = CONFIG.vision.image_size
    network.requires_grad_(False)
    # The counter does not know the fused attention of processors.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.encode_images(torch.zeros(pictures, 3, side, side))
        hidden_BTD = network.decode(
            torch.zeros(pictures, 12, 24), positions_of(keep_BT), causal_mask(keep_BT)
        )
        network.logits(hidden_BTD.flatten(0, 1)[:targets])
    return counter.get_total_flops()


def test_the_forward_pass_costs_what_pytorch_counts() -> None:
    load = Load(pictures=2, tokens=24, pairs=24 * 12, targets=7)
    expected = counted(Network(CONFIG), pictures=2, targets=7)
    assert forward_flops(CONFIG, load).total == expected


def test_without_targets_only_the_tower_costs() -> None:
    flops = forward_flops(CONFIG, Load(pictures=2, tokens=24, pairs=24 * 12, targets=0))
    assert flops.total == flops.vision > 0


def test_the_full_size_costs_two_operations_a_weight_and_token() -> None:
    load = Load(pictures=0, tokens=1000, pairs=0, targets=1000)
    weights = 24 * (4 * 2048**2 + 2 * 2048 * 8192) + 2048 * 65037
    assert forward_flops(ModelConfig(), load).total == 2 * 1000 * weights


@pytest.mark.parametrize(
    ("vision", "resampler", "decoder", "expected"),
    [
        (True, True, True, 3 * 1110),
        (False, True, True, 100 + 3 * 1010),
        (False, False, True, 110 + 3 * 1000),
        (True, False, False, 3 * 100 + 2 * 1010),
        (False, False, False, 1110),
    ],
    ids=["all", "no tower", "decoder alone", "tower alone", "nothing"],
)
def test_the_backward_pass_stops_below_the_lowest_part_that_is_trained(
    vision: bool, resampler: bool, decoder: bool, expected: float
) -> None:
    assert training_flops(PARTS, vision=vision, resampler=resampler, decoder=decoder) == expected
