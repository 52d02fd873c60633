"""A sheet has a place for every picture, and shows boxes found and boxes meant."""

import numpy as np
import pytest
from PIL import Image

from kosmos2.boxes import Box
from kosmos2.grounding.sheet import COLUMNS, SIDE, Tile, sheet
from kosmos2.grounding.spans import GroundedText, Phrase

GREY = Image.new("RGB", (64, 64), (120, 120, 120))
NOTHING = GroundedText(text="")


def pixels(*tiles: Tile) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.asarray(sheet(tiles), dtype=np.int16)


@pytest.mark.parametrize("count", [0, 1, COLUMNS, COLUMNS + 1])
def test_every_picture_has_its_place(count: int) -> None:
    page = pixels(*[Tile(image=GREY, grounded=NOTHING)] * count)
    grey = (page == 120).all(axis=2).sum()
    assert grey == count * SIDE * SIDE


def test_meant_boxes_are_dashed_and_found_ones_solid() -> None:
    box = Box(0.25, 0.25, 0.75, 0.75)
    phrase = Phrase(start=0, end=0, boxes=(box,))
    plain = pixels(Tile(image=GREY, grounded=NOTHING))
    meant = pixels(Tile(image=GREY, grounded=NOTHING, true=(box,)))
    found = pixels(Tile(image=GREY, grounded=GroundedText(text="", phrases=(phrase,))))
    dashes = {tuple(colour) for colour in meant[(meant != plain).any(axis=2)].tolist()}
    assert dashes == {(0, 0, 0), (255, 255, 255)}
    assert 3 * SIDE // 2 < (meant != plain).any(axis=2).sum() < 5 * SIDE // 2
    assert (found != plain).any(axis=2).sum() >= 3 * SIDE // 2


def test_long_texts_stay_below_their_own_picture() -> None:
    silent = Tile(image=GREY, grounded=NOTHING)
    talkative = Tile(image=GREY, grounded=GroundedText(text="word " * 500))
    one, two = pixels(silent, silent), pixels(talkative, silent)
    half = one.shape[1] // 2
    assert (one[:, :half] != two[:, :half]).any()
    assert (one[:, half:] == two[:, half:]).all()
    assert (one[:SIDE] == two[:SIDE]).all()


def test_pictures_of_any_shape_and_mode_have_a_place() -> None:
    for size, mode in (((1, 1), "L"), ((300, 2), "RGBA"), ((2, 300), "P")):
        page = sheet([Tile(image=Image.new(mode, size), grounded=NOTHING)])
        assert page.size == sheet([Tile(image=GREY, grounded=NOTHING)]).size
