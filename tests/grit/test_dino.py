import builtins
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_detectors import (
    KINDS,
    LONGEST_TEXT,
    ask,
    bert_tokenizer,
    bert_vocabulary,
    dino_folder,
    dino_model,
    dino_processor,
    picture,
)
from transformers.image_transforms import get_size_with_aspect_ratio

from kosmos2.errors import ConfigError, MissingExtraError, RequestError
from kosmos2.grit import dino
from kosmos2.grit.canvas import Scaling
from kosmos2.grit.detect import load
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.dino import GroundingDino, identity
from kosmos2.grit.linking import Candidate
from kosmos2.grit.prompts import TOO_LONG, Prompt, prompts
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import ahead, surest

CAPTION = "A red dog on the street. Two cats with a big ball,the man"
PHRASES = ("A red dog", "the street", "Two cats", "a big ball", "the man")


def settings(**changes: Any) -> Detection:
    values = {"name": "mm-grounding-dino", "model": "tiny", "device": "cpu", "dtype": "fp32"}
    return Detection(**{**values, **changes})


def detector(kind: str = "mm-grounding-dino", **changes: Any) -> GroundingDino:
    scaling = Scaling.of(dino_processor())
    return GroundingDino(dino_model(kind), bert_tokenizer(), scaling, settings(**changes), {})


def boxes_of(found: list[Candidate] | Refused) -> list[Candidate]:
    assert not isinstance(found, Refused)
    return sorted(found, key=lambda each: (each.phrase, -each.score, each.box.corners))


def assert_same(
    left: list[Candidate] | Refused, right: list[Candidate] | Refused, within: float = 1e-4
) -> None:
    """Check that two answers are the same boxes, however near scores are ordered."""
    a, b = boxes_of(left), boxes_of(right)
    assert Counter(each.phrase for each in a) == Counter(each.phrase for each in b)
    free = list(b)
    for each in a:
        want = np.array([each.score, *each.box.corners])
        near = [
            other
            for other in free
            if other.phrase == each.phrase
            and np.abs(want - [other.score, *other.box.corners]).max() < within
        ]
        assert near, f"nothing like {each}"
        free.remove(near[0])


@torch.no_grad()
def slow_reference(kind: str, asked: Asked) -> list[Candidate]:
    """Score each (phrase, query) by loops over one picture and its whole caption."""
    model, tokenizer, processor = dino_model(kind), bert_tokenizer(), dino_processor()
    pixels = processor(images=[asked.image], return_tensors="pt")["pixel_values"]
    height, width = pixels.shape[2:]
    canvas = torch.zeros(1, 3, -(-height // 32) * 32, -(-width // 32) * 32)
    mask = torch.zeros(1, *canvas.shape[2:], dtype=torch.long)
    canvas[:, :, :height, :width] = pixels
    mask[:, :height, :width] = 1
    text = asked.caption + " ."
    encoded = tokenizer(text, return_offsets_mapping=True)
    output = model(
        pixel_values=canvas, pixel_mask=mask, input_ids=torch.tensor([encoded["input_ids"]])
    )
    found = []
    for phrase, (start, end) in enumerate(asked.spans):
        tokens = {encoded.char_to_token(at) for at in range(start, end)} - {None}
        for query in range(output.logits.shape[1]):
            logits = [float(output.logits[0, query, token]) for token in tokens]
            score = sum(1 / (1 + np.exp(-logit)) for logit in logits) / len(logits)
            x, y, w, h = output.pred_boxes[0, query].tolist()
            x0, y0, x1, y1 = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, 1).tolist()
            if x0 < x1 and y0 < y1:
                box = dino.candidates(phrase, [score], [(x, y, w, h)])
                found += box
                assert found[-1].box.corners == pytest.approx((x0, y0, x1, y1))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 64), (64, 96), (70, 50), (300, 40)])
