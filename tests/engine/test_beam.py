"""Laws of the beam search: as a slow one that keeps nothing, as transformers, as the original."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from engine_cases import CONFIG, VOCABULARY, engine_of, is_grounded, is_group, network, prompt
from slow_beam import all_of, assert_texts, caption_form, slow_original, slow_search, texts_of
from test_against_transformers import single, theirs
from torch import Tensor

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
    ScoreRequest,
    StopReason,
    compat,
    original_max_new_tokens,
)
from kosmos2.engine.beam import BeamSearch, OriginalSearch, begin
from kosmos2.engine.constraint import Constraint, GrammarConstraint
from kosmos2.vocab.special import Tag

EOS, PAD = VOCABULARY.eos, VOCABULARY.pad
SEEDS = range(6)
OFF = Rules(no_repeat=NoRepeat.OFF)
ALL = Limits(max_rows=64)


def answer(seed: int, request: Request) -> Generation:
    return engine_of(network(seed)).generate([request])[0]


PENALTIES = (-1.0, 0.0, 1.0, 2.5)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_search_equals_the_slow_one(width: int) -> None:
    stops = set()
    for seed, rules, penalty in itertools.product(range(3), (OFF, Rules()), PENALTIES):
        beam = Beam(width, length_penalty=penalty, num_best=width)
        request = prompt(seed, seed % 3, 3, sampling=beam, rules=rules, max_new_tokens=10)
        ours = answer(seed, request)
        assert_texts(ours, slow_search(seed, request))
        stops |= {each.stop for each in all_of(ours)}
    assert stops == {StopReason.EOS, StopReason.LENGTH}


# --- one beam is greedy


@pytest.mark.parametrize("mode", list(NoRepeat))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_search_with_one_beam_is_greedy(seed: int, mode: NoRepeat) -> None:
    greedy = prompt(seed, 1, 3, rules=Rules(no_repeat=mode), max_new_tokens=20)
    expected = answer(seed, greedy)
    request = replace(greedy, sampling=Beam(1))
    assert answer(seed, request) == expected
    search = (OriginalSearch if mode is NoRepeat.ORIGINAL else BeamSearch)(request, VOCABULARY)
    scheduler = engine_of(network(seed)).scheduler
    scheduler.submit(search)
    while search.stop is None:
        scheduler.step()
    found = search.generation()
    assert (found.ids, found.stop) == (expected.ids, expected.stop)
    assert found.mean_logprob == pytest.approx(expected.mean_logprob, abs=1e-6)


# --- transformers


def generate(seed: int, request: Request, **settings: float) -> list[tuple[list[int], float]]:
    """Return the new tokens and scores of transformers' beams, the best first."""
    beam = request.sampling
    assert isinstance(beam, Beam)
    ids_BT = torch.tensor([request.ids])
    inputs: dict[str, Tensor] = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
    if request.latents:
        inputs["image_embeds"] = torch.cat(request.latents).float()[None]
        inputs["image_embeds_position_mask"] = torch.tensor([request.image_mask])
    with torch.no_grad():
        output = theirs(seed).text_model.generate(
            **inputs,
            **{"no_repeat_ngram_size": 3, **settings},
            num_beams=beam.width,
            num_return_sequences=beam.num_best,
            length_penalty=beam.length_penalty,
            early_stopping=False,
            do_sample=False,
            max_new_tokens=request.max_new_tokens,
            eos_token_id=EOS,
            pad_token_id=PAD,
            output_scores=True,
            return_dict_in_generate=True,
        )
    texts = [ids[len(request.ids) :] for ids in output.sequences.tolist()]
    ends = [text.index(EOS) + 1 if EOS in text else len(text) for text in texts]
    return [
        (text[:end], score)
        for text, end, score in zip(texts, ends, output.sequences_scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("width", [2, 3, 5, 8])
def test_all_texts_and_scores_are_transformers(width: int, penalty: float) -> None:
    for seed in SEEDS:
        request = prompt(
            seed,
            seed % 3,
            3,
            rules=compat("transformers"),
            sampling=Beam(width, length_penalty=penalty, num_best=width),
            max_new_tokens=24,
        )
        ours = engine_of(single(seed)).generate([request])[0]
        assert_texts(ours, generate(seed, request))


@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("repetition", [0.8, 1.0, 1.6])
def test_rules_act_on_log_probabilities_as_in_transformers(size: int, repetition: float) -> None:
    rules = replace(compat("transformers"), ngram_size=size, repetition_penalty=repetition)
    for seed in SEEDS:
        request = prompt(seed, 1, 3, rules=rules, sampling=Beam(4, num_best=4), max_new_tokens=20)
        ours = engine_of(single(seed)).generate([request])[0]
        expected = generate(seed, request, no_repeat_ngram_size=size, repetition_penalty=repetition)
        assert_texts(ours, expected)


def test_searches_longer_than_the_table_of_positions_are_the_same() -> None:
    length = 3 * CONFIG.text.max_positions
    beam = Beam(3, length_penalty=4.0)
    request = prompt(1, 1, 3, rules=compat("transformers"), sampling=beam, max_new_tokens=length)
    ours = engine_of(single(1)).generate([request])[0]
    assert len(ours.ids) > 2 * CONFIG.text.max_positions
    assert_texts(ours, generate(1, request))


# --- the original


@pytest.mark.parametrize("width", [2, 5])
def test_compat_original_equals_the_original_s_search(width: int) -> None:
    max_len = 18
    stops = set()
    for seed, penalty in itertools.product(range(4), PENALTIES):
        request = prompt(seed, seed % 2, 3, rules=compat("original"))
        request = replace(
            request,
            sampling=Beam(width, length_penalty=penalty, num_best=width),
            max_new_tokens=original_max_new_tokens(max_len, len(request.ids)),
        )
        expected = slow_original(seed, request, max_len)
        engine = engine_of(network(seed))
        for _ in range(2):  # the second time the prompt is in the store of prefixes
            ours = engine.generate([request])[0]
            assert [list(each.ids) for each in all_of(ours)] == [ids for ids, _ in expected]
            scores = [each.score for each in all_of(ours)]
            assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
        stops |= {each.stop for each in all_of(ours)}
    assert stops == {StopReason.EOS, StopReason.LENGTH}


# --- forms


FORMS: dict[str, tuple[Constraint, int]] = {
    "a box": (BoxConstraint(vocabulary=VOCABULARY, max_boxes=1), 4),
    "boxes": (BoxConstraint(vocabulary=VOCABULARY, max_boxes=3), 10),
    "boxes or none": (BoxConstraint(vocabulary=VOCABULARY, max_boxes=2, allow_absent=True), 7),
    "a caption": (caption_form(), 40),
    "a caption in little room": (caption_form(), 17),
    "given phrases": (caption_form(spans=((0, 1), (2, 4))), 60),
    "phrases or none": (caption_form(spans=((0, 1), (2, 4)), allow_absent=True), 60),
    "good markup": (GrammarConstraint(vocabulary=VOCABULARY), 14),
}


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("name", FORMS)
def test_a_search_under_a_form_equals_the_slow_one(name: str, penalty: float) -> None:
    form, length = FORMS[name]
    for seed in range(4):
        request = prompt(
            seed,
            1,
            2,
            rules=OFF,
            constraint=form,
            max_new_tokens=length,
            sampling=Beam(4, length_penalty=penalty, num_best=4),
        )
        assert_texts(answer(seed, request), slow_search(seed, request))


@pytest.mark.parametrize("mode", list(NoRepeat))
def test_every_answer_of_a_search_has_its_form(mode: NoRepeat) -> None:
    beam, rules = Beam(6, num_best=6), Rules(no_repeat=mode)
    form, caption = BoxConstraint(vocabulary=VOCABULARY, max_boxes=3), caption_form()
    for seed in SEEDS:
        find = prompt(seed, 1, 2, sampling=beam, rules=rules, constraint=form, max_new_tokens=10)
        ground = replace(find, constraint=caption, max_new_tokens=caption.longest)
        found, grounded = engine_of(network(seed), ALL).generate([find, ground])
        assert all(is_group(each.ids, 3) for each in all_of(found))
        assert len({each.ids for each in all_of(found)}) == 6
        for each in all_of(grounded):
            assert is_grounded(each.ids, (10, 11, 12, 13), 2)


def test_beams_of_unequal_length_compete_by_their_choices() -> None:
    # A phrase that opens forces tokens, so after as many choices some texts are longer.
    request = prompt(0, 1, 2, constraint=caption_form(), max_new_tokens=60, sampling=Beam(4))
    search = begin(request, VOCABULARY)
    scheduler = engine_of(network(0)).scheduler
    scheduler.submit(search)
    unequal = False
    while search.stop is None:
        scheduler.step()
        unequal |= len({len(row.steps) for row in search.rows}) > 1
    assert unequal


def test_a_text_without_any_choice_is_the_answer_of_a_search() -> None:
    form = caption_form(spans=())
    ours = answer(0, prompt(0, 0, 2, constraint=form, sampling=Beam(3, num_best=3)))
    assert ours.ids == (10, 11, 12, 13)
    assert (ours.score, ours.others, ours.stop) == (0.0, (), StopReason.CONSTRAINT)


def test_a_network_that_scores_nothing_allowed_still_gives_the_form() -> None:
    engine = engine_of(network(0))
    first = VOCABULARY.first_location

    def logits(hidden_MD: Tensor) -> Tensor:
        logits_MV = torch.zeros(len(hidden_MD), VOCABULARY.size)
        logits_MV[:, first:] = logits_MV[:, VOCABULARY.tag(Tag.OBJECT_END)] = -math.inf
        return logits_MV

    engine.runner.logits = logits  # type: ignore[method-assign]
    form = BoxConstraint(vocabulary=VOCABULARY, max_boxes=1)
    ours = engine.generate([prompt(0, 0, 2, constraint=form, sampling=Beam(3))])[0]
    assert is_group(ours.ids, 1)


# --- what an answer reports


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_of_each_answer_is_the_model_s_own(seed: int) -> None:
    rules = Rules(repetition_penalty=0.5, ngram_size=0)  # what was there is likely again
    request = prompt(seed, 1, 3, sampling=Beam(4, num_best=4), rules=rules)
    engine = engine_of(network(seed))
    ours = engine.generate([request])[0]
    for (ids, _), each in zip(texts_of(ours), all_of(ours), strict=True):
        asked = ScoreRequest(
            ids=request.ids,
            image_mask=request.image_mask,
            latents=request.latents,
            continuation=tuple(ids),
        )
        score = engine.score([asked])[0]
        assert each.mean_logprob == pytest.approx(score.mean, abs=1e-5)
        assert each.logprobs == pytest.approx(score.logprobs[: len(each.ids)], abs=1e-5)
        assert (each.score or 0.0) > each.mean_logprob + 1e-3


@pytest.mark.parametrize("name", FORMS)
def test_the_score_without_rules_is_the_mean(name: str) -> None:
    form, length = FORMS[name]
    request = prompt(
        1, 1, 2, rules=OFF, constraint=form, max_new_tokens=length, sampling=Beam(3, num_best=3)
    )
    ours = answer(1, request)
    scores = [each.score for each in all_of(ours)]
    assert scores == pytest.approx([each.mean_logprob for each in all_of(ours)])
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))


