"""Laws of generation: cached = uncached, batched = alone, streamed = whole, and the references."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_cases import (
    CONFIG,
    NUM_LATENTS,
    OBJECT,
    OBJECT_END,
    VOCABULARY,
    engine_of,
    fill,
    is_grounded,
    is_group,
    network,
    next_logits,
    prompt,
    scripted,
    slow_greedy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos2.engine import (
    BoxConstraint,
    CaptionConstraint,
    Engine,
    Generation,
    NoRepeat,
    Request,
    Rules,
    Sampling,
    StopReason,
    compat,
)
from kosmos2.engine.build import from_network
from kosmos2.errors import RequestError, VocabularyError
from kosmos2.model import Network

EOS, PAD = VOCABULARY.eos, VOCABULARY.pad
SEEDS = range(4)
OFF = Rules(no_repeat=NoRepeat.OFF)


def engine(seed: int) -> Engine:
    return engine_of(network(seed))


def answer(seed: int, request: Request) -> Generation:
    return engine(seed).generate([request])[0]


def seeded(seed: int, **settings: float) -> Sampling:
    return Sampling(seed=seed, **settings)  # type: ignore[arg-type]


def assert_same(ours: Generation, theirs: Generation) -> None:
    assert ours.ids == theirs.ids
    assert ours.stop == theirs.stop
    torch.testing.assert_close(ours.logprobs, theirs.logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.mean_logprob, theirs.mean_logprob, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours.masses, theirs.masses, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


# --- cached = uncached


@pytest.mark.parametrize("num_images", [0, 1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_cached_decoding_equals_reading_the_whole_text_at_every_step(
    seed: int, num_images: int
) -> None:
    request = prompt(seed, num_images, 3, rules=OFF)

    ours = answer(seed, request)
    slow = slow_greedy(network(seed), request, lambda _: set())

    assert [*ours.ids, *[EOS] * (ours.stop is StopReason.EOS)] == slow


@pytest.mark.parametrize("seed", SEEDS)
def test_every_log_probability_and_mass_is_the_unmodified_distribution_s(seed: int) -> None:
    sampling = seeded(seed, temperature=1.7, top_k=30)
    request = prompt(seed, 1, 3, sampling=sampling, max_new_tokens=30)

    ours = answer(seed, request)

    assert any(mass is not None for mass in ours.masses)
    for at, step in enumerate(ours.steps):
        logprobs_V = next_logits(network(seed), request, ours.ids[:at]).log_softmax(-1)
        assert step.logprob == pytest.approx(float(logprobs_V[step.id]), abs=1e-5)
        assert step.mass == pytest.approx(_slow_mass(logprobs_V.exp(), step.id), abs=1e-5)


def _slow_mass(probabilities_V: torch.Tensor, id: int) -> float | None:
    cell = VOCABULARY.cell_of(id)
    if cell is None:
        return None
    row, column = divmod(cell, VOCABULARY.bins)
    total = 0.0
    for other in range(VOCABULARY.bins**2):
        y, x = divmod(other, VOCABULARY.bins)
        if max(abs(y - row), abs(x - column)) <= 1:
            total += float(probabilities_V[VOCABULARY.location(other)])
    return total


def test_text_goes_on_past_the_table_of_positions() -> None:
    request = prompt(0, 1, 3, rules=Rules(), max_new_tokens=3 * CONFIG.text.max_positions)
    ours = answer(0, request)
    assert len(ours.ids) > 2 * CONFIG.text.max_positions
    for at in (CONFIG.text.max_positions, len(ours.ids) - 1):
        logprobs_V = next_logits(network(0), request, ours.ids[:at]).log_softmax(-1)
        assert ours.logprobs[at] == pytest.approx(float(logprobs_V[ours.ids[at]]), abs=1e-5)


# --- batched = alone, streamed = whole


def mixed(seed: int) -> list[Request]:
    """Return requests that differ in everything: length, images, rules, end, form."""
    words = tuple(range(10, 14))
    return [
        prompt(seed, 1, 3),
        prompt(seed, 0, 1, max_new_tokens=3),
        prompt(seed, 2, 5, sampling=seeded(seed, temperature=1.5)),
        prompt(seed, 0, 9, sampling=seeded(seed + 1, top_p=0.8), rules=OFF, max_new_tokens=20),
        prompt(
            seed,
            1,
            2,
            constraint=CaptionConstraint(caption_ids=words, vocabulary=VOCABULARY, max_boxes=2),
            max_new_tokens=60,
        ),
        prompt(seed, 1, 1, constraint=BoxConstraint(vocabulary=VOCABULARY), max_new_tokens=50),
        prompt(seed, 3, 0, rules=compat("original"), max_new_tokens=1),
        prompt(seed, 1, 4, rules=compat("transformers"), sampling=seeded(9, top_k=5)),
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_of_any_batch_equals_the_row_alone(seed: int) -> None:
    alone = [answer(seed, request) for request in mixed(seed)]
    order = torch.randperm(len(alone), generator=torch.Generator().manual_seed(seed)).tolist()

    requests = mixed(seed)
    together = engine(seed).generate([requests[index] for index in order])

    for index, ours in zip(order, together, strict=True):
        assert_same(ours, alone[index])
    assert len({len(each.ids) for each in alone}) > 3


@pytest.mark.parametrize("index", range(8))
def test_the_tokens_of_a_stream_are_the_whole_answer(index: int) -> None:
    whole = answer(1, mixed(1)[index])

    stream = engine(1).stream(mixed(1)[index])
    steps = []
    while True:
        try:
            steps.append(next(stream))
        except StopIteration as end:
            returned = end.value
            break

    assert tuple(steps) == returned.steps
    assert returned == whole


def test_a_stream_leaves_the_caller_s_gradients_alone() -> None:
    for _ in engine(0).stream(prompt(0, 1, 3)):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_the_network_runs_in_inference_mode() -> None:
    watched = scripted([10, EOS], otherwise=30)
    logits = watched.runner.logits

    def watching(hidden_MD: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        return logits(hidden_MD)

    watched.runner.logits = watching  # type: ignore[method-assign]
    assert watched.generate([prompt(0, 0, 2)])[0].ids == (10,)


def test_no_requests_have_no_answers() -> None:
    assert engine(0).generate([]) == []


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_bfloat16_answers_stay_near_the_exact_ones(num_images: int) -> None:
    exact = Network(CONFIG).eval()
    fill(exact, 0, weight=0.2)
    rough = deepcopy(exact).to(torch.bfloat16)
    request = prompt(0, num_images, 3)

    ours = engine_of(rough).generate([request, prompt(0, 0, 1)])[0]

    for at, step in enumerate(ours.steps):
        exact_V = next_logits(exact, request, ours.ids[:at]).log_softmax(-1)
        assert step.logprob == pytest.approx(float(exact_V[step.id]), abs=0.1)


def test_images_are_encoded_in_the_type_of_the_network() -> None:
    latents = engine(0).encode_images(torch.zeros(2, 3, 28, 28))
    assert latents.shape == (2, NUM_LATENTS, CONFIG.text.width)
    assert latents.dtype == torch.float64


# --- ends


def test_a_text_stops_at_its_end_its_length_or_its_form() -> None:
    def stop(script: list[int], **settings: object) -> Generation:
        request = prompt(0, 0, 2, **settings)
        return scripted(script, otherwise=30).generate([request])[0]

    ended = stop([10, EOS])
    assert (ended.ids, ended.stop) == ((10,), StopReason.EOS)
    cut = stop([10, 11, 12], max_new_tokens=2)
    assert (cut.ids, cut.stop) == ((10, 11), StopReason.LENGTH)
    a_box = [OBJECT, VOCABULARY.location(0), VOCABULARY.location(1), OBJECT_END]
    full = stop(a_box[1:], constraint=BoxConstraint(vocabulary=VOCABULARY), max_new_tokens=4)
    assert (full.ids, full.stop) == (tuple(a_box), StopReason.CONSTRAINT)


def test_the_mean_counts_the_end_of_text() -> None:
    # The script's second wish is forbidden, so the end of text comes with a lower probability.
    ended = scripted([10, PAD], otherwise=EOS).generate([prompt(0, 0, 2)])[0]
    total = math.log(math.exp(9) + math.exp(5) + VOCABULARY.size - 2)
    assert ended.ids == (10,)
    assert ended.logprobs == pytest.approx((9 - total,), rel=1e-4)
    assert ended.mean_logprob == pytest.approx((9 + 5) / 2 - total)
    at_once = scripted([EOS], otherwise=30).generate([prompt(0, 0, 2)])[0]
    assert at_once.ids == ()
    assert at_once.mean_logprob == pytest.approx(9 - total, rel=1e-4)


# --- constraints through the engine


@settings(max_examples=15)
@given(
    st.sampled_from(SEEDS),
    st.integers(0, 2**31),
    st.lists(st.integers(4, VOCABULARY.mask - 1), min_size=1, max_size=5),
    st.floats(0.3, 3.0),
)
def test_a_grounded_caption_is_well_formed_under_any_model(
    seed: int, draws: int, caption: list[int], temperature: float
) -> None:
    form = CaptionConstraint(caption_ids=tuple(caption), vocabulary=VOCABULARY, max_boxes=2)
    request = prompt(
        seed,
        1,
        2,
        constraint=form,
        max_new_tokens=form.longest,
        sampling=seeded(draws, temperature=temperature),
    )
    ours = answer(seed, request)
    assert ours.stop is StopReason.CONSTRAINT
    assert is_grounded(ours.ids, caption, max_boxes=2)


@pytest.mark.parametrize("max_boxes", [1, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_find_always_has_a_box(seed: int, max_boxes: int) -> None:
    form = BoxConstraint(vocabulary=VOCABULARY, max_boxes=max_boxes)
    ours = answer(seed, prompt(seed, 1, 2, constraint=form, max_new_tokens=form.longest))
    assert ours.stop is StopReason.CONSTRAINT
    assert is_group(ours.ids, max_boxes)


def test_the_ngram_rule_yields_to_the_constraint() -> None:
    caption = (10, 11, 12, 10, 11, 12, 10, 11, 12)
    form = CaptionConstraint(caption_ids=caption, vocabulary=VOCABULARY, spans=())
    for mode in NoRepeat:
        request = prompt(
            0, 0, 2, constraint=form, rules=Rules(no_repeat=mode), max_new_tokens=form.longest
        )
        assert answer(0, request).ids == caption


# --- refusals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": ()}, "no tokens"),
        ({"image_mask": (False,)}, "1 entries, 9 tokens"),
        ({"max_new_tokens": 0}, "at least 1, got 0"),
        ({"latents": ()}, "3 image positions and no picture"),
        (
            {"latents": (torch.zeros(3, 32),) * 2},
            "3 image positions, its 2 pictures bring 6 vectors",
        ),
        ({"latents": (torch.zeros(1, 3, 32),)}, r"two dimensions, got shapes \[\(1, 3, 32\)\]"),
    ],
)
def test_a_request_that_cannot_be_asked_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(prompt(0, 1, 2), **wrong)  # type: ignore[arg-type]


def test_a_prompt_that_does_not_fit_the_model_is_refused() -> None:
    request = prompt(0, 1, 2)
    with pytest.raises(RequestError, match=r"ids 0 to 71, the prompt has \[72\]"):
        engine(0).stream(replace(request, ids=(*request.ids[:-1], 72)))
    with pytest.raises(RequestError, match="padding id 1 at index 8"):
        engine(0).generate([replace(request, ids=(*request.ids[:-1], PAD))])
    with pytest.raises(RequestError, match="width 32, got 16"):
        engine(0).generate([replace(request, latents=(torch.zeros(3, 16),))])


def test_a_foreign_vocabulary_is_refused() -> None:
    with pytest.raises(VocabularyError, match="72 tokens, the vocabulary has 73"):
        Engine(from_network(network(0)), replace(VOCABULARY, num_pieces=41))


def test_a_constraint_without_a_first_token_is_refused() -> None:
    class Nothing:
        free_text = False

        def start(self, prompt_ids: Sequence[int]) -> int:
            return 0

        def advance(self, state: int, id: int) -> int:
            return 0

        def allowed(self, state: int, room: int) -> tuple[range, ...]:
            return ()

    with pytest.raises(RequestError, match="no first token"):
        engine(0).generate([prompt(0, 0, 2, constraint=Nothing())])


def test_a_small_network_has_one_thread_for_rows_and_one_for_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of(network(0))
    size = engine.config.vision.image_size
    usual = torch.get_num_threads()
    seen: dict[str, tuple[int, int]] = {}

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            seen[name] = threading.get_ident(), torch.get_num_threads()
            return real(*args)

        return call

    for name in ("encode_images", "extend"):
        monkeypatch.setattr(engine.runner, name, watched(name, getattr(engine.runner, name)))
    with engine.employed():
        engine.look(torch.zeros(1, 3, size, size))
        engine.generate([prompt(0, 0, 2)])
    assert [threads for _, threads in seen.values()] == [1, 1]
    assert len({thread for thread, _ in seen.values()} | {threading.get_ident()}) == 3
    assert torch.get_num_threads() == usual


def test_threads_that_look_at_once_are_encoded_together_and_each_gets_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of(network(0))
    size = engine.config.vision.image_size
    pixels = torch.randn(12, 3, size, size, generator=torch.Generator().manual_seed(0))
    alone = [engine.encode_images(each[None])[0] for each in pixels]
    real, counts = engine.runner.encode_images, []

    def encode(pixels_NCYX: torch.Tensor) -> torch.Tensor:
        counts.append(len(pixels_NCYX))
        time.sleep(0.05)
        return real(pixels_NCYX)

    monkeypatch.setattr(engine.runner, "encode_images", encode)
    with engine.employed(), ThreadPoolExecutor(12) as pool:
        looks = list(pool.map(lambda each: engine.look(each[None]), pixels))
    for (latents_QD,), wanted_QD in zip(looks, alone, strict=True):
        torch.testing.assert_close(latents_QD, wanted_QD)
    assert sum(counts) == 12 and max(counts) > 1
    with pytest.raises(RequestError):
        engine.look(torch.zeros(1, 3, 5, 5))
    assert engine.look(pixels[:0]) == ()
