"""Decoder and vision tower in C in bf16: near the exact numbers, a token's its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from model_cases import TINY, random_ids, random_network, random_pixels
from torch import Tensor

from kosmos2.engine.build import from_network
from kosmos2.engine.native_runner import NativeRunner, NativeTower, fastest
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.kernels import native
from kosmos2.kernels.kind import Precision
from kosmos2.model import ModelConfig

ODD = replace(
    TINY,
    text=replace(TINY.text, width=90, feedforward_width=74, num_heads=9),
    vision=replace(TINY.vision, width=42, feedforward_width=50),
)
CONFIGS = pytest.mark.parametrize("config", [TINY, ODD], ids=["tiny", "odd"])


@pytest.fixture(autouse=True)
def bf16(built: object) -> None:
    if not native.multiplies_bf16():
        pytest.skip("this processor has no instructions for bf16")


def pair(config: ModelConfig) -> tuple[Runner, NativeRunner]:
    """The exact numbers, and the kernels."""
    network = random_network(config)
    fast = fastest(from_network(network, Precision.BF16))
    assert isinstance(fast, NativeRunner)
    return from_network(network.double()), fast


def read(runner: Runner, rows: list[list[int]], counts: list[int]) -> list[Tensor]:
    """Read the rows together, so many tokens at a time; return logits_TV of each row."""
    cache = runner.new_cache(len(rows), len(rows[0]))
    found: list[list[Tensor]] = [[] for _ in rows]
    start = 0
    with torch.inference_mode():
        for count in counts:
            ids = [id for row in rows for id in row[start : start + count]]
            positions = [*range(start + FIRST_POSITION, start + FIRST_POSITION + count)] * len(rows)
            x_ND = runner.enter(ids, positions, [False] * len(ids), None)
            hidden_ND = runner.extend(cache, 0, x_ND, [count] * len(rows), range(len(ids)))
            for row, logits_TV in enumerate(runner.logits(hidden_ND).split(count)):
                found[row].append(logits_TV)
            start += count
    return [torch.cat(each) for each in found]


@CONFIGS
def test_a_text_is_scored_near_the_exact_numbers(config: ModelConfig) -> None:
    exact, fast = pair(config)
    rows: list[list[int]] = random_ids(TINY, 2, 20).tolist()
    for actual_TV, expected_TV in zip(read(fast, rows, [20]), read(exact, rows, [20]), strict=True):
        assert actual_TV.dtype is torch.float32
        assert (actual_TV - expected_TV).norm() <= 3e-2 * expected_TV.norm()


@CONFIGS
def test_a_row_is_the_same_to_the_last_bit_in_parts_and_beside_others(config: ModelConfig) -> None:
    _, fast = pair(config)
    rows: list[list[int]] = random_ids(TINY, 5, 20).tolist()
    together = read(fast, rows, [9, 1, 1, 7, 2])
    for row, logits_TV in zip(rows, together, strict=True):
        assert torch.equal(logits_TV, read(fast, [row], [20])[0])


@CONFIGS
def test_pictures_are_encoded_near_the_exact_numbers_by_a_tower_in_c(config: ModelConfig) -> None:
    exact, fast = pair(config)
    pixels_NCYX = random_pixels(config, 3)
    with torch.inference_mode():
        expected_NQD, actual_NQD = exact.encode_images(pixels_NCYX), fast.encode_images(pixels_NCYX)
    assert isinstance(fast.vision.blocks[0], NativeTower)
    assert (actual_NQD - expected_NQD).norm() <= 3e-2 * expected_NQD.norm()


def test_the_runner_it_is_made_from_stays_as_it_was() -> None:
    plain = from_network(random_network(TINY), Precision.BF16)
    with torch.inference_mode():
        before_NQD = plain.encode_images(random_pixels(TINY, 1))
        fastest(plain)
        assert torch.equal(plain.encode_images(random_pixels(TINY, 1)), before_NQD)
    assert len(plain.vision.blocks) == TINY.vision.num_layers
