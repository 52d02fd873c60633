"""GLIP as one detector among others: phrases in, boxes out, the same in any company."""

import builtins
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from slow_glip import slow
from tiny_detectors import ask, bert_tokenizer, bert_vocabulary, picture
from tiny_glip import glip_folder, tiny_glip

from kosmos2.errors import ConfigError, MissingExtraError, RequestError
from kosmos2.grit import detect
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.glip import checkpoint
from kosmos2.grit.glip.detector import GlipDetector, GlipScaling, load
from kosmos2.grit.glip.network import Glip
from kosmos2.grit.linking import Candidate
from kosmos2.grit.prompts import TOO_LONG
from kosmos2.grit.recipe import Detection

CAPTION = "A red dog on the street, with two cats and a big ball of the man"
PHRASES = ("A red dog", "the street", "two cats", "a big ball", "the man")
SMALL = GlipScaling(shortest=64, longest=128)


def settings(**changes: Any) -> Detection:
    values = {"name": "glip", "model": "tiny", "device": "cpu", "dtype": "fp32"}
    return Detection(**{**values, **changes})


def detector(network: Glip | None = None, **changes: Any) -> GlipDetector:
    return GlipDetector(network or tiny_glip(), bert_tokenizer(), settings(**changes), SMALL)


def boxes_of(found: list[Candidate] | Refused) -> list[Candidate]:
    assert not isinstance(found, Refused)
    return found


def assert_same(left: list[Candidate] | Refused, right: list[Candidate] | Refused) -> None:
    a, b = boxes_of(left), boxes_of(right)
    assert Counter(each.phrase for each in a) == Counter(each.phrase for each in b)
    for mine, other in zip(a, b, strict=True):
        assert mine.phrase == other.phrase
        assert mine.score == pytest.approx(other.score, abs=1e-5)
        assert mine.box.corners == pytest.approx(other.box.corners, abs=1e-4)


