"""Numbers recorded once from transformers 5.23 (eager, float32): they need no other library.

Weights, pixels and ids are formulas, so the numbers also hold where transformers is not installed
or has changed.
"""

from collections.abc import Sequence

import pytest
import torch
from model_cases import TINY, image_mask_at
from torch import Tensor

from kosmos2.model import Network, masked_loss
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.tensors import StateSource, assemble

IDS_BT = torch.tensor([[0, 5, 4, 5, 6, 7, 20, 33, 41, 9], [0, 5, 4, 5, 6, 7, 50, 61, 72, 88]])
IMAGE_MASK_BT = image_mask_at(10, 2, num_latents=3).expand(2, -1)


def sines(count: int, *, step: float, start: float = 0.0) -> Tensor:
    return torch.sin(start + step * torch.arange(count, dtype=torch.float64))


@pytest.fixture(scope="module")
def network() -> Network:
    """The tiny network whose tensors, sorted by Hugging Face's names, follow a sine."""
    with torch.device("meta"):
        shapes = {
            HUGGINGFACE.theirs(name): parameter.shape
            for name, parameter in Network(TINY).named_parameters()
        }
    state = {}
    for number, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        wave = sines(shape.numel(), step=0.7, start=0.1 * number).view(shape)
        if any(norm in name for norm in ("norm", "_ln.")) and name.endswith("weight"):
            state[name] = (1 + 0.1 * wave).float()
        else:
            state[name] = ((0.1 if len(shape) == 1 else 0.2) * wave).float()
    return assemble(
        TINY, HUGGINGFACE, StateSource(state), dtype=torch.float32, device=torch.device("cpu")
    )


@pytest.fixture(scope="module", name="pixels_NCYX")
def wave_pixels() -> Tensor:
    return sines(2 * 3 * 28 * 28, step=0.05).float().view(2, 3, 28, 28)


def assert_near(actual: Tensor, expected: Sequence[float]) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected))


@torch.no_grad()
def test_the_vision_tower_gives_the_recorded_numbers(network: Network, pixels_NCYX: Tensor) -> None:
    assert_near(
        network.vision.hidden(pixels_NCYX)[0, 0, :4],
        [0.10231426, -0.97737980, 0.88201189, 2.05071497],
    )
    assert_near(
        network.vision(pixels_NCYX)[1, 4, :4],
        [0.04266233, -0.10431641, -0.39968571, 0.17894992],
    )


@torch.no_grad()
def test_the_resampler_gives_the_recorded_numbers(network: Network, pixels_NCYX: Tensor) -> None:
    latents_NQD = network.encode_images(pixels_NCYX)
    assert_near(latents_NQD[0, 0, :4], [0.37251174, -0.25972435, 0.41773933, -0.18847771])
    assert_near(latents_NQD[1, 2, -4:], [0.10799754, -0.06132751, 0.31707278, -0.36185154])


@torch.no_grad()
def test_the_logits_and_the_loss_are_the_recorded_ones(
    network: Network, pixels_NCYX: Tensor
) -> None:
    logits_BTV = network(IDS_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=IMAGE_MASK_BT).logits_BTV
    assert_near(
        logits_BTV[0, -1, :5], [0.08521210, -1.05621815, 1.85311317, -2.34453297, 2.44947219]
    )
    assert_near(
        logits_BTV[1, -1, :5], [-2.06462908, 2.15611219, -1.89217293, 1.31632102, -0.52348113]
    )
    assert_near(
        logits_BTV[1, 3, :5], [-0.65870774, 0.19013590, 0.30977800, -0.75862712, 1.08242130]
    )
    torch.testing.assert_close(logits_BTV.abs().mean().item(), 1.30538673, rtol=1e-6, atol=0)
    loss = masked_loss(logits_BTV, IDS_BT, torch.ones(2, 10))
    torch.testing.assert_close(loss.item(), 5.65849937, rtol=1e-6, atol=0)


@torch.no_grad()
def test_greedy_decoding_without_repeated_trigrams_gives_the_recorded_tokens(
    network: Network, pixels_NCYX: Tensor
) -> None:
    latents_NQD = network.encode_images(pixels_NCYX)
    generated = []
    for row in range(2):
        ids = IDS_BT[row].tolist()
        for _ in range(6):
            mask_BT = image_mask_at(len(ids), 2, num_latents=3)[None]
            output = network(
                torch.tensor([ids]), latents_NQD=latents_NQD[row : row + 1], image_mask_BT=mask_BT
            )
            scores_V = output.logits_BTV[0, -1]
            scores_V[banned(ids)] = -torch.inf
            ids.append(int(scores_V.argmax()))
        generated.append(ids[-6:])
    assert generated == [[96, 82, 75, 29, 6, 6], [93, 61, 45, 91, 91, 91]]


def banned(ids: Sequence[int]) -> list[int]:
    """The tokens that would complete a trigram which is there already."""
    trigrams = zip(ids, ids[1:], ids[2:], strict=False)
    return [third for first, second, third in trigrams if [first, second] == list(ids[-2:])]
