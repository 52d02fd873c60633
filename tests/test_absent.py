"""Phrases that may be absent: their probabilities are the network's own, their texts stay whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import save_tiny_model

from kosmos2 import Kosmos2
from kosmos2.api import Caption, Settings, View, questions
from kosmos2.api.questions import Heard, Question
from kosmos2.api.replies import Trace
from kosmos2.engine import CaptionConstraint, Rules, Sampling, ScoreRequest, Step, StopReason
from kosmos2.engine.constraint import Gate, GrammarConstraint
from kosmos2.engine.sampling import NoRepeat
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface, load_pretrained

CAPTION = "A snowman, by  a fire and 2 dogs."
PHRASES = ("A snowman", "a fire", "2 dogs.")


@pytest.fixture(scope="module", params=["sees everything", "sees nothing"])
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tokenizer: Tokenizer,
) -> Kosmos2:
    """Return a random model that is rather sure, or rather unsure, of all phrases."""
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), tiny_tokenizer)
    unsure = Kosmos2.load(folder, device="cpu")
    question = questions.complete("<grounding><phrase> a dog</phrase>")
    wanted = next(unsure.engine.stream(unsure._request((look(unsure, 0),), question))).id

    network = load_pretrained(folder, dtype=torch.float32, device=torch.device("cpu")).network
    rows_VD = network.decoder.embedding.weight
    with torch.no_grad():
        scale = 3 if request.param == "sees everything" else -1
        rows_VD[tiny_tokenizer.vocabulary.tag(Tag.OBJECT)] = scale * rows_VD[wanted]
    sure = tmp_path_factory.mktemp("sure")
    huggingface.save(network, tiny_tokenizer, sure, dtype=torch.float32)
    loaded = Kosmos2.load(sure, device="cpu", settings=Settings(max_new_tokens=64))
    return replace(loaded, name=request.param)


def look(model: Kosmos2, seed: int) -> View:
    rng = np.random.default_rng(seed)
    return model.look(Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)))


def absent_after(view: View, question: Question[Caption], written: list[int]) -> float:
    """Return 1 - P(<object>) behind the prompt and what is written, scored without an answer."""
    model, vocabulary = view.model, view.model.tokenizer.vocabulary
    num_latents = model.engine.config.num_latents
    prompt = model.tokenizer.encode(question.prompt.segments, num_latents=num_latents)
    request = ScoreRequest(
        ids=(*prompt.ids, *written),
        image_mask=(*prompt.image_mask, *(False for _ in written)),
        latents=(view.latents_QD,),
        continuation=(vocabulary.tag(Tag.OBJECT),),
    )
    return -math.expm1(model.engine.score([request])[0].total)


def test_a_phrase_is_absent_with_what_is_left_of_the_probability_of_a_box(model: Kosmos2) -> None:
    for seed, thing in enumerate(["a dog", "two cats", "the ball"]):
        view = look(model, seed)
        question = questions.find_or_absent(thing, model.tokenizer.vocabulary)
        found = view.put(question)
        assert found.absent == pytest.approx(absent_after(view, question, []), abs=1e-5)
        assert found.to_dict()["absent"] == found.absent
        assert not found.grounded.malformed
        if model.name == "sees everything":
            assert found.absent < 0.5 and found.stop is StopReason.CONSTRAINT
            assert found.boxes == view.find(thing).boxes
        else:
            assert found.absent > 0.5 and found.stop is StopReason.EOS
            assert not found.boxes


def test_find_alone_says_nothing_of_absence(model: Kosmos2) -> None:
    found = look(model, 0).find("a dog")
    assert found.absent is None
    assert "absent" not in found.to_dict()


@pytest.mark.parametrize("outcome", list(product([True, False], repeat=3)))
def test_each_phrase_of_a_caption_is_there_or_not(
    tiny_tokenizer: Tokenizer, outcome: tuple[bool, ...]
) -> None:
    spans = questions.spans_of(CAPTION, PHRASES)
    question = questions.ground_phrases_or_absent(CAPTION, spans, tiny_tokenizer)
    probabilities = [0.9 if present else 0.2 for present in outcome]
    reply = question.read(heard_of(question, outcome, probabilities, tiny_tokenizer))

    assert reply.text == CAPTION and not reply.grounded.malformed
    assert [(doubt.start, doubt.end) for doubt in reply.doubts] == list(spans)
    absent = [1 - probability for probability in probabilities]
    assert [doubt.absent for doubt in reply.doubts] == pytest.approx(absent)
    found = [(phrase.start, phrase.end) for phrase in reply.phrases]
    assert found == [span for span, present in zip(spans, outcome, strict=True) if present]
    described = json.loads(json.dumps(reply.to_dict()))["doubts"]
    assert [doubt["text"] for doubt in described] == list(PHRASES)


def heard_of(
    question: Question[Caption],
    outcome: Sequence[bool],
    probabilities: Sequence[float],
    tokenizer: Tokenizer,
) -> Heard:
    """Return the caption as it is written where the model sees these phrases, that probably."""
    form, object_id = question.form, tokenizer.vocabulary.tag(Tag.OBJECT)
    assert isinstance(form, CaptionConstraint)
    steps, state, asked = [], form.start(()), iter(zip(outcome, probabilities, strict=True))
    logprobs, stop = [], StopReason.CONSTRAINT
    while allowed := form.allowed(state, 100):
        if isinstance(allowed, Gate):
            present, probability = next(asked)
            logprobs.append(math.log(probability if present else 1 - probability))
            id = allowed.yes if present else allowed.no
            if id == tokenizer.vocabulary.eos:
                stop = StopReason.EOS
                break
            steps.append(Step(id=id, logprob=logprobs[-1], mass=None))
        else:
            ids = [id for run in allowed for id in run]
            is_forced = len(ids) == 1
            logprobs += [] if is_forced else [-1.5]
            id = ids[0]
            steps.append(
                Step(id=id, logprob=0.0 if is_forced else -1.5, mass=None, forced=is_forced)
            )
        state = form.advance(state, id)
    assert all(step.id != object_id or not step.forced for step in steps)
    ids = [step.id for step in steps]
    return Heard(
        symbols=tokenizer.symbols(ids),
        scores=tuple(None for _ in steps),
        steps=tuple(steps),
        grid=tokenizer.grid,
        trace=Trace(
            width=1,
            height=1,
            mean_logprob=math.fsum(logprobs) / len(logprobs),
            stop=stop,
            markup=tokenizer.decode(ids),
        ),
    )


def test_a_caption_that_is_cut_before_a_choice_has_no_doubt_of_that_phrase(
    tiny_tokenizer: Tokenizer,
) -> None:
    spans = questions.spans_of(CAPTION, PHRASES)
    question = questions.ground_phrases_or_absent(CAPTION, spans, tiny_tokenizer)
    heard = heard_of(question, (False, True, True), (0.1, 0.9, 0.9), tiny_tokenizer)
    opened = [step.id for step in heard.steps].index(tiny_tokenizer.vocabulary.tag(Tag.OBJECT))
    cut = replace(
        heard,
        steps=heard.steps[:opened],
        symbols=tiny_tokenizer.symbols([step.id for step in heard.steps[:opened]]),
        trace=replace(heard.trace, stop=StopReason.LENGTH),
    )
    reply = question.read(cut)
    assert [doubt.absent for doubt in reply.doubts] == pytest.approx([0.9])
    assert [fault.reason for fault in reply.grounded.malformed] == ["phrase_without_boxes"]


def test_the_doubts_of_a_caption_are_the_networks_own(model: Kosmos2) -> None:
    spans = questions.spans_of(CAPTION, PHRASES)
    question = questions.ground_phrases_or_absent(CAPTION, spans, model.tokenizer)
    closing = model.tokenizer.vocabulary.tag(Tag.PHRASE_END)
    for seed in range(2):
        view = look(model, seed)
        ids = [step.id for step in view.model.engine.stream(model._request((view,), question))]
        places = [at + 1 for at, id in enumerate(ids) if id == closing]
        expected = [absent_after(view, question, ids[:place]) for place in places]
        doubts = [doubt.absent for doubt in view.put(question).doubts]
        assert doubts == pytest.approx(expected, abs=1e-4)


def test_a_streamed_caption_with_absent_phrases_is_the_whole_one(model: Kosmos2) -> None:
    view = look(model, 1)
    spans = questions.spans_of(CAPTION, PHRASES)
    question = questions.ground_phrases_or_absent(CAPTION, spans, model.tokenizer)
    stream = view.stream(question)
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            assert end.value == view.put(question)
            break
    assert "".join(pieces) == CAPTION


def test_the_answer_to_a_well_formed_question_has_no_fault(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    folder = save_tiny_model(tmp_path, tiny_tokenizer)
    question = questions.caption()
    strict = questions.well_formed(question, tiny_tokenizer)
    assert isinstance(strict.form, GrammarConstraint)
    assert strict.form.blanks == tiny_tokenizer.blanks
    num_faults = num_phrases = 0
    for seed in range(4):
        settings = Settings(
            sampling=Sampling(seed=seed, temperature=5.0),
            rules=Rules(no_repeat=NoRepeat.OFF),
            max_new_tokens=40,
        )
        model = Kosmos2.load(folder, device="cpu", settings=settings)
        views = [look(model, number) for number in range(8)]
        for reply in model.answer([((view,), question) for view in views]):
            num_faults += len(reply.grounded.malformed)
        for reply in model.answer([((view,), strict) for view in views]):
            assert not reply.grounded.malformed
            num_phrases += len(reply.phrases)
    assert num_faults > 20 and num_phrases > 2


def test_a_form_that_is_given_stays(tiny_tokenizer: Tokenizer) -> None:
    question = questions.find("a dog", tiny_tokenizer.vocabulary)
    assert questions.well_formed(question, tiny_tokenizer) is question
