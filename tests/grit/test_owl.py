from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_detectors import ask, bert_tokenizer, dino_model, picture
from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil

from kosmos2.boxes import Box
from kosmos2.errors import ConfigError
from kosmos2.grit.detect import load
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.linking import Candidate
from kosmos2.grit.owl import Owl
from kosmos2.grit.recipe import Detection

CAPTION = "A red dog on the street. Two cats with a big ball and the red dog"
PHRASES = ("red dog", "the street", "a big ball", "red dog")
SIDE, LONGEST = 64, 8


def settings(**changes: Any) -> Detection:
    values = {"name": "owlv2", "model": "tiny", "device": "cpu", "dtype": "fp32"}
    return Detection(**{**values, **changes})


def owl_model() -> Any:
    torch.manual_seed(0)
    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    model = Owlv2ForObjectDetection(
        Owlv2Config(
            text_config={
                **small, "vocab_size": 1200, "max_position_embeddings": LONGEST,
                "pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102,
            },
            vision_config={**small, "image_size": SIDE, "patch_size": 16},
            projection_dim=16,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.4)
    return model


def owl_processor() -> Any:
    return Owlv2ImageProcessorPil(size={"height": SIDE, "width": SIDE})


def detector(**changes: Any) -> Owl:
    return Owl(owl_model(), bert_tokenizer(), owl_processor(), settings(**changes), {})


def boxes_of(found: list[Candidate] | Refused) -> list[Candidate]:
    assert not isinstance(found, Refused)
    return sorted(found, key=lambda each: (each.phrase, -each.score, each.box.corners))


def assert_same(left: list[Candidate] | Refused, right: list[Candidate] | Refused) -> None:
    a, b = boxes_of(left), boxes_of(right)
    assert [each.phrase for each in a] == [each.phrase for each in b]
    for mine, other in zip(a, b, strict=True):
        assert mine.score == pytest.approx(other.score, abs=1e-5)
        assert mine.box.corners == pytest.approx(other.box.corners, abs=1e-5)


@torch.no_grad()
def slow_reference(asked: Asked) -> list[Candidate]:
    """Run the whole network of transformers for one phrase after the other, and its own scaling."""
    found = []
    model, processor = owl_model(), owl_processor()
    pixels = processor(images=[asked.image], return_tensors="pt")["pixel_values"]
    for phrase, (start, end) in enumerate(asked.spans):
        text = bert_tokenizer()(
            asked.caption[start:end], padding="max_length", max_length=LONGEST, return_tensors="pt"
        )
        output = model(text["input_ids"], pixels, text["attention_mask"])
        rows = processor.post_process_object_detection(
            output, threshold=0.0, target_sizes=[(asked.image.height, asked.image.width)]
        )[0]
        for score, corners in zip(rows["scores"].tolist(), rows["boxes"].tolist(), strict=True):
            width, height = asked.image.size
            x0, x1 = np.clip([corners[0] / width, corners[2] / width], 0, 1).tolist()
            y0, y1 = np.clip([corners[1] / height, corners[3] / height], 0, 1).tolist()
            if x0 < x1 and y0 < y1:
                found.append(Candidate(phrase=phrase, box=Box(x0, y0, x1, y1), score=score))
    return found


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (64, 64), (150, 20)])
def test_boxes_and_scores_are_those_of_a_slow_reference(size: tuple[int, int]) -> None:
    asked = ask(CAPTION, *PHRASES, image=picture(*size))
    (found,) = detector().detect([asked])
    expected = slow_reference(asked)
    assert_same(found, expected)
    assert len({round(each.score, 3) for each in expected}) > 10


def test_a_pictures_boxes_do_not_depend_on_its_batch() -> None:
    asked = [
        ask(CAPTION, *PHRASES, image=picture(96, 64, 1)),
        ask("a dog", "a dog", image=picture(64, 96, 2)),
        ask("the cat and two dogs", "the cat", "two dogs", image=picture(80, 80, 3)),
    ]
    alone = [detector().detect([each])[0] for each in asked]
    for size in (2, 8):
        together = detector(batch_size=size).detect(asked)
        for mine, other in zip(alone, together, strict=True):
            assert_same(mine, other)


def test_a_picture_is_looked_at_once_and_equal_phrases_are_read_once() -> None:
    model = owl_model()
    counts = {"pictures": 0, "texts": 0}

    def count(name: str, key: str) -> Any:
        def hook(_: Any, __: Any, given: Any) -> None:
            counts[name] += len(given[key])

        return hook

    for part, name, key in (
        (model.owlv2.vision_model, "pictures", "pixel_values"),
        (model.owlv2.text_model, "texts", "input_ids"),
    ):
        part.register_forward_pre_hook(count(name, key), with_kwargs=True)
    one = Owl(model, bert_tokenizer(), owl_processor(), settings(), {})
    one.detect([ask(CAPTION, *PHRASES), ask("red dog", "red dog")])
    assert counts == {"pictures": 2, "texts": 3}


def test_a_phrase_over_the_limit_gets_no_box_and_the_others_keep_theirs() -> None:
    words = "a very very very very very big dog"
    (found,) = detector().detect([ask(f"{words} and the man", words, "the man")])
    assert {each.phrase for each in boxes_of(found)} == {1}
    (expected,) = detector().detect([ask("the man", "the man")])
    shifted = [Candidate(phrase=1, box=each.box, score=each.score) for each in expected]
    assert_same(found, shifted)
    assert detector().detect([ask(words, words)]) == [[]]


def test_only_the_surest_boxes_of_each_phrase_are_kept() -> None:
    asked = [ask(CAPTION, *PHRASES)]
    everything, kept = (
        boxes_of(detector(rows_per_phrase=rows).detect(asked)[0]) for rows in (99, 2)
    )
    for phrase in range(len(PHRASES)):
        scores = sorted((e.score for e in everything if e.phrase == phrase), reverse=True)
        mine = [each.score for each in kept if each.phrase == phrase]
        assert 0 < len(mine) <= 2 and set(np.round(mine, 5)) <= set(np.round(scores, 5))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_finds_nearly_the_same_boxes(dtype: str) -> None:
    asked = [ask(CAPTION, "the street")]
    exact, half = detector(rows_per_phrase=99), detector(rows_per_phrase=99, dtype=dtype)
    one, other = (
        sorted(boxes_of(each.detect(asked)[0]), key=lambda each: each.box.center)
        for each in (exact, half)
    )
    assert len(one) == len(other)
    off = [
        np.abs(np.subtract(a.box.corners, b.box.corners)).max()
        for a, b in zip(one, other, strict=True)
    ]
    assert np.median(off) < 0.02


def test_a_detector_is_opened_from_a_folder(tmp_path: Path) -> None:
    for part in (owl_model(), bert_tokenizer(), owl_processor()):
        part.save_pretrained(tmp_path)
    opened = load(settings(model=str(tmp_path)))
    asked = [ask(CAPTION, *PHRASES)]
    assert_same(opened.detect(asked)[0], detector().detect(asked)[0])


def test_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="grounding-dino"):
        Owl(dino_model("grounding-dino"), bert_tokenizer(), owl_processor(), settings(), {})


def test_a_plain_picture_has_boxes_inside_it() -> None:
    flat = Image.new("RGB", (200, 20), "white")
    for each in boxes_of(detector().detect([ask("a dog", "a dog", image=flat)])[0]):
        assert each.box.area > 0
