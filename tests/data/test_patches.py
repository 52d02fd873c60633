"""What a patch shows, against a slow reading of the same rule."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.data.patches import BACKGROUND, UNKNOWN, patch_targets, unknown
from kosmos2.vocab.locations import LocationGrid

GRID = LocationGrid(8)
SIDE = 6


def sides_of(box: Box) -> list[int]:
    (top, left), (bottom, right) = (divmod(cell, GRID.bins) for cell in GRID.encode(box))
    return [left, top, right, bottom]


def holds(box: Box, x: float, y: float) -> bool:
    return box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1


@given(st.lists(st.from_type(Box), max_size=4))
def test_a_patch_shows_the_smallest_thing_over_its_centre(boxes: list[Box]) -> None:
    things = list(enumerate(boxes, 1))
    targets = patch_targets(things, side=SIDE, grid=GRID)

    for patch in range(SIDE**2):
        y, x = ((place + 0.5) / SIDE for place in divmod(patch, SIDE))
        here = [(box.area, number) for number, box in things if holds(box, x, y)]
        noun = int(targets.noun_P[patch])
        if not here:
            assert noun == BACKGROUND
            assert targets.sides_P4[patch].tolist() == [UNKNOWN] * 4
        else:
            assert things[noun - 1][1].area == min(here)[0]
            assert targets.sides_P4[patch].tolist() == sides_of(things[noun - 1][1])


def test_a_small_thing_shows_in_front_of_a_large_one_whatever_their_order() -> None:
    large, small = (1, Box(0, 0, 1, 1)), (2, Box(0.4, 0.4, 0.6, 0.6))
    one, other = (
        patch_targets(order, side=5, grid=GRID) for order in ((large, small), (small, large))
    )
    assert one.noun_P.view(5, 5).tolist()[2] == [1, 1, 2, 1, 1]
    assert torch.equal(one.noun_P, other.noun_P)
    assert torch.equal(one.sides_P4, other.sides_P4)


def test_of_a_picture_without_annotation_nothing_is_a_target() -> None:
    targets = unknown(SIDE)
    known = patch_targets([], side=SIDE, grid=GRID)
    assert targets.noun_P.shape == known.noun_P.shape
    assert targets.sides_P4.shape == known.sides_P4.shape
    assert targets.noun_P.unique().tolist() == targets.sides_P4.unique().tolist() == [UNKNOWN]
