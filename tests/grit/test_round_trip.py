"""There and back: what one question after the other gives, in two calls of the engine."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from tiny_model import save_tiny_model

from kosmos2.api import Kosmos2, Settings
from kosmos2.boxes import Box, iou
from kosmos2.grit import round_trip
from kosmos2.grit.recipe import Quality
from kosmos2.grit.round_trip import RoundTrip
from kosmos2.vocab.tokenizer import Tokenizer

BOXES = [[Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 1, 1)], [], [Box(0.5, 0, 0.75, 1)]]


def picture(seed: int) -> Image.Image:
    numbers = np.random.default_rng(seed).integers(0, 256, (40, 60 + seed, 3), np.uint8)
    return Image.fromarray(numbers)


PICTURES = [picture(n) for n in range(3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Kosmos2:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), tiny_tokenizer)
    settings = Settings(max_new_tokens=8)
    return Kosmos2.load(folder, device="cpu", dtype="fp64", settings=settings)


def slow(model: Kosmos2, image: Image.Image, box: Box) -> float:
    """Return the IoU by one question after the other."""
    text = model.describe(image, box).text.strip()
    again = model.find(image, text).boxes if text else ()
    return iou(box, again[0]) if again else 0.0


def test_the_value_is_that_of_describing_and_finding_box_by_box(model: Kosmos2) -> None:
    expected = [
        [slow(model, image, box) for box in own] for image, own in zip(PICTURES, BOXES, strict=True)
    ]
    assert RoundTrip(model).measure(PICTURES, BOXES) == expected
    assert [
        RoundTrip(model).measure([p], [b])[0] for p, b in zip(PICTURES, BOXES, strict=True)
    ] == (expected)
    assert any(value > 0 for own in expected for value in own)


class Scripted:
    """A model that describes every box by the next of given texts, and finds given boxes."""

    def __init__(self, texts: Sequence[str], found: Sequence[tuple[Box, ...]]) -> None:
        self.texts, self.found = texts, found
        self.asked: list[list[Any]] = []
        self.tokenizer = SimpleNamespace(grid=None, vocabulary=None)

    def look(self, images: list[Image.Image]) -> list[int]:
        return list(range(len(images)))

    def answer(self, asked: list[Any]) -> list[Any]:
        self.asked.append(asked)
        if len(self.asked) == 1:
            return [SimpleNamespace(text=text) for text in self.texts]
        return [SimpleNamespace(boxes=boxes) for boxes in self.found]


def test_a_blank_description_or_no_box_found_is_worth_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        round_trip,
        "questions",
        SimpleNamespace(describe=lambda box, _: box, find=lambda phrase, _: phrase),
    )
    first, *_ = BOXES[0]
    one = Scripted(["a dog", " ", "a cat"], [(first, BOXES[0][1]), ()])
    assert RoundTrip(cast(Any, one)).measure(PICTURES, BOXES) == [[1.0, 0.0], [], [0.0]]
    assert one.asked == [
        [((0,), BOXES[0][0]), ((0,), BOXES[0][1]), ((2,), BOXES[2][0])],
        [((0,), "a dog"), ((2,), "a cat")],
    ]


def test_nothing_asked_is_nothing_measured(model: Kosmos2) -> None:
    assert RoundTrip(model).measure([], []) == []


def test_a_recipe_names_the_model(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    folder = save_tiny_model(tmp_path, tiny_tokenizer)
    quality = Quality(round_trip=str(folder), device="cpu", dtype="fp32")
    values = round_trip.load(quality).measure(PICTURES[:1], BOXES[:1])
    assert [len(own) for own in values] == [2]