def test_masses_of_boxes_are_those_of_the_same_text_written_greedily() -> None:
    # One box is two choices: among all pairs of cells the widest search has the greedy one.
    form = BoxConstraint(vocabulary=VOCABULARY, max_boxes=1)
    greedy = prompt(0, 1, 2, constraint=form, max_new_tokens=4)
    wide = replace(greedy, sampling=Beam(16, num_best=16))
    expected, ours = engine_of(network(0), ALL).generate([greedy, wide])
    (same,) = [each for each in all_of(ours) if each.ids == expected.ids]
    assert [mass is None for mass in same.masses] == [True, False, False, True]
    assert [mass or 0.0 for mass in same.masses] == pytest.approx(
        [mass or 0.0 for mass in expected.masses], abs=1e-6
    )
    assert [step.forced for step in same.steps] == [True, False, False, True]


def test_only_a_search_has_a_score_and_others() -> None:
    for how in (Greedy(), Sampling(seed=1), Beam(1)):
        ours = answer(0, prompt(0, 0, 2, sampling=how))
        assert (ours.score, ours.others) == (None, ())


def test_as_many_answers_are_returned_as_were_asked_for() -> None:
    requests = [prompt(0, 0, 2, sampling=Beam(4, num_best=most)) for most in (1, 2, 4)]
    answers = engine_of(network(0), ALL).generate(requests)
    assert [len(all_of(each)) for each in answers] == [1, 2, 4]
    assert [each.ids for each in all_of(answers[1])] == [each.ids for each in all_of(answers[2])][
        :2
    ]
    assert all(not other.others for other in answers[2].others)
