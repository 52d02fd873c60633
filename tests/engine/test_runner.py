"""Laws of the runner: how texts are fed to it must not change what comes out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import TINY, random_ids, random_network, random_pixels
from torch import Tensor

from kosmos2.engine.build import consuming, from_network
from kosmos2.engine.cache import RowCache
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.errors import RequestError
from kosmos2.kernels.kind import Precision
from kosmos2.model import Network

EXACT = random_network(TINY).double()
RUNNER = from_network(EXACT)


def read(
    runner: Runner, cache: RowCache, first: int, parts: list[list[int]], wanted: list[int]
) -> Tensor:
    """Append texts to rows first, first + 1, ...; return logits_MV of the wanted tokens."""
    ids = [id for part in parts for id in part]
    positions = [
        cache.lengths[row] + at + FIRST_POSITION
        for row, part in enumerate(parts, start=first)
        for at in range(len(part))
    ]
    with torch.inference_mode():
        x_ND = runner.enter(ids, positions, [False] * len(ids), None)
        return runner.logits(runner.extend(cache, first, x_ND, [*map(len, parts)], wanted))


def texts(num_rows: int, length: int, seed: int) -> list[list[int]]:
    rows: list[list[int]] = random_ids(TINY, num_rows, length, seed=seed).tolist()
    return rows


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), max_size=4),
    first=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_rows_read_in_unequal_parts_equal_each_text_read_at_once(
    sizes: list[tuple[int, int, int]], first: int, seed: int
) -> None:
    cache = RUNNER.new_cache(first + 3, 20)
    rows = texts(3, 20, seed)
    for counts in sizes:
        starts = cache.lengths[first : first + 3]
        parts = [row[at : at + n] for row, at, n in zip(rows, starts, counts, strict=True)]
        logits_NV = read(RUNNER, cache, first, parts, list(range(sum(counts))))
        for row, start, own_TV in zip(rows, starts, logits_NV.split(list(counts)), strict=True):
            whole_BTV = EXACT(torch.tensor([row])).logits_BTV
            torch.testing.assert_close(own_TV, whole_BTV[0, start : start + len(own_TV)])


@pytest.mark.parametrize("wanted", [[0], [4], [1, 3], [0, 1, 2, 3, 4]])
def test_only_the_wanted_tokens_come_back_and_all_are_held(wanted: list[int]) -> None:
    cache, (row,) = RUNNER.new_cache(1, 8), texts(1, 6, 0)
    whole_TV = EXACT(torch.tensor([row])).logits_BTV[0]
    torch.testing.assert_close(read(RUNNER, cache, 0, [row[:5]], wanted), whole_TV[wanted])
    torch.testing.assert_close(read(RUNNER, cache, 0, [row[5:]], [0]), whole_TV[5:])


def test_texts_go_on_past_the_table_of_positions() -> None:
    length = TINY.text.max_positions + 400
    (row,) = texts(1, length, 1)
    cache = RUNNER.new_cache(1, length)
    read(RUNNER, cache, 0, [row[:-2]], [0])
    last_TV = read(RUNNER, cache, 0, [row[-2:]], [0, 1])
    torch.testing.assert_close(last_TV, EXACT(torch.tensor([row])).logits_BTV[0, -2:])


def test_pictures_take_the_place_of_their_tokens() -> None:
    ids_BT = random_ids(TINY, 1, 9)
    mask = [False, True, True, True, False, True, True, True, False]
    pixels_NCYX = random_pixels(TINY, 2).double()
    with torch.inference_mode():
        latents_NQD = RUNNER.encode_images(pixels_NCYX)
        positions = range(FIRST_POSITION, FIRST_POSITION + 9)
        x_ND = RUNNER.enter(ids_BT[0].tolist(), positions, mask, latents_NQD.flatten(0, 1))
        hidden_MD = RUNNER.extend(RUNNER.new_cache(1, 9), 0, x_ND, [9], range(9))
        expected = EXACT(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=torch.tensor([mask]))
    torch.testing.assert_close(latents_NQD, expected.latents_NQD)
    torch.testing.assert_close(hidden_MD, expected.hidden_BTD[0])


def test_a_row_goes_on_where_it_was_moved_or_copied_to() -> None:
    cache, rows = RUNNER.new_cache(2, 10), texts(2, 8, 3)
    read(RUNNER, cache, 0, [rows[0][:5], rows[1][:7]], [0])
    cache.copy_row(1, 0)
    cache.grow(3, 12)
    shared = cache.read(1, 0, 4)
    cache.write(2, shared)
    assert cache.lengths == [7, 7, 4]
    last_MV = read(RUNNER, cache, 0, [rows[1][7:], rows[1][7:], rows[1][4:]], [0, 1, 5])
    whole_V = EXACT(torch.tensor([rows[1]])).logits_BTV[0, -1]
    for own_V in last_MV:
        torch.testing.assert_close(own_V, whole_V)


def test_a_full_row_says_what_it_holds_and_what_is_needed() -> None:
    with pytest.raises(RequestError, match="holds 4 tokens, 6 are needed"):
        read(RUNNER, RUNNER.new_cache(1, 4), 0, texts(1, 6, 0), [0])


@pytest.mark.parametrize(
    ("precision", "bound"),
    [(Precision.FP32, 1e-5), (Precision.BF16, 0.05), (Precision.INT8, 0.05)],
)
def test_every_precision_stays_near_the_exact_numbers(precision: Precision, bound: float) -> None:
    runner, (row,) = from_network(EXACT, precision), texts(1, 12, 5)
    ours_TV = read(runner, runner.new_cache(1, 12), 0, [row], list(range(12)))
    exact_TV = EXACT(torch.tensor([row])).logits_BTV[0]
    error = (ours_TV - exact_TV).norm() / exact_TV.norm()
    assert error < bound
    assert runner.dtype is precision.activations(runner.device)


def test_a_consumed_network_gives_up_its_matrices_for_the_same_runner() -> None:
    network = random_network(TINY).double()
    runner, (row,) = consuming(network, Precision.FP64), texts(1, 6, 0)
    assert network.decoder.blocks[0].query.weight.numel() == 0
    ours_TV = read(runner, runner.new_cache(1, 6), 0, [row], [5])
    torch.testing.assert_close(ours_TV, read(RUNNER, RUNNER.new_cache(1, 6), 0, [row], [5]))


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(RequestError, match=r"network\.eval\(\)"):
        from_network(Network(TINY))
