"""The decoder in C: near the runner in torch; a token's numbers are its own, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_cases import TINY, random_ids, random_network
from torch import Tensor

from kosmos2.engine.build import from_network
from kosmos2.engine.cache import RowCache
from kosmos2.engine.native_runner import NativeRunner, fastest
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.errors import RequestError
from kosmos2.kernels import native
from kosmos2.kernels.kind import Precision
from kosmos2.model import ModelConfig

WIDE = replace(
    TINY, text=replace(TINY.text, width=256, feedforward_width=384, num_heads=4, num_layers=3)
)
ODD = replace(
    TINY, text=replace(TINY.text, width=90, feedforward_width=74, num_heads=9, num_layers=1)
)
KINDS = [(TINY, Precision.INT8), (ODD, Precision.INT8), (WIDE, Precision.INT8),
         (WIDE, Precision.INT4)]  # fmt: skip
NAMES = ["tiny-int8", "odd-int8", "wide-int8", "wide-int4"]


def pair(config: ModelConfig, precision: Precision) -> tuple[Runner, NativeRunner]:
    """The same matrices in both runners: what differs is the order of float sums."""
    plain = from_network(random_network(config), precision)
    plain = Runner(
        plain.config, plain.precision, vision=plain.vision, resampler=plain.resampler,
        table=plain.table, blocks=plain.blocks, norm=plain.norm,
    )  # fmt: skip
    fast = fastest(plain)
    assert isinstance(fast, NativeRunner)
    return plain, fast


def read(
    runner: Runner,
    cache: RowCache,
    parts: Sequence[Sequence[int]],
    wanted: Sequence[int] | None = None,
    first: int = 0,
) -> Tensor:
    """Append texts to the rows from `first` on; return logits_MV of the wanted tokens."""
    ids = [id for part in parts for id in part]
    positions = [
        cache.lengths[row] + at + FIRST_POSITION
        for row, part in enumerate(parts, start=first)
        for at in range(len(part))
    ]
    wanted = range(len(ids)) if wanted is None else wanted
    with torch.inference_mode():
        x_ND = runner.enter(ids, positions, [False] * len(ids), None)
        return runner.logits(runner.extend(cache, first, x_ND, [*map(len, parts)], wanted))


def texts(num_rows: int, length: int, seed: int = 0) -> list[list[int]]:
    rows: list[list[int]] = random_ids(TINY, num_rows, length, seed=seed).tolist()
    return rows


def assert_near(actual: Tensor, expected: Tensor, share: float) -> None:
    """A rounding that falls the other way moves a number by a 127th of its row's largest."""
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= share * expected.norm()


@pytest.mark.parametrize(("config", "precision"), KINDS, ids=NAMES)
def test_a_text_is_scored_as_by_the_runner_in_torch(
    every_set: str, config: ModelConfig, precision: Precision
) -> None:
    plain, fast = pair(config, precision)
    rows = texts(3, 21)
    expected = read(plain, plain.new_cache(3, 24), rows)
    assert_near(read(fast, fast.new_cache(3, 24), rows), expected, 2e-2)


@pytest.mark.parametrize(("config", "precision"), KINDS[2:], ids=NAMES[2:])
@pytest.mark.parametrize("num_rows", [1, 2, 7, 8, 9, 33])
def test_steps_of_many_rows_are_those_of_the_runner_in_torch(
    built: object, config: ModelConfig, precision: Precision, num_rows: int
) -> None:
    plain, fast = pair(config, precision)
    caches = plain.new_cache(num_rows, 9), fast.new_cache(num_rows, 9)
    rows = texts(num_rows, 8)
    for start, stop in itertools.pairwise([0, 3, 4, 5, 8]):
        parts = [row[start:stop] for row in rows]
        expected, actual = (
            read(runner, cache, parts) for runner, cache in zip((plain, fast), caches, strict=True)
        )
        assert_near(actual, expected, 2e-2)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(range(len(KINDS))),
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=3), min_size=1, max_size=3),
    order=st.permutations(range(3)),
    seed=st.integers(0, 99),
)
def test_a_row_is_the_same_to_the_last_bit_alone_and_in_parts_and_beside_any_others(
    built: object, kind: int, sizes: list[list[int]], order: list[int], seed: int
) -> None:
    fast = runner_of(kind)
    rows = texts(3, 18, seed)
    together = fast.new_cache(3, 18)
    scores: list[list[Tensor]] = [[], [], []]
    for counts in sizes:
        starts = together.lengths
        parts = [rows[row][at : at + n] for row, at, n in zip(order, starts, counts, strict=True)]
        for row, own_TV in zip(order, read(fast, together, parts).split(counts), strict=True):
            scores[row].append(own_TV)
    for row, length in zip(order, together.lengths, strict=True):
        alone = read(fast, fast.new_cache(1, 40), [rows[row][:length]])
        assert torch.equal(torch.cat(scores[row]), alone)