def test_boxes_and_scores_are_those_of_a_slow_reference(kind: str, size: tuple[int, int]) -> None:
    asked = ask(CAPTION, *PHRASES, image=picture(*size))
    (found,) = detector(kind).detect([asked])
    expected = slow_reference(kind, asked)
    assert len(expected) > 30
    assert_same(found, expected)
    assert len({round(each.score, 3) for each in expected}) > 10  # the test can tell them apart


@pytest.mark.parametrize("prompt", ["caption", "chunks"])
def test_a_pictures_boxes_do_not_depend_on_its_batch(prompt: Any) -> None:
    asked = [
        ask(CAPTION, *PHRASES, image=picture(96, 64, 1)),
        ask("a dog", "a dog", image=picture(96, 64, 2)),
        ask("the cat and two dogs", "the cat", "two dogs", image=picture(64, 96, 3)),
        ask("a man on a street", "a man", "a street", image=picture(90, 64, 4)),
        ask("the very big blue house with a ball", "a ball", image=picture(94, 64, 5)),
    ]
    one = detector(prompt=prompt)
    alone = [one.detect([each])[0] for each in asked]
    for size in (2, 8):
        together = detector(prompt=prompt, batch_size=size).detect(asked)
        backwards = detector(prompt=prompt, batch_size=size).detect(asked[::-1])[::-1]
        for mine, other, reverse in zip(alone, together, backwards, strict=True):
            assert_same(mine, other)
            assert_same(mine, reverse)


def test_there_is_one_forward_pass_for_a_picture_and_batches_are_of_one_size() -> None:
    model = dino_model("mm-grounding-dino")
    seen = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["pixel_values"].shape)), with_kwargs=True
    )
    one = GroundingDino(
        model, bert_tokenizer(), Scaling.of(dino_processor()), settings(batch_size=2), {}
    )
    wide = [ask(CAPTION, *PHRASES, image=picture(96, 64, n)) for n in range(3)]
    tall = [ask(CAPTION, *PHRASES, image=picture(64, 90, n)) for n in range(2)]
    one.detect([wide[0], tall[0], wide[1], tall[1], wide[2]])
    assert sorted(seen) == [(1, 3, 64, 96), (2, 3, 64, 96), (2, 3, 96, 64)]


def test_only_the_surest_boxes_of_each_phrase_are_kept() -> None:
    asked = [ask(CAPTION, *PHRASES)]
    everything = boxes_of(detector().detect(asked)[0])
    kept = boxes_of(detector(rows_per_phrase=3).detect(asked)[0])
    for phrase in range(len(PHRASES)):
        scores = [each.score for each in everything if each.phrase == phrase]
        mine = [each.score for each in kept if each.phrase == phrase]
        assert mine == pytest.approx(sorted(scores, reverse=True)[: len(mine)], abs=1e-6)
        assert 0 < len(mine) <= 3


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_finds_nearly_the_same_boxes(dtype: str) -> None:
    # Not exactly: which ten of a hundred places become queries hangs on the last bits.
    asked = [ask(CAPTION, *PHRASES, image=picture(96, 64, n)) for n in range(3)]
    exact, half = detector().detect(asked), detector(dtype=dtype).detect(asked)
    near = total = 0
    for mine, other in zip(exact, half, strict=True):
        for each in boxes_of(mine):
            want = np.array([each.score, *each.box.corners])
            off = [
                np.abs(want - [found.score, *found.box.corners]).max()
                for found in boxes_of(other)
                if found.phrase == each.phrase
            ]
            near, total = near + (min(off) < 0.05), total + 1
    assert near / total > 0.7


def test_a_caption_over_the_limit_is_read_in_parts_each_with_its_phrases() -> None:
    first, second = "the red dog on the street and the big house. ", "a cat with the man " * 4
    long = ask(first * 2 + second, "the red dog", "the big house", "a cat", "the man")
    one = detector()
    assert len(bert_tokenizer()(long.caption)["input_ids"]) > LONGEST_TEXT
    (found,) = one.detect([long])
    (head,) = one.detect([ask(first * 2, "the red dog", "the big house")])
    (tail,) = one.detect([ask(second, "a cat", "the man")])
    shifted = [Candidate(phrase=each.phrase + 2, box=each.box, score=each.score) for each in tail]
    assert_same(found, [*head, *shifted])