@torch.no_grad()
def slow_reference(asked: Asked) -> list[Candidate]:
    """Run one picture and its caption by hand: pixels as the configuration has them, then loops."""
    tokenizer, network = bert_tokenizer(), tiny_glip()
    short, long = sorted(asked.image.size)
    side = 64 if long / short * 64 <= 128 else round(128 * short / long)
    other = int(side * long / short)
    width, height = (other, side) if asked.image.width >= asked.image.height else (side, other)
    scaled = np.asarray(asked.image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    blue_first = (scaled[:, :, ::-1] - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    canvas = torch.zeros(1, 3, math.ceil(height / 32) * 32, math.ceil(width / 32) * 32)
    canvas[0, :, :height, :width] = torch.tensor(blue_first.transpose(2, 0, 1).copy())
    encoded = tokenizer(asked.caption)
    ids = torch.tensor([encoded["input_ids"]])
    seen = network(canvas, ids, torch.ones_like(ids, dtype=torch.bool))
    phrases = [
        sorted({encoded.char_to_token(at) for at in range(*span)} - {None}) for span in asked.spans
    ]
    found = []
    for phrase, score, (x0, y0, x1, y1) in slow(seen, 0, phrases, (height, width)):
        if x0 < x1 and y0 < y1:
            found.append((phrase, score, (x0 / width, y0 / height, x1 / width, y1 / height)))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("size", [(96, 64), (64, 97), (70, 50), (300, 40)])
def test_boxes_and_scores_are_those_of_a_slow_reference(size: tuple[int, int]) -> None:
    asked = ask(CAPTION, *PHRASES, image=picture(*size))
    (found,) = detector().detect([asked])
    expected: Any = slow_reference(asked)
    assert len(expected) > 10 and len({row[0] for row in expected}) > 2  # it tells phrases apart
    assert len({round(row[1], 3) for row in expected}) > 5
    for mine, (phrase, score, corners) in zip(boxes_of(found), expected, strict=True):
        assert mine.phrase == phrase
        assert mine.score == pytest.approx(score, abs=1e-4)
        assert mine.box.corners == pytest.approx(corners, abs=1e-3)


@pytest.mark.parametrize("prompt", ["caption", "chunks"])
def test_a_pictures_boxes_do_not_depend_on_its_batch(prompt: Any) -> None:
    asked = [
        ask(CAPTION, *PHRASES, image=picture(96, 64, 1)),
        ask("a dog", "a dog", image=picture(96, 64, 2)),
        ask("the cat and two dogs", "the cat", "two dogs", image=picture(64, 96, 3)),
        ask("the very big blue house with a ball", "a ball", image=picture(94, 64, 5)),
    ]
    one = detector(prompt=prompt)
    alone = [one.detect([each])[0] for each in asked]
    assert all(alone)
    together = detector(prompt=prompt, batch_size=4).detect(asked)
    backwards = detector(prompt=prompt, batch_size=2).detect(asked[::-1])[::-1]
    for mine, other, reverse in zip(alone, together, backwards, strict=True):
        assert_same(mine, other)
        assert_same(mine, reverse)


def test_there_is_one_forward_pass_for_a_picture_and_batches_are_of_one_size() -> None:
    network, seen = tiny_glip(), []
    network.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    wide = [ask(CAPTION, *PHRASES, image=picture(96, 64, n)) for n in range(3)]
    tall = [ask(CAPTION, *PHRASES, image=picture(64, 90, n)) for n in range(2)]
    detector(network, batch_size=2).detect([wide[0], tall[0], wide[1], tall[1], wide[2]])
    assert sorted(seen) == [(1, 3, 64, 96), (2, 3, 64, 96), (2, 3, 96, 64)]


def test_the_caption_is_read_as_it_is_and_chunks_with_stops() -> None:
    network, read = tiny_glip(), []
    network.register_forward_pre_hook(lambda _, given: read.append(given[1][0].tolist()))
    asked = [ask("a dog on the street", "a dog", "the street")]
    for prompt in ("caption", "chunks"):
        detector(network, prompt=prompt).detect(asked)
    tokens = [bert_tokenizer().convert_ids_to_tokens(ids) for ids in read]
    assert tokens[0] == ["[CLS]", "a", "dog", "on", "the", "street", "[SEP]"]
    assert tokens[1] == ["[CLS]", "a", "dog", ".", "the", "street", ".", "[SEP]"]


def test_words_and_pictures_change_the_boxes() -> None:
    one = detector()
    answers = [
        one.detect([ask(words, words, image=picture(96, 64, seed))])[0]
        for words, seed in (("a dog", 1), ("a house", 1), ("a dog", 2))
    ]
    assert len({tuple(each.score for each in boxes_of(answer)) for answer in answers}) == 3


def test_a_caption_over_the_limit_is_read_in_parts_each_with_its_phrases() -> None:
    first, second = "the red dog on the street and the big house. ", "a cat with the man " * 4
    long = ask(first * 5 + second + ".", "the red dog", "a cat", "the man")
    assert len(bert_tokenizer()(long.caption)["input_ids"]) > 64
    (found,) = detector().detect([long])
    assert {each.phrase for each in boxes_of(found)} == {0, 1, 2}
    endless = ask("a cat with the man " * 20, "a cat")
    answers = detector().detect([ask("a dog", "a dog"), endless])
    assert answers[1] == Refused(TOO_LONG) and boxes_of(answers[0])


def test_a_phrase_without_tokens_and_a_caption_without_phrases_get_no_box() -> None:
    bare = Asked(id="1", image=picture(96, 64), caption="a dog \u200b", spans=((0, 5), (6, 7)))
    none = Asked(id="2", image=picture(96, 64), caption="a dog", spans=())
    found = detector().detect([bare, none])
    assert {each.phrase for each in boxes_of(found[0])} == {0}
    assert found[1] == []


@pytest.mark.parametrize("dtype", ["bf16"])
def test_half_precision_finds_nearly_the_same(dtype: str) -> None:
    asked = [ask("a dog on the street", "a dog", image=picture(96, 64))]
    exact, half = detector().detect(asked)[0], detector(dtype=dtype).detect(asked)[0]
    assert boxes_of(half)[0].score == pytest.approx(boxes_of(exact)[0].score, abs=0.1)
    assert detector(dtype=dtype).identity["precision"] == dtype


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_pictures_are_scaled_as_the_reference_scales_them(width: int, height: int) -> None:
    """data/transforms/transforms.py, Resize.get_size with 800 and 1333."""
    low, high, side = float(min(width, height)), float(max(width, height)), 800
    if high / low * side > 1333:
        side = round(1333 * low / high)
    if min(width, height) == side:
        expected = height, width
    elif width < height:
        expected = int(side * height / max(width, 1)), side
    else:
        expected = side, int(side * width / height)
    found = GlipScaling().size(width, height)
    assert found == (max(1, expected[0]), max(1, expected[1])) or side == 0


@pytest.mark.parametrize("whole", [True, False])
def test_a_detector_is_opened_from_a_folder_or_a_file(tmp_path: Path, whole: bool) -> None:
    folder = glip_folder(tmp_path / "tiny", tiny_glip())
    wanted = settings(model=str(folder if whole else folder / "glip_tiny.pth"))
    opened = load(wanted)
    assert opened.identity["detector"] == "glip"
    assert opened.identity == detect.identity(wanted)
    assert "800" in opened.identity["scaling"] and "1333" in opened.identity["scaling"]
    again = GlipDetector(
        checkpoint.load(folder / "glip_tiny.pth"), bert_tokenizer(), settings(), SMALL
    )
    asked = [ask(CAPTION, *PHRASES)]
    assert_same(again.detect(asked)[0], detector().detect(asked)[0])


def test_a_vocabulary_file_alone_is_enough_of_a_tokenizer(tmp_path: Path) -> None:
    folder = glip_folder(tmp_path, tiny_glip())
    for path in folder.glob("*.json"):
        path.unlink()
    (folder / "vocab.txt").write_text("\n".join(bert_vocabulary()) + "\n")
    opened = load(settings(model=str(folder)))
    assert opened._encode("A dog")["input_ids"] == bert_tokenizer()("a dog")["input_ids"]


def test_identity_tells_weights_and_settings_apart() -> None:
    identities = [
        detector().identity,
        detector(prompt="chunks").identity,
        detector(tiny_glip(1)).identity,
        GlipDetector(tiny_glip(), bert_tokenizer(), settings()).identity,
    ]
    assert len({tuple(each.items()) for each in identities}) == len(identities)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load(settings(model=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="one checkpoint"):
        load(settings(model=str(tmp_path)))
    folder = glip_folder(tmp_path, tiny_glip())
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ConfigError, match="token"):
        load(settings(model=str(folder)))


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(ConfigError, match="1200"):
        GlipDetector(tiny_glip(), bert_tokenizer(bert_vocabulary()[:-1]), settings(), SMALL)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"kosmos2\[detect\]"):
        load(settings())


def test_numbers_that_are_not_finite_end_the_run() -> None:
    network = tiny_glip()
    network.get_parameter("rpn.head.bias0").data.fill_(float("nan"))
    with pytest.raises(RequestError, match="bf16"):
        detector(network).detect([ask("a dog", "a dog")])


def test_the_score_says_what_it_is() -> None:
    assert "sqrt(mean" in GlipDetector.score
