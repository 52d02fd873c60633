"""Laws of the interface: a list = each alone, a view = the model, streamed = whole."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_model import save_tiny_model

from kosmos2 import Box, ConfigError, Kosmos2, RequestError
from kosmos2.api import Reply, Settings, View, questions
from kosmos2.api.loading import choose_device, choose_precision
from kosmos2.engine import Engine, Rules, Sampling, StopReason
from kosmos2.engine.sampling import NoRepeat
from kosmos2.errors import ImageError
from kosmos2.kernels.kind import Precision
from kosmos2.tasks import Demonstration
from kosmos2.vocab.tokenizer import Tokenizer

CAPTION = "A snowman by a fire."
HALF = Box(0, 0, 0.5, 1)


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (40, 60 + seed, 3), np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), tiny_tokenizer)


@pytest.fixture(scope="module")
def model(folder: Path) -> Kosmos2:
    return Kosmos2.load(folder, device="cpu", dtype="fp64", settings=Settings(max_new_tokens=16))


@pytest.fixture(scope="module")
def view(model: Kosmos2) -> View:
    return model.look(picture(0))


def with_settings(model: Kosmos2, **changes: Any) -> Kosmos2:
    return replace(model, settings=replace(model.settings, **changes))


def varied(model: Kosmos2, seed: int) -> Kosmos2:
    """The model drawing any token at all, so that its answers hold all sorts of markup."""
    sampling = Sampling(seed=seed, temperature=5.0)
    return with_settings(model, sampling=sampling, rules=Rules(no_repeat=NoRepeat.OFF))


ASKED: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    "caption": lambda it, image: it.caption(*image),
    "caption_in_detail": lambda it, image: it.caption_in_detail(*image),
    "plain_caption": lambda it, image: it.plain_caption(*image),
    "ground": lambda it, image: it.ground(*image, CAPTION),
    "find": lambda it, image: it.find(*image, "a fire"),
    "describe": lambda it, image: it.describe(*image, HALF),
    "ask": lambda it, image: it.ask(*image, "What is it?"),
}


def close(one: Reply, other: Reply) -> bool:
    """Whether two answers agree but for the rounding of matrix products of other shapes."""
    same = {name: getattr(one.trace, name) == getattr(other.trace, name) for name in ("markup",)}
    near = abs(one.mean_logprob - other.mean_logprob) < 1e-4
    return all(same.values()) and near and one.text == other.text and one.stop == other.stop


# One picture and many


@pytest.mark.parametrize("name", ASKED)
def test_a_list_is_answered_as_each_picture_alone(model: Kosmos2, name: str) -> None:
    pictures = [picture(seed) for seed in range(3)]
    together = ASKED[name](with_settings(model, batch_size=2), (pictures,))
    alone = [ASKED[name](model, (image,)) for image in pictures]
    assert isinstance(together, list)
    assert [reply.trace.width for reply in together] == [60, 61, 62]
    assert all(close(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("name", ASKED)
def test_a_view_answers_as_the_model_does(model: Kosmos2, view: View, name: str) -> None:
    assert ASKED[name](view, ()) == ASKED[name](model, (picture(0),))


@pytest.mark.parametrize("name", ASKED)
def test_no_pictures_are_no_answers(model: Kosmos2, name: str) -> None:
    assert ASKED[name](model, ([],)) == []


def test_a_mixture_of_questions_is_answered_in_its_order(model: Kosmos2, view: View) -> None:
    asked = [questions.ask("What is behind the old chair?"), questions.caption()]
    asked += [questions.find("a fire", model.tokenizer.vocabulary)]
    replies = with_settings(model, batch_size=2).answer([((view,), each) for each in asked])
    expected = [view.ask("What is behind the old chair?"), view.caption(), view.find("a fire")]
    assert all(close(one, other) for one, other in zip(replies, expected, strict=True))


def test_one_encoding_serves_every_question(
    model: Kosmos2, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = Engine.encode_images

    def counted(self: Engine, pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Engine, "encode_images", counted)
    view = model.look(picture(9))
    view.caption()
    view.find_each(["a fire", "a snowman", "two dogs"])
    view.ask("What is it?")
    assert encoded == [1]


def test_several_phrases_are_found_as_each_alone(view: View) -> None:
    phrases = ["a fire", "the huge elephant under the orange umbrella"]
    together = view.find_each(phrases)
    assert [found.phrase for found in together] == phrases
    assert all(close(found, view.find(found.phrase)) for found in together)


# Streaming


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["caption", "ask", "complete"]))
def test_streamed_pieces_joined_are_the_whole_answer(model: Kosmos2, seed: int, kind: str) -> None:
    question = {
        "caption": questions.caption(),
        "ask": questions.ask_grounded("What is it?"),
        "complete": questions.complete("<grounding><phrase> A snowman"),
    }[kind]
    view = model.look(picture(1))
    whole = varied(model, seed).answer([((view,), question)])[0]
    stream = varied(model, seed).stream((view,), question)
    pieces, streamed = drained(stream)
    assert "".join(pieces) == whole.text
    assert streamed == whole
    assert all(pieces)


def drained(stream: Iterator[str]) -> tuple[list[str], Reply]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


# Answers


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_whatever_is_written_phrases_index_the_text_and_survive_json(
    model: Kosmos2, seed: int
) -> None:
    reply = varied(model, seed).look(picture(seed % 3)).caption()
    assert reply.text.startswith("An image of")
    fields = json.loads(json.dumps(reply.to_dict(), allow_nan=False))
    for phrase in fields["phrases"]:
        assert fields["text"][phrase["start"] : phrase["end"]] == phrase["text"]
        assert len(phrase["pixels"]) == len(phrase["boxes"]) == len(phrase["scores"])
        for x0, y0, x1, y1 in phrase["pixels"]:
            assert 0 <= x0 <= x1 <= reply.trace.width
            assert 0 <= y0 <= y1 <= reply.trace.height


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_grounding_a_caption_keeps_it_to_the_letter(model: Kosmos2, seed: int) -> None:
    caption = "Ａ snowman, by  a fire  (über 2 dogs)."
    reply = varied(model, seed).ground(picture(0), caption)
    assert reply.text == caption
    words = [reply.grounded.phrase_text(phrase) for phrase in reply.phrases]
    assert words == [word.strip() for word in words]


def test_given_phrases_get_their_boxes_at_their_own_characters(view: View) -> None:
    caption = "  A snowman by a fire."
    spans = questions.spans_of(caption, ["A snowman", "a fire"])
    reply = view.ground_phrases(caption, spans[::-1])
    assert reply.stop is StopReason.CONSTRAINT
    assert [reply.grounded.phrase_text(phrase) for phrase in reply.phrases] == [
        "A snowman",
        "a fire",
    ]
    assert all(phrase.boxes and phrase.scores for phrase in reply.phrases)


def test_the_same_words_twice_are_found_one_behind_the_other() -> None:
    assert questions.spans_of("a cat and a cat", ["a cat", "a cat"]) == ((0, 5), (10, 15))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_find_always_points_somewhere_the_surest_box_first(model: Kosmos2, seed: int) -> None:
    found = varied(model, seed).find(picture(0), "a fire")
    assert found.text == found.phrase == "a fire"
    assert len(found.boxes) == len(found.scores) >= 1
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_a_description_is_tied_to_its_box(view: View) -> None:
    description = view.describe(HALF)
    assert description.text
    assert description.phrases[0].boxes == (HALF,)
    assert description.to_dict()["box"] == [0, 0, 0.5, 1]


def test_boxes_in_pixels_are_those_of_the_upright_original(model: Kosmos2, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "lying.jpg", exif=exif)
    found = model.find(tmp_path / "lying.jpg", "a fire")
    assert (found.trace.width, found.trace.height) == (40, 80)
    assert found.in_pixels(HALF) == (0, 0, 20, 80)


def test_a_question_about_a_box_needs_the_words_that_mean_it(view: View) -> None:
    assert view.ask_about("What is the title of it?", "it", HALF).question
    with pytest.raises(RequestError, match="'the hat' does not occur in the question"):
        view.ask_about("What is that?", "the hat", HALF)
    with pytest.raises(RequestError, match="'it' does not occur"):
        view.ask_about("What is the title?", "it", HALF)


def test_a_question_behind_examples_takes_their_pictures_too(model: Kosmos2) -> None:
    grid = model.tokenizer.grid
    question = questions.caption()
    example = Demonstration(
        prompt=question.prompt, answer=model.caption(picture(0)).grounded.trimmed()
    )
    asked = questions.few_shot([example], question, grid)
    views = model.look([picture(0), picture(1)])
    reply = model.answer([(views, asked)])[0]
    assert reply.trace.width == 61
    with pytest.raises(RequestError, match="places for 2 pictures, got 1"):
        model.answer([(views[:1], asked)])


def test_a_prompt_without_the_grounding_tag_does_not_ask_for_boxes() -> None:
    assert questions.caption().asks_for_boxes
    assert questions.complete("<grounding>An image of").asks_for_boxes
    assert not questions.complete("An image of").asks_for_boxes
    assert not questions.plain_caption_in_detail().asks_for_boxes


# Refusals


@pytest.mark.parametrize("span", [(0, 0), (3, 2), (0, 99), (-1, 3), (1, 2)])
def test_a_span_that_is_no_phrase_is_refused(view: View, span: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="is not inside the caption, or is empty"):
        view.ground_phrases("A snowman", [span])


@pytest.mark.parametrize("seed", range(4))
def test_free_phrases_never_begin_or_end_inside_a_word(model: Kosmos2, seed: int) -> None:
    caption = "Xylophone zebras wander, unbelievably."
    reply = varied(model, seed).ground(picture(0), caption)
    for phrase in reply.phrases:
        for place in (phrase.start, phrase.end):
            assert not (
                caption[place - 1 : place].isalnum() and caption[place : place + 1].isalnum()
            )


def test_grounding_no_phrases_points_to_the_free_form(view: View) -> None:
    with pytest.raises(RequestError, match=r"use ground\(\)"):
        view.ground_phrases("A snowman", [])


@pytest.mark.parametrize(
    "ask", [lambda v: v.find(" "), lambda v: v.ask(""), lambda v: v.ground("")]
)
def test_empty_words_are_refused(view: View, ask: Callable[[View], object]) -> None:
    with pytest.raises(RequestError, match="is empty"):
        ask(view)


def test_devices_and_dtypes_that_are_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match="the device 'abacus' is not here"):
        choose_device("abacus")
    with pytest.raises(ConfigError, match=r"one of auto, fp64, fp32, .* got 'int3'"):
        choose_precision("int3", torch.device("cpu"))


@pytest.mark.parametrize("able", [True, False])
def test_auto_is_bf16_where_the_processor_multiplies_it(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kosmos2.api.loading.multiplies_bf16", lambda device: able)
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen is (Precision.BF16 if able else Precision.FP32)


def test_best_of_needs_sampling() -> None:
    with pytest.raises(ConfigError, match="best_of is 3, but without sampling"):
        Settings(best_of=3)


@pytest.mark.parametrize("name", ["batch_size", "max_new_tokens", "best_of"])
def test_settings_need_positive_numbers(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        Settings(**{name: 0})  # type: ignore[arg-type]


# The library as a guest


def test_the_library_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Kosmos2.load(folder, device="cpu", settings=Settings(max_new_tokens=2)).caption(picture(0))
    assert capfd.readouterr() == ("", "")


def test_the_text_side_and_the_help_are_there_without_torch() -> None:
    code = (
        "import sys, kosmos2, kosmos2.cli, kosmos2.tasks;"
        "assert kosmos2.Box and 'torch' not in sys.modules; kosmos2.Kosmos2.load;"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    import kosmos2

    with pytest.raises(AttributeError, match="has no attribute 'Kosmos3'"):
        _ = kosmos2.Kosmos3
    assert set(kosmos2.__all__) == {name for name in kosmos2.__all__ if hasattr(kosmos2, name)}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_answer_that_is_drawn_depends_on_its_picture_and_seed_alone(
    model: Kosmos2, batch_size: int
) -> None:
    pictures = [picture(seed) for seed in range(3)]
    drawing = with_settings(varied(model, 7), batch_size=batch_size)
    together = [reply.trace.markup for reply in drawing.caption(pictures)]
    assert together == [drawing.caption(each).trace.markup for each in pictures]
    assert together != [reply.trace.markup for reply in varied(model, 8).caption(pictures)]


def test_the_best_of_several_draws_is_the_most_probable_one(model: Kosmos2, view: View) -> None:
    drawn = [
        varied(model, 7 + draw).answer([((view,), questions.caption())])[0] for draw in range(4)
    ]
    (best,) = with_settings(varied(model, 7), best_of=4).answer([((view,), questions.caption())])
    assert close(best, max(drawn, key=lambda reply: reply.mean_logprob))
    assert len({reply.trace.markup for reply in drawn}) > 1


def test_the_score_of_an_answer_is_the_score_of_its_words(model: Kosmos2, view: View) -> None:
    greedy = with_settings(model, rules=Rules(no_repeat=NoRepeat.OFF), max_new_tokens=6)
    prompt = questions.plain_caption().prompt
    best, other = greedy.score((view,), prompt, [" a snowman", " a fire by the tree"])
    tokens = model.tokenizer.encode_text(" a snowman")
    assert len(best.logprobs) == len(tokens)
    assert best.total == pytest.approx(sum(best.logprobs))
    assert best.mean != other.mean


def test_pictures_of_equal_content_share_their_encoding(model: Kosmos2) -> None:
    one, other, again = model.look([picture(0), picture(1), picture(0)])
    assert one.latents_QD is again.latents_QD
    assert one.latents_QD is not other.latents_QD
    assert model.look(picture(0)).latents_QD is one.latents_QD


def test_a_picture_that_cannot_be_opened_fails_the_list_and_hangs_nothing(model: Kosmos2) -> None:
    with pytest.raises(ImageError, match="no-such-file"):
        model.look([picture(0), "no-such-file.png", picture(1)])
    assert len(model.look([picture(0), picture(1)])) == 2
