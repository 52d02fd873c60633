"""Laws that only a CUDA device can show: real graphs, no waiting, the same answers as the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from model_cases import TINY, random_ids, random_network, random_pixels
from torch import Tensor

from kosmos2.engine import Engine, Limits, Request
from kosmos2.engine.build import from_network
from kosmos2.engine.cache import RowCache
from kosmos2.engine.capture import CapturedRunner
from kosmos2.engine.programs import CapturedCache
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.kernels.kind import Precision
from kosmos2.vocab.special import Vocabulary

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PRECISIONS = {
    Precision.FP32: 1e-3,
    Precision.FP16: 0.05,
    Precision.BF16: 0.3,
    Precision.INT8: 0.3,
    Precision.FP8: 0.5,
}
"""Each with the largest difference to float64 that rounding explains; logits are about 5."""


def captured(precision: Precision) -> CapturedRunner:
    network = random_network(TINY).cuda()
    return CapturedRunner.of(from_network(network, precision))


@pytest.fixture(scope="module")
def exact() -> Runner:
    return from_network(random_network(TINY).double())


@torch.inference_mode()
def read(runner: Runner, cache: RowCache, first: int, parts: Sequence[Sequence[int]]) -> Tensor:
    """Append texts to rows first, first + 1, ...; return logits_NV behind each of their tokens."""
    ids = [id for part in parts for id in part]
    positions = [
        cache.lengths[row] + at + FIRST_POSITION
        for row, part in enumerate(parts, start=first)
        for at in range(len(part))
    ]
    x_ND = runner.enter(ids, positions, [False] * len(ids), None)
    counts = [len(part) for part in parts]
    return runner.logits(runner.extend(cache, first, x_ND, counts, range(len(ids)))).cpu().double()


@contextmanager
def nobody_waits() -> Iterator[None]:
    """Let everything fail that makes the host wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_steps_of_any_rows_stay_near_the_exact_numbers(precision: Precision, exact: Runner) -> None:
    runner, bound = captured(precision), PRECISIONS[precision]
    texts = random_ids(TINY, 5, 30).tolist()
    ours, plain = runner.new_cache(5, 40), exact.new_cache(5, 40)
    parts = [text[: 3 + 2 * row] for row, text in enumerate(texts)]
    pairs = [(read(runner, ours, 0, parts), read(exact, plain, 0, parts))]
    for first, counts in [(0, [1] * 5), (1, [1, 1, 1]), (4, [1]), (0, [2, 1, 8]), (0, [1] * 5)]:
        parts = [texts[row][:count] for row, count in enumerate(counts)]
        pairs.append((read(runner, ours, first, parts), read(exact, plain, first, parts)))
    for ours_NV, exact_NV in pairs:
        torch.testing.assert_close(ours_NV, exact_NV.double(), atol=bound, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_warm_step_never_waits_for_the_device(precision: Precision) -> None:
    runner = captured(precision)
    cache = runner.new_cache(3, 300)
    read(runner, cache, 0, [[5, 6], [7], [8, 9]])
    runner.warm(cache, [1, 3])
    with nobody_waits():
        several = runner.decode(cache, 0, [10, 11, 12])
        runner.decode_greedily(cache, 0, [13], 5)
        chosen_RT = runner.decode_greedily(cache, 0, [13, 14, 15], 5)
    assert several.logits_RV.isfinite().all() and chosen_RT.shape == (3, 5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_do_what_their_function_does(precision: Precision) -> None:
    runner = captured(precision)
    cache = runner.new_cache(4, 600)
    texts = random_ids(TINY, 4, 260).tolist()
    read(runner, cache, 0, texts)

    def decode(ids: list[int]) -> Tensor:
        return runner.decode(cache, 0, ids).logits_RV

    def again(held: CapturedCache) -> list[Tensor]:
        held.lengths[:4] = [260] * 4
        return [decode(ids) for ids in ([5, 6, 7, 8], [9, 10, 11], [12])]

    recorded = again(cache)
    for ours, other in zip(recorded, again(cache), strict=True):
        assert torch.equal(ours, other)
    cache.grow(6, 700)
    for ours, other in zip(recorded, again(cache), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-3, rtol=1e-3)


def test_choices_on_the_device_are_those_of_single_steps() -> None:
    runner = captured(Precision.FP32)
    cache = runner.new_cache(3, 80)
    read(runner, cache, 0, [[5, 6], [7], [8, 9]])
    lengths = list(cache.lengths)
    chosen_RT = runner.decode_greedily(cache, 0, [10, 11, 12], 20)
    cache.lengths[:] = lengths
    ids = [10, 11, 12]
    for step in range(20):
        ids = runner.decode(cache, 0, ids).ids_R.tolist()
        assert chosen_RT[:, step].tolist() == ids


def test_pictures_are_encoded_as_on_the_cpu(exact: Runner) -> None:
    runner = captured(Precision.FP32)
    batches = [random_pixels(TINY, 2, seed=seed) for seed in range(3)]
    with torch.inference_mode(), nobody_waits():
        ours = [runner.encode_images(pixels_NCYX) for pixels_NCYX in batches]
    for ours_NQD, pixels_NCYX in zip(ours, batches, strict=True):
        exact_NQD = exact.encode_images(pixels_NCYX.double())
        torch.testing.assert_close(ours_NQD.cpu().double(), exact_NQD, atol=1e-3, rtol=1e-3)


def test_an_engine_answers_as_on_the_cpu(exact: Runner) -> None:
    others = Vocabulary(num_pieces=1, bins=4).size - 1
    words = Vocabulary(num_pieces=TINY.text.vocab_size - others, bins=4)
    requests = [
        Request(ids=tuple(text), image_mask=(False,) * len(text), max_new_tokens=12)
        for text in random_ids(TINY, 5, 7, seed=3).clamp(max=words.mask - 1).tolist()
    ]
    limits = Limits(max_rows=3)
    expected = Engine(exact, words, limits).generate(requests)
    answers = Engine(captured(Precision.FP32), words, limits).generate(requests)
    for answer, other in zip(answers, expected, strict=True):
        assert [step.id for step in answer.steps] == [step.id for step in other.steps]
