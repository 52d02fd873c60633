"""Searches in the running batch: batched = alone, streamed = whole, cancelled = forgotten."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import VOCABULARY, engine_of, network, prompt
from PIL import Image
from slow_beam import all_of, caption_form
from tiny_model import save_tiny_model
from torch import Tensor

from kosmos2 import ConfigError, Kosmos2
from kosmos2.api import Settings, questions
from kosmos2.engine import (
    Beam,
    BoxConstraint,
    Generation,
    Greedy,
    Limits,
    NoRepeat,
    Request,
    Rules,
    Sampling,
    StopReason,
    compat,
)
from kosmos2.engine.beam import BeamSearch, begin
from kosmos2.engine.rows import Row
from kosmos2.engine.scheduler import Scheduler
from kosmos2.errors import RequestError
from kosmos2.vocab.tokenizer import Tokenizer

OFF = Rules(no_repeat=NoRepeat.OFF)
ALL = Limits(max_rows=64)


def answer(seed: int, request: Request) -> Generation:
    return engine_of(network(seed)).generate([request])[0]


def drive(scheduler: Scheduler, owner: Row | BeamSearch) -> Generation:
    scheduler.submit(owner)
    while owner.stop is None:
        scheduler.step()
    return owner.generation()


def assert_same(ours: Generation, theirs: Generation) -> None:
    for one, other in zip(all_of(ours), all_of(theirs), strict=True):
        assert (one.ids, one.stop) == (other.ids, other.stop)
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-5)
        assert one.score == pytest.approx(other.score, abs=1e-5)


# --- batched = alone


def mixed(seed: int) -> list[Request]:
    """Return searches of several widths and forms among ordinary rows."""
    boxes = BoxConstraint(vocabulary=VOCABULARY, max_boxes=3)
    return [
        prompt(seed, 1, 3, sampling=Beam(3, num_best=2)),
        prompt(seed, 0, 2, max_new_tokens=5),
        prompt(seed, 2, 5, sampling=Sampling(seed=seed, temperature=1.5)),
        prompt(seed, 1, 3, sampling=Beam(5, length_penalty=2.0), rules=compat("original")),
        prompt(seed, 0, 9, sampling=Beam(2), rules=compat("transformers"), max_new_tokens=25),
        prompt(seed, 1, 2, sampling=Beam(4), constraint=boxes, max_new_tokens=boxes.longest),
        prompt(seed, 1, 1, sampling=Beam(3), constraint=caption_form(), max_new_tokens=60),
        prompt(seed, 0, 30, sampling=Beam(3), rules=OFF),
        prompt(seed, 1, 2, constraint=boxes, max_new_tokens=boxes.longest),
    ]


@pytest.mark.parametrize("max_rows", [5, 9, 64])
@pytest.mark.parametrize("seed", range(3))
def test_a_search_in_any_batch_equals_the_search_alone(seed: int, max_rows: int) -> None:
    alone = [answer(seed, request) for request in mixed(seed)]
    order = torch.randperm(len(alone), generator=torch.Generator().manual_seed(seed)).tolist()
    engine = engine_of(network(seed), Limits(max_rows=max_rows))

    requests = mixed(seed)
    together = engine.generate([requests[index] for index in order])

    for index, ours in zip(order, together, strict=True):
        assert_same(ours, alone[index])
    assert engine.scheduler.num_live == 0


def test_rows_that_join_a_search_under_way_change_nothing() -> None:
    early, late = mixed(0)[0], prompt(0, 2, 20, sampling=Beam(2), max_new_tokens=150)
    expected = [answer(0, early), answer(0, late)]
    scheduler = engine_of(network(0), ALL).scheduler
    first, second = begin(early, VOCABULARY), begin(late, VOCABULARY)
    scheduler.submit(first)
    for _ in range(3):
        scheduler.step()
    assert scheduler.num_live == 3
    drive(scheduler, second)
    assert_same(first.generation(), expected[0])
    assert_same(second.generation(), expected[1])


def test_a_search_waits_until_there_are_rows_for_all_its_beams() -> None:
    scheduler = engine_of(network(0), Limits(max_rows=4)).scheduler
    plain, search = (
        begin(prompt(0, 0, 2, rules=OFF, max_new_tokens=length, sampling=how), VOCABULARY)
        for length, how in ((4, Greedy()), (8, Beam(4)))
    )
    scheduler.submit(plain)
    scheduler.submit(search)
    lives = []
    while search.stop is None:
        scheduler.step()
        lives.append((plain.stop is None, scheduler.num_live))
    assert (True, 1) in lives and all(live == (True, 1) for live in lives if live[0])
    assert max(live for _, live in lives) == 4


def test_a_search_writes_nothing_over_the_memory_of_its_mates() -> None:
    # The budget has room for the rows of one search only, and its beams grow from one to many.
    engine = engine_of(network(0), Limits(max_rows=64, max_cache_bytes=600_000))
    requests = [prompt(0, 0, 2 + at, rules=OFF, sampling=Beam(4)) for at in range(4)]
    together = engine.generate(requests)
    for request, ours in zip(requests, together, strict=True):
        assert_same(ours, answer(0, request))


# --- streams, ends, refusals


def test_a_streamed_search_is_the_whole_one() -> None:
    request = prompt(0, 1, 3, sampling=Beam(3, num_best=2))
    stream = engine_of(network(0)).stream(request)
    steps = []
    while True:
        try:
            steps.append(next(stream))
        except StopIteration as end:
            assert tuple(steps) == end.value.steps
            assert_same(end.value, answer(0, request))
            break


def test_a_search_that_is_cancelled_frees_its_rows_and_disturbs_nobody() -> None:
    mate = prompt(0, 1, 4, rules=OFF, max_new_tokens=20)
    expected = answer(0, mate)
    scheduler = engine_of(network(0), ALL).scheduler
    plain = begin(mate, VOCABULARY)
    searches = [
        begin(prompt(0, 0, 2, rules=OFF, sampling=Beam(width)), VOCABULARY) for width in (4, 3)
    ]
    for owner in (searches[0], plain, searches[1]):
        scheduler.submit(owner)
    for _ in range(3):
        scheduler.step()
    assert scheduler.num_live == 8
    scheduler.cancel(searches[0])
    assert searches[0].stop is StopReason.CANCELLED
    assert scheduler.num_live == 4
    while plain.stop is None:
        scheduler.step()
    assert_same(plain.generation(), expected)
    assert_same(searches[1].generation(), answer(0, searches[1].request))

    waiting = begin(prompt(0, 0, 2, sampling=Beam(4)), VOCABULARY)
    scheduler.submit(waiting)
    scheduler.cancel(waiting)
    assert not scheduler.busy


def test_a_step_that_fails_ends_the_searches_in_it() -> None:
    engine = engine_of(network(0), ALL)
    logits = engine.runner.logits

    def failing(hidden_MD: Tensor) -> Tensor:
        raise MemoryError("no room")

    scheduler = engine.scheduler
    search = begin(prompt(0, 0, 2, sampling=Beam(4)), VOCABULARY)
    scheduler.submit(search)
    scheduler.step()
    engine.runner.logits = failing  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        scheduler.step()
    assert search.stop is StopReason.CANCELLED
    assert not scheduler.busy
    engine.runner.logits = logits  # type: ignore[method-assign]
    assert_same(engine.generate([search.request])[0], answer(0, search.request))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"width": 3, "num_best": 4}, r"num_best must be in 1..width \(3\), got 4"),
        ({"width": 3, "num_best": 0}, "got 0"),
        ({"width": 3, "length_penalty": math.nan}, "length_penalty must be in -16..16, got nan"),
        ({"width": 3, "length_penalty": 17}, "got 17"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Beam(**settings)


def test_a_search_without_room_is_refused() -> None:
    search = prompt(0, 0, 2, sampling=Beam(9))
    with pytest.raises(RequestError, match="9 beams needs as many rows, 8 are given"):
        engine_of(network(0)).generate([search])
    tight = Limits(max_rows=9, max_cache_bytes=400_000)
    engine_of(network(0), tight).generate([replace(search, sampling=Beam(6))])
    with pytest.raises(RequestError, match="9 texts of 14 tokens need 589,824 bytes"):
        engine_of(network(0), tight).generate([search])


# --- the interface


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Kosmos2:
    folder: Path = save_tiny_model(tmp_path_factory.mktemp("model"), tiny_tokenizer)
    settings = Settings(max_new_tokens=12, sampling=Beam(4))
    return Kosmos2.load(folder, device="cpu", dtype="fp64", settings=settings)


def test_every_question_can_be_answered_by_a_search(model: Kosmos2) -> None:
    rng = np.random.default_rng(0)
    view = model.look(Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)))
    greedy = replace(model, settings=replace(model.settings, sampling=Greedy()))
    found = view.find("a snowman")
    (plain,) = greedy.answer([((view,), questions.find("a snowman", model.tokenizer.vocabulary))])
    assert found.boxes and plain.boxes
    assert view.ground("A snowman by a fire.").text == "A snowman by a fire."
    assert view.caption().stop in (StopReason.EOS, StopReason.LENGTH)
    assert "".join(view.stream(questions.plain_caption())) == view.plain_caption().text


def test_settings_refuse_more_beams_than_rows() -> None:
    with pytest.raises(ConfigError, match="9 beams needs a batch_size of as many rows, got 8"):
        Settings(sampling=Beam(9))
