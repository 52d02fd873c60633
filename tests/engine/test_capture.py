"""Laws of the captured decode step: it is the plain runner's, whatever the mix of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
import torch
from engine_cases import VOCABULARY, network, prompt
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kosmos2.engine import BoxConstraint, Engine, Limits, Sampling
from kosmos2.engine.build import from_network
from kosmos2.engine.cache import RowCache
from kosmos2.engine.capture import ROW_BUCKETS, CapturedRunner, slot_buckets
from kosmos2.engine.programs import CapturedCache, Decoded, FoundT
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.errors import RequestError
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.operations import MOST_QUERIES, PlainOperations
from kosmos2.model.decoder import PADDING_ID

PLAIN = from_network(network(0))
WORDS = st.integers(4, VOCABULARY.mask - 1)


class PretendGraphs:
    """Does what CUDA graphs do: warm-up, results at one place, no result before a replay."""

    def __init__(self) -> None:
        self.num_recorded = 0

    def record(self, work: Callable[[], FoundT]) -> Callable[[], FoundT]:
        self.num_recorded += 1
        work()
        work()
        found = work()
        for tensor in tensors(found):
            tensor.zero_()

        def replay() -> FoundT:
            for place, value in zip(tensors(found), tensors(work()), strict=True):
                place.copy_(value)
            return found

        return replay


def tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    return [getattr(found, field.name) for field in fields(found)]


def captured() -> CapturedRunner:
    return CapturedRunner(PLAIN, PlainOperations(), PretendGraphs())


CAPTURED = captured()


@torch.inference_mode()
def read(runner: Runner, cache: RowCache, first: int, parts: Sequence[Sequence[int]]) -> Tensor:
    """Append texts to rows first, first + 1, ...; return logits_NV behind each of their tokens."""
    ids = [id for part in parts for id in part]
    places = [
        cache.lengths[row] + at + FIRST_POSITION
        for row, part in enumerate(parts, start=first)
        for at in range(len(part))
    ]
    positions = [PADDING_ID if id == PADDING_ID else at for id, at in zip(ids, places, strict=True)]
    x_ND = runner.enter(ids, positions, [False] * len(ids), None)
    counts = [len(part) for part in parts]
    return runner.logits(runner.extend(cache, first, x_ND, counts, range(len(ids))))


def twins(runner: CapturedRunner, texts: Sequence[Sequence[int]]) -> tuple[CapturedCache, RowCache]:
    """Return the same rows, read by both runners."""
    ours, plain = runner.new_cache(len(texts), 40), PLAIN.new_cache(len(texts), 40)
    torch.testing.assert_close(read(runner, ours, 0, texts), read(PLAIN, plain, 0, texts))
    return ours, plain


@settings(max_examples=15, deadline=None)
@given(
    texts=st.lists(st.lists(WORDS, min_size=1, max_size=12), min_size=1, max_size=9),
    calls=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=1, max_size=5),
    data=st.data(),
)
def test_any_mix_of_rows_equals_the_plain_runner(
    texts: list[list[int]], calls: list[tuple[int, int]], data: st.DataObject
) -> None:
    ours, plain = twins(CAPTURED, texts)
    for first, count in calls:
        first = min(first, len(texts) - 1)
        rows = texts[first : first + count]
        most = data.draw(st.integers(1, 3))  # only a step of ones is a program
        parts = [data.draw(st.lists(WORDS, min_size=1, max_size=most)) for _ in rows]
        ours_NV, plain_NV = (
            read(CAPTURED, ours, first, parts),
            read(PLAIN, plain, first, parts),
        )
        torch.testing.assert_close(ours_NV, plain_NV)
        assert ours.lengths[: len(texts)] == plain.lengths
    torch.testing.assert_close(ours.memory[:, : len(texts)], plain.memory)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5])
@pytest.mark.parametrize("first", [0, 2])
def test_a_step_writes_one_slot_of_its_rows_and_nothing_of_the_others(
    num_rows: int, first: int
) -> None:
    runner = captured()
    cache, _ = twins(runner, [[5, 6, 7, 8][: 1 + row % 4] for row in range(8)])
    before = cache.memory.clone()
    lengths = list(cache.lengths)
    runner.decode(cache, first, [9] * num_rows)
    changed = {
        (row, slot)
        for _, row, slot, *_ in (cache.memory != before).nonzero().tolist()
        if row != cache.spare
    }
    assert changed == {(row, lengths[row]) for row in range(first, first + num_rows)}


@settings(max_examples=6, deadline=None)
@given(
    texts=st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=5),
    ids=st.lists(st.one_of(WORDS, st.just(PADDING_ID)), min_size=5, max_size=5),
)
def test_a_decoded_token_is_one_that_is_entered_and_read(
    texts: list[list[int]], ids: list[int]
) -> None:
    ours, plain = twins(CAPTURED, texts)
    for id in ids:
        decoded = CAPTURED.decode(ours, 0, [id] * len(texts))
        expected_RV = read(PLAIN, plain, 0, [[id]] * len(texts))
        torch.testing.assert_close(decoded.logits_RV, expected_RV)
        assert torch.equal(decoded.ids_R.long(), expected_RV.argmax(dim=-1))
        best_R = expected_RV.log_softmax(dim=-1).amax(dim=-1)
        torch.testing.assert_close(decoded.logprobs_R, best_R)


def test_choices_that_stay_on_the_device_are_those_of_single_steps() -> None:
    texts = [[5, 6, 7], [8], [9, 10]]
    ours, plain = twins(CAPTURED, texts)
    chosen_RT = CAPTURED.decode_greedily(ours, 0, [11, 12, 13], 20)
    ids = [11, 12, 13]
    for step in range(20):
        ids = read(PLAIN, plain, 0, [[id] for id in ids]).argmax(dim=-1).tolist()
        assert chosen_RT[:, step].tolist() == ids
    assert ours.lengths[:3] == plain.lengths
    torch.testing.assert_close(ours.memory[:, :3], plain.memory)


def test_what_a_step_returned_is_not_overwritten_by_the_next() -> None:
    runner = captured()
    cache, _ = twins(runner, [[5, 6], [7]])
    first = runner.decode(cache, 0, [9, 10])
    kept = [tensor.clone() for tensor in tensors(first)]
    runner.decode(cache, 0, [11, 12])
    assert all(map(torch.equal, tensors(first), kept))
    x_ND = torch.randn(2, 32).double()
    hidden_MD = runner.extend(cache, 0, x_ND, [1, 1], [0, 1])
    copy_MD = hidden_MD.clone()
    runner.extend(cache, 0, -x_ND, [1, 1], [0, 1])
    assert torch.equal(hidden_MD, copy_MD)


def test_programs_are_shared_by_a_bucket_and_made_anew_for_new_memory() -> None:
    recorder = PretendGraphs()
    runner = CapturedRunner(PLAIN, PlainOperations(), recorder)
    cache = runner.new_cache(6, 700)
    for num_rows in (3, 4, 3):
        runner.decode(cache, 0, [5] * num_rows)
    assert list(cache.from_tokens) == [(4, 256)]
    runner.decode(cache, 0, [5] * 5)
    cache.lengths[0] = 256
    runner.decode(cache, 0, [5])
    assert list(cache.from_tokens) == [(4, 256), (8, 256), (1, 512)]
    assert recorder.num_recorded == 3
    cache.grow(8, 800)
    assert not cache.from_tokens and cache.num_rows == 8
    runner.warm(cache, [1, 2, 3])
    assert recorder.num_recorded == 3 + 2 * 3 * 3  # two entries; 1, 2, 4 rows; 256, 512, 800 slots
    runner.decode(cache, 0, [5, 5])
    assert recorder.num_recorded == 3 + 2 * 3 * 3


@given(capacity=st.integers(1, 10_000))
def test_slot_buckets_double_up_to_the_capacity(capacity: int) -> None:
    buckets = slot_buckets(capacity)
    assert buckets[-1] == capacity and buckets == sorted(set(buckets))
    assert all(later <= 2 * earlier for earlier, later in pairwise(buckets))


def test_rows_beyond_the_largest_program_are_read_all_the_same() -> None:
    num_rows = ROW_BUCKETS[-1] + 3
    ours, plain = twins(CAPTURED, [[4 + row % 30] for row in range(num_rows)])
    parts = [[5 + row % 30] for row in range(num_rows)]
    torch.testing.assert_close(read(CAPTURED, ours, 0, parts), read(PLAIN, plain, 0, parts))


@pytest.mark.parametrize("wanted", [[0], [2, 4], [1, 2, 3, 4, 5]])
def test_only_wanted_tokens_come_back(wanted: list[int]) -> None:
    ours, plain = twins(CAPTURED, [[5, 6], [7], [8]])
    x_ND = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        expected_MD = PLAIN.extend(plain, 0, x_ND, [3, 1, 2], wanted)
        torch.testing.assert_close(CAPTURED.extend(ours, 0, x_ND, [3, 1, 2], wanted), expected_MD)
        expected_MD = PLAIN.extend(plain, 0, x_ND[:3], [1, 1, 1], [0, 1, 2])
        for some in ([1], [0, 1, 2], [2, 0, 1], [1, 1, 0]):
            hidden_MD = CAPTURED.extend(ours, 0, x_ND[:3], [1, 1, 1], some)
            torch.testing.assert_close(hidden_MD, expected_MD[some])
            ours.lengths[:3] = [5, 2, 3]


def test_a_cache_of_another_runner_is_read_without_programs() -> None:
    plain, ours = PLAIN.new_cache(2, 10), PLAIN.new_cache(2, 10)
    texts = [[5, 6, 7], [8]]
    torch.testing.assert_close(read(CAPTURED, ours, 0, texts), read(PLAIN, plain, 0, texts))


def test_a_full_row_stays_as_it_was() -> None:
    runner = captured()
    cache = runner.new_cache(2, 4)
    read(runner, cache, 0, [[5, 6, 7, 8]])
    with pytest.raises(RequestError, match="holds 4 tokens, 5 are needed"):
        runner.decode(cache, 0, [9])


def test_a_prompt_is_read_by_the_plain_runner() -> None:
    text = [4 + at % 30 for at in range(MOST_QUERIES + 1)]
    twins(CapturedRunner(PLAIN, None, PretendGraphs()), [text])  # type: ignore[arg-type]


class Watched(TorchDispatchMode):
    """Notes what is asked of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[object, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        shape = tuple(result.shape) if isinstance(result, Tensor) else None
        self.calls.append((str(func), shape))
        return result


READING_BACK = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal")


class Listening:
    """Calls again, and notes what each call asks of the device."""

    def __init__(self) -> None:
        self.replays: list[list[tuple[object, ...]]] = []

    def record(self, work: Callable[[], FoundT]) -> Callable[[], FoundT]:
        def watched() -> FoundT:
            with Watched() as watch:
                found = work()
            self.replays.append(watch.calls)
            return found

        return watched


def test_a_program_does_the_same_whatever_the_numbers_and_reads_none_back() -> None:
    recorder = Listening()
    runner = CapturedRunner(PLAIN, PlainOperations(), recorder)
    cache, _ = twins(runner, [[5, 6], [7], [8, 9, 10], [11]])
    recorder.replays.clear()
    runner.decode(cache, 0, [5, 6, 7])
    runner.decode(cache, 1, [8, PADDING_ID, 9])
    runner.decode(cache, 0, [10, 11, 12, 13])
    first, *others = recorder.replays
    assert len(others) == 2 and all(each == first for each in others)
    assert not [name for name, _ in first if any(bad in str(name) for bad in READING_BACK)]


@pytest.mark.parametrize("max_rows", [1, 3, 8])
def test_an_engine_answers_the_same(max_rows: int) -> None:
    box = BoxConstraint(vocabulary=VOCABULARY, max_boxes=2)
    requests = [
        prompt(0, 1, 3),
        prompt(0, 0, 5, constraint=box),
        prompt(0, 2, 1, sampling=Sampling(seed=3)),
        prompt(0, 0, 2, max_new_tokens=3),
        prompt(0, 1, 4, constraint=box),
    ]
    limits = Limits(max_rows=max_rows)
    expected = Engine(PLAIN, VOCABULARY, limits).generate(requests)
    answers = Engine(captured(), VOCABULARY, limits).generate(requests)
    for answer, other in zip(answers, expected, strict=True):
        assert [step.id for step in answer.steps] == [step.id for step in other.steps]
        assert answer.mean_logprob == pytest.approx(other.mean_logprob)


def test_pictures_are_encoded_the_same() -> None:
    pixels_NCYX = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected_NQD = PLAIN.encode_images(pixels_NCYX)
        torch.testing.assert_close(captured().encode_images(pixels_NCYX), expected_NQD)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.FP8])
def test_every_precision_is_that_of_the_plain_runner(precision: Precision) -> None:
    plain = from_network(network(0), precision)
    runner = CapturedRunner.of(plain)
    texts = [[5, 6, 7], [8]]
    ours, theirs = runner.new_cache(2, 8), plain.new_cache(2, 8)
    read(runner, ours, 0, texts)
    read(plain, theirs, 0, texts)
    decoded = runner.decode(ours, 0, [9, 10])
    assert isinstance(decoded, Decoded)
    tolerance = 0.1 if precision is Precision.BF16 else 1e-4
    expected_RV = read(plain, theirs, 0, [[9], [10]])
    torch.testing.assert_close(decoded.logits_RV, expected_RV, atol=tolerance, rtol=tolerance)