RUNNERS: dict[int, NativeRunner] = {}


def runner_of(kind: int) -> NativeRunner:
    if kind not in RUNNERS:
        RUNNERS[kind] = pair(*KINDS[kind])[1]
    return RUNNERS[kind]


@pytest.mark.parametrize(("config", "precision"), KINDS, ids=NAMES)
def test_every_instruction_set_gives_the_same_bits(
    built: object, monkeypatch: pytest.MonkeyPatch, config: ModelConfig, precision: Precision
) -> None:
    rows, found = texts(3, 21), {}
    for name in native.SETS:
        monkeypatch.setenv(native.SWITCH, name)
        if native.available():
            fast = pair(config, precision)[1]
            found[name] = read(fast, fast.new_cache(3, 24), rows)
    assert all(torch.equal(scores_NV, found["plain"]) for scores_NV in found.values())


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=NAMES)
def test_the_number_of_threads_changes_no_bit(built: object, kind: int) -> None:
    fast, rows, threads = runner_of(kind), texts(5, 12), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(read(fast, fast.new_cache(5, 12), rows))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("wanted", [[], [0], [4], [1, 3], [0, 1, 2, 3, 4], [4, 1, 1]])
def test_only_the_wanted_tokens_come_back_and_all_are_held(
    built: object, wanted: list[int]
) -> None:
    fast, (row,) = runner_of(2), texts(1, 6)
    whole_TV = read(fast, fast.new_cache(1, 6), [row])
    cache = fast.new_cache(1, 8)
    assert torch.equal(read(fast, cache, [row[:5]], wanted), whole_TV[wanted])
    assert torch.equal(read(fast, cache, [row[5:]]), whole_TV[5:])


def test_rows_that_are_not_extended_stay_as_they_are(built: object) -> None:
    fast, rows = runner_of(2), texts(3, 7)
    cache = fast.new_cache(3, 8)
    read(fast, cache, rows)
    before = cache.memory.clone()
    read(fast, cache, [[5]], first=1)
    assert cache.lengths == [7, 8, 7]
    cache.memory[:, 1, 7] = before[:, 1, 7]
    assert torch.equal(cache.memory, before)


def test_a_full_row_is_refused_and_nothing_is_written(built: object) -> None:
    fast, rows = runner_of(2), texts(1, 9)
    with pytest.raises(RequestError, match="holds 8 tokens, 9 are needed"):
        read(fast, fast.new_cache(1, 8), rows)


def test_a_long_text_is_near_the_runner_in_torch(built: object) -> None:
    plain, fast = pair(TINY, Precision.INT8)
    rows = texts(1, 700)
    expected = read(plain, plain.new_cache(1, 700), rows, [699])
    assert_near(read(fast, fast.new_cache(1, 700), rows, [699]), expected, 2e-2)


def test_other_precisions_and_processors_without_the_kernels_keep_the_runner_in_torch(
    built: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(TINY)
    floats = from_network(network)
    assert fastest(floats) is floats
    monkeypatch.setenv(native.SWITCH, "off")
    whole = from_network(network, Precision.INT8)
    assert fastest(whole) is whole