def test_a_sentence_over_the_limit_is_refused_and_its_neighbours_are_not() -> None:
    long = ask("a cat with the man " * 10, "a cat")
    found = detector().detect([ask("a dog", "a dog"), long, ask("a ball", "a ball")])
    assert found[1] == Refused(TOO_LONG)
    assert boxes_of(found[0]) and boxes_of(found[2])


def test_a_phrase_without_tokens_gets_no_box() -> None:
    asked = Asked(id="1", image=picture(96, 64), caption="a dog \u200b", spans=((0, 5), (6, 7)))
    (found,) = detector().detect([asked])
    assert {each.phrase for each in boxes_of(found)} == {0}


def test_characters_are_code_points() -> None:
    plain, strange = "a dog on the street", "🐕🐕 Ä dog on the street"
    (found,) = detector(prompt="chunks").detect([ask(strange, "Ä dog", "the street")])
    (expected,) = detector(prompt="chunks").detect([ask(plain, "a dog", "the street")])
    assert_same(found, expected)


def words_fit(limit: int) -> Any:
    return lambda text: len(text.split()) <= limit


def test_chunks_are_texts_of_their_own() -> None:
    spans = ((0, 9), (13, 23))
    assert prompts(CAPTION, spans, "chunks", words_fit(99)) == (
        Prompt("A red dog . the street .", (0, 1), ((0, 9), (12, 22))),
    )
    assert prompts(CAPTION, spans, "chunks", words_fit(4)) == (
        Prompt("A red dog .", (0,), ((0, 9),)),
        Prompt("the street .", (1,), ((0, 10),)),
    )
    assert prompts(CAPTION, spans, "chunks", words_fit(3)) == Refused(TOO_LONG)


@pytest.mark.parametrize(
    ("caption", "read"),
    [("a dog", "a dog ."), ("a dog.", "a dog."), ("a dog! ", "a dog! ."), ("a dog? ", "a dog? ")],
)
def test_every_text_ends_in_a_mark_that_ends_a_segment(caption: str, read: str) -> None:
    assert prompts(caption, ((0, 5),), "caption", words_fit(99)) == (Prompt(read, (0,), ((0, 5),)),)


def test_a_caption_is_not_split_inside_a_phrase() -> None:
    caption = "a house. St. Paul on a street"
    phrase = caption.index("St."), caption.index(" on")
    found = prompts(caption, (phrase,), "caption", words_fit(6))
    assert found == (Prompt("St. Paul on a street .", (0,), ((0, 8),)),)
    assert prompts(caption, (phrase,), "caption", words_fit(5)) == Refused(TOO_LONG)


@given(st.data())
def test_split_texts_hold_each_phrase_once_with_its_words(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["dog", "a.", "B!", "é;", "x?"]), min_size=1))
    caption, spans, at = " ".join(words), [], 0
    for word in words:
        if data.draw(st.booleans()):
            spans.append((at, at + len(word)))
        at += len(word) + 1
    limit = data.draw(st.integers(2, 12))
    for kind in ("caption", "chunks"):
        found = prompts(caption, spans, kind, words_fit(limit))
        if isinstance(found, Refused):
            continue
        assert sorted(n for part in found for n in part.phrases) == list(range(len(spans)))
        for part in found:
            assert len(part.text.split()) <= limit and part.text.rstrip().endswith((".", "?"))
            for number, (start, end) in zip(part.phrases, part.spans, strict=True):
                assert part.text[start:end] == caption[slice(*spans[number])]


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_pictures_are_scaled_as_transformers_scales_them(width: int, height: int) -> None:
    assert Scaling().size(width, height) == tuple(
        max(1, side) for side in get_size_with_aspect_ratio((height, width), 800, 1333)
    )


