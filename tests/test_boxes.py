"""Boxes are normalised, checked, and convert to pixels and sizes without loss."""

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box, iou
from kosmos2.errors import BoxError

SIZES = st.integers(1, 10_000)
LEFT, RIGHT = Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)


@pytest.mark.parametrize(
    "corners",
    [
        (0.5, 0, 0.4, 1),
        (0, 0.5, 1, 0.4),
        (-0.1, 0, 1, 1),
        (0, 0, 1.0001, 1),
        (0, 0, 1, 2),
        (math.nan, 0, 1, 1),
        (0, 0, math.inf, 1),
        ("left", 0, 1, 1),
        (None, 0, 1, 1),
    ],
)
def test_corners_that_are_no_box_are_refused(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(BoxError):
        Box(*corners)


def test_pixels_are_recognised_and_the_error_names_the_way_out() -> None:
    with pytest.raises(BoxError) as refusal:
        Box(34, 12, 310, 200)
    assert str(refusal.value) == (
        "Box needs 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1, got (34, 12, 310, 200). "
        "Are these pixels? Use Box.from_pixels(corners, width=…, height=…)."
    )


def test_a_box_without_width_or_height_is_a_box() -> None:
    assert Box(0.5, 0.5, 0.5, 0.5).area == 0


def test_a_box_holds_floats_whatever_it_is_built_from() -> None:
    assert [type(corner) for corner in Box(0, 0, 1, 1).corners] == [float] * 4
    assert Box(0, 0, 1, 1) == Box(0.0, 0.0, 1.0, 1.0)


def test_a_box_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        LEFT.x0 = 0.1  # type: ignore[misc]


@given(st.from_type(Box), SIZES, SIZES)
def test_pixels_round_trip(box: Box, width: int, height: int) -> None:
    pixels = box.to_pixels(width=width, height=height)
    assert Box.from_pixels(pixels, width=width, height=height).corners == pytest.approx(box.corners)


@given(st.from_type(Box))
def test_corner_and_size_round_trip(box: Box) -> None:
    assert Box.from_xywh(box.to_xywh()).corners == pytest.approx(box.corners, abs=1e-12)


def test_pixel_corners_are_divided_by_the_size_of_the_picture() -> None:
    assert Box.from_pixels((34, 12, 310, 200), width=400, height=200).corners == pytest.approx(
        (0.085, 0.06, 0.775, 1)
    )


@pytest.mark.parametrize("corners", [(0, 0, 401, 100), (-1, 0, 10, 10), (20, 0, 10, 10)])
def test_pixel_corners_outside_the_picture_are_refused_not_clipped(
    corners: tuple[int, int, int, int],
) -> None:
    with pytest.raises(BoxError, match="picture of 400x200"):
        Box.from_pixels(corners, width=400, height=200)


def test_a_picture_without_size_has_no_boxes() -> None:
    with pytest.raises(BoxError, match="got 0x10"):
        Box.from_pixels((0, 0, 0, 0), width=0, height=10)
    with pytest.raises(BoxError, match="got 10x0"):
        LEFT.to_pixels(width=10, height=0)


def test_rounding_at_the_border_is_forgiven_and_nothing_more() -> None:
    assert Box.from_xywh((0.1, 0.7, 0.9000000000000001, 0.3)).x1 == 1
    with pytest.raises(BoxError):
        Box.from_xywh((0.1, 0.7, 0.91, 0.3))


def test_sizes_and_center_follow_from_the_corners() -> None:
    box = Box(0.25, 0.5, 0.75, 1)
    assert (box.width, box.height, box.area, box.center) == (0.5, 0.5, 0.25, (0.5, 0.75))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (LEFT, RIGHT, 0),
        (LEFT, Box(0, 0, 1, 1), 0.5),
        (Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.75, 0.75), 1 / 7),
        (Box(0.5, 0, 0.5, 1), Box(0.5, 0, 0.5, 1), 1),
        (Box(0.5, 0, 0.5, 1), Box(0, 0, 1, 1), 0),
        (Box(0.5, 0, 0.5, 1), Box(0, 0.5, 1, 0.5), 0),
    ],
)
def test_iou_is_the_shared_part_of_the_area(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)


@given(st.from_type(Box), st.from_type(Box))
def test_iou_is_symmetric_within_bounds_and_one_for_equals(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)
    assert 0 <= iou(a, b) <= 1
    assert iou(a, a) == 1
