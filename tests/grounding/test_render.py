"""Boxes and labels are drawn inside the picture, at any size, and each box is cut out."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from kosmos2.boxes import Box
from kosmos2.grounding.render import colour, crops, draw, ink, luminance
from kosmos2.grounding.spans import GroundedText, Phrase, mark

MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "#808080")


@pytest.mark.parametrize("index", range(60))
def test_colours_stand_out_on_light_and_dark_and_carry_readable_letters(index: int) -> None:
    paint = colour(index)
    assert contrast(paint, "#ffffff") >= 3
    assert contrast(paint, "#1c1e21") >= 3
    assert contrast(paint, ink(paint)) >= 4.5


def test_colours_are_stable_and_distinct() -> None:
    assert [colour(index) for index in range(60)] == [colour(index) for index in range(60)]
    channels = [np.array([int(colour(i)[n : n + 2], 16) for n in (1, 3, 5)]) for i in range(20)]
    closest = min(np.abs(a - b).sum() for a, b in itertools.combinations(channels, 2))
    assert closest > 20
    first_ten = min(np.abs(a - b).sum() for a, b in itertools.combinations(channels[:10], 2))
    assert first_ten > 60


def test_luminance_is_that_of_the_web_guidelines() -> None:
    assert luminance("#000000") == 0
    assert luminance("#ffffff") == pytest.approx(1)
    assert luminance("#777777") == pytest.approx(0.1845, abs=1e-4)


def test_a_frame_lies_on_the_borders_of_its_box_and_leaves_the_inside_alone() -> None:
    before = picture(100, 100)
    after = np.asarray(draw(before, mark("a cat", "a cat", [MIDDLE])).convert("RGB"))
    paint = tuple(int(colour(0)[n : n + 2], 16) for n in (1, 3, 5))
    changed = (after != np.asarray(before)).any(axis=2)
    for row, column in [(25, 74), (74, 25), (50, 25), (50, 74), (74, 50)]:
        assert tuple(after[row, column]) == paint
    assert not changed[30:70, 30:70].any()
    assert not changed[80:].any() and not changed[:, 80:].any()


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (4000, 3000), (2000, 60)])
def test_a_label_is_readable_and_stays_inside(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, tuple[float, float, float, float]]] = []
    plain_text = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, at: tuple[float, float], words: str, **how: object) -> None:
        written.append((words, self.textbbox(at, words, font=how["font"])))  # type: ignore[arg-type]
        plain_text(self, at, words, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    corner_boxes = [
        Box(0.9, 0, 1, 0.1),
        Box(0, 0.9, 0.1, 1),
        Box(0, 0, 1, 1),
        Box(0.95, 0.95, 1, 1),
    ]
    draw(picture(*size), mark("a gray jumping elephant", "jumping", corner_boxes))

    assert len(written) == len(corner_boxes)
    for words, (left, top, right, bottom) in written:
        assert words == "jumping"
        assert min(left, top) >= 0 and right <= size[0] and bottom <= size[1]
        assert bottom - top >= max(6, min(size) / 60)


def test_labels_do_not_cover_each_other_while_there_is_room() -> None:
    boxes = [MIDDLE] * 5
    drawn = np.asarray(draw(picture(400, 400), five_phrases(boxes)))
    for index in range(5):
        paint = [int(colour(index)[n : n + 2], 16) for n in (1, 3, 5)]
        assert (drawn == paint).all(axis=2).sum() > 150


def five_phrases(boxes: list[Box]) -> GroundedText:
    phrases = [Phrase(start=2 * n, end=2 * n + 1, boxes=(box,)) for n, box in enumerate(boxes)]
    return GroundedText(text="a b c d e", phrases=tuple(phrases))


@settings(max_examples=40)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    box=st.from_type(Box),
    words=st.text(min_size=1, max_size=40).filter(lambda words: words == words.strip()),
)
def test_anything_can_be_drawn_and_cut(width: int, height: int, box: Box, words: str) -> None:
    image = picture(width, height)
    grounded = mark(words, words, [box, box])
    assert draw(image, grounded).size == (width, height)
    assert image.getcolors() == [(width * height, (128, 128, 128))]
    for name, cut in crops(image, grounded):
        assert not set(name) & set('/\\:*?"<>|. \n\0') and len(name) < 60
        assert 1 <= cut.width <= width and 1 <= cut.height <= height


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1", "I;16"])
def test_pictures_of_every_mode_can_be_drawn_on(mode: str) -> None:
    assert draw(Image.new(mode, (32, 32)), mark("cat", "cat", [MIDDLE])).mode == "RGB"


def test_boxes_without_words_are_drawn_without_a_label() -> None:
    grounded = GroundedText(text="", phrases=(Phrase(start=0, end=0, boxes=(MIDDLE,)),))
    drawn = np.asarray(draw(picture(100, 100), grounded))
    assert not (drawn[:25] != 128).any()
    assert [name for name, _ in crops(picture(100, 100), grounded)] == ["1-box"]


def test_crops_are_the_pixels_of_their_boxes_and_named_after_their_phrases() -> None:
    image = picture(100, 60)
    image.putpixel((25, 15), (255, 0, 0))
    cut = crops(image, mark("Two Puppies!", "Two Puppies", [MIDDLE, Box(0, 0, 0, 0)]))
    assert [(name, crop.size) for name, crop in cut] == [
        ("1-two-puppies-1", (50, 30)),
        ("1-two-puppies-2", (1, 1)),
    ]
    assert cut[0][1].getpixel((0, 0)) == (255, 0, 0)