def test_pixels_are_those_of_transformers() -> None:
    scaling, images = Scaling.of(dino_processor()), [picture(70, 50, n) for n in range(2)]
    bytes_BYXC, mask_BYX = scaling.draw(images)
    pixels_BCYX = scaling.normalise(bytes_BYXC, mask_BYX)
    expected = dino_processor()(images=images, return_tensors="pt")
    height, width = expected["pixel_values"].shape[2:]
    assert pixels_BCYX.shape[2:] == (64, 96) and (height, width) == (64, 89)
    torch.testing.assert_close(pixels_BCYX[:, :, :height, :width], expected["pixel_values"])
    assert not pixels_BCYX[:, :, :, width:].any() and int(mask_BYX.sum()) == 2 * height * width


def test_a_preprocessor_that_scales_otherwise_is_refused() -> None:
    other = dino_processor()
    other.size = {"height": 64, "width": 64}
    with pytest.raises(ConfigError, match="shortest_edge"):
        Scaling.of(other)


@pytest.mark.parametrize("name", ["mm-grounding-dino", "llmdet", "grounding-dino"])
def test_a_detector_is_opened_from_a_folder(tmp_path: Path, name: Any) -> None:
    kind = "mm-grounding-dino" if name == "llmdet" else name
    folder = dino_folder(tmp_path / "tiny", kind)
    opened = load(settings(name=name, model=str(folder)))
    asked = [ask(CAPTION, *PHRASES)]
    assert_same(opened.detect(asked)[0], detector(kind).detect(asked)[0])
    assert opened.identity["detector"] == name


def test_identity_tells_weights_and_settings_apart(tmp_path: Path) -> None:
    folder = str(dino_folder(tmp_path / "tiny", "mm-grounding-dino"))
    identities = [
        identity(settings(**{"model": folder, **changes}))
        for changes in (
            {},
            {"prompt": "chunks"},
            {"rows_per_phrase": 3},
            {"dtype": "bf16"},
            {"model": str(dino_folder(tmp_path / "other", "grounding-dino"))},
        )
    ]
    assert len({tuple(each.items()) for each in identities}) == len(identities)
    before = identities[0]
    (tmp_path / "tiny" / "tokenizer_config.json").write_text("{}")
    assert identity(settings(model=folder))["config"] != before["config"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load(settings(model=str(tmp_path / "nowhere")))


def test_another_vocabulary_is_refused() -> None:
    vocabulary = bert_vocabulary()
    vocabulary[1012], vocabulary[1013] = vocabulary[1013], vocabulary[1012]
    with pytest.raises(ConfigError, match="1012"):
        GroundingDino(
            dino_model("grounding-dino"), bert_tokenizer(vocabulary), Scaling(), settings(), {}
        )


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
    with pytest.raises(RequestError, match="bf16"):
        surest(torch.tensor([[[0.5, float("nan")]]]), torch.rand(1, 2, 4), 2)


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_dtypes_are_checked(dtype: str) -> None:
    with pytest.raises(ConfigError, match=r"detection\.dtype"):
        detector(dtype=dtype)


def test_work_ahead_keeps_order_and_tells_errors() -> None:
    assert list(ahead(range(9), lambda n: n * n)) == [(n, n * n) for n in range(9)]
    with pytest.raises(ZeroDivisionError):
        list(ahead([1, 0], lambda n: 1 / n))


def test_boxes_are_clipped_to_the_picture() -> None:
    rows = [(0.0, 0.5, 0.5, 0.5), (1.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.2, 0.2)]
    found = list(dino.candidates(3, [0.9, 0.8, 0.0], rows))
    assert [each.box.corners for each in found] == [(0.0, 0.25, 0.25, 0.75)]
    assert found[0].phrase == 3


def test_a_picture_may_be_of_any_mode_that_is_upright_rgb() -> None:
    flat = Image.new("RGB", (96, 64), "white")
    assert boxes_of(detector().detect([ask("a dog", "a dog", image=flat)])[0])
