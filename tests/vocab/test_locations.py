"""The location codec is pinned to the references, over all pairs of cells."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.kosmos2.processing_kosmos2 import (
    coordinate_to_patch_index,
    patch_index_to_coordinate,
)

from kosmos2.boxes import Box
from kosmos2.errors import BoxError
from kosmos2.vocab.locations import LocationGrid

GRID = LocationGrid(32)
GRIDS = st.builds(LocationGrid, st.integers(1, 120))


@pytest.mark.parametrize(
    ("cells", "corners"),
    [
        ((44, 863), (0.390625, 0.046875, 0.984375, 0.828125)),
        ((5, 911), (0.171875, 0.015625, 0.484375, 0.890625)),
        ((0, 1023), (0.015625, 0.015625, 0.984375, 0.984375)),
        ((7, 7), (0.21875, 0, 0.25, 0.03125)),
        ((7, 39), (0.21875, 0, 0.25, 0.0625)),
    ],
)
def test_published_vectors(cells: tuple[int, int], corners: tuple[float, ...]) -> None:
    assert GRID.decode(*cells).corners == corners


def test_all_ordered_pairs_decode_and_encode_as_in_the_references() -> None:
    pairs = thin_pairs = 0
    not_undone_as_trained = []
    for left, top in product(range(32), repeat=2):
        for right, bottom in product(range(left, 32), range(top, 32)):
            cells = top * 32 + left, bottom * 32 + right
            box = GRID.decode(*cells)
            assert box.corners == patch_index_to_coordinate(*cells, 32)
            assert GRID.encode(box) == cells
            thin = left == right or top == bottom
            if GRID.encode_as_trained(box) != cells:
                not_undone_as_trained.append(thin)
            pairs += 1
            thin_pairs += thin

    assert (pairs, thin_pairs) == (278_784, 32_768)
    # As in the original code: a thin box decodes to its outer edge, which is the next cell.
    assert (len(not_undone_as_trained), all(not_undone_as_trained)) == (32_705, True)


def test_thin_boxes_do_not_round_trip_as_trained() -> None:
    assert GRID.encode_as_trained(GRID.decode(0, 0)) == (0, 33)
    assert GRID.encode_as_trained(GRID.decode(7, 39)) == (7, 72)
    assert GRID.encode_as_trained(GRID.decode(1022, 1022)) == (1022, 1023)


def test_the_two_rules_differ_on_the_edges_of_cells() -> None:
    assert GRID.encode(Box(0.5, 0.5, 0.75, 0.75)) == (528, 759)
    assert GRID.encode_as_trained(Box(0.5, 0.5, 0.75, 0.75)) == (528, 792)


@given(st.from_type(Box))
def test_encoding_agrees_with_transformers_where_that_is_defined(box: Box) -> None:
    # Boxes thinner than this round to no width there, and to cell -1 at the border.
    if min(box.width, box.height) > 1e-9:
        assert GRID.encode(box) == coordinate_to_patch_index(box.corners, 32)


@given(st.from_type(Box))
def test_encoding_as_trained_agrees_with_the_formula_of_the_original(box: Box) -> None:
    left, top = (int(max(corner, 0) / (1 / 32)) for corner in (box.x0, box.y0))
    right, bottom = (int(min(corner, 0.99999) / (1 / 32)) for corner in (box.x1, box.y1))
    # Where the original starts beyond the last cell, there is no token for what it means.
    if left < 32 and top < 32:
        assert GRID.encode_as_trained(box) == (top * 32 + left, bottom * 32 + right)


@given(GRIDS, st.integers(), st.integers())
def test_raw_corners_agree_with_transformers_on_any_cells(
    grid: LocationGrid, upper_left: int, lower_right: int
) -> None:
    cells = upper_left % grid.bins**2, lower_right % grid.bins**2
    expected = patch_index_to_coordinate(*cells, grid.bins)
    assert grid.decode_corners(*cells) == pytest.approx(expected, rel=1e-12)


def test_raw_corners_of_swapped_cells_are_inverted_as_in_the_references() -> None:
    assert GRID.decode_corners(863, 44) == (0.984375, 0.828125, 0.390625, 0.046875)


@given(GRIDS, st.from_type(Box))
def test_encoding_never_leaves_the_grid_nor_turns_a_box_over(grid: LocationGrid, box: Box) -> None:
    for upper_left, lower_right in (grid.encode(box), grid.encode_as_trained(box)):
        assert 0 <= upper_left <= lower_right < grid.bins**2
        assert upper_left % grid.bins <= lower_right % grid.bins


@given(GRIDS, st.from_type(Box))
def test_decoding_an_encoded_box_moves_no_corner_by_more_than_a_cell(
    grid: LocationGrid, box: Box
) -> None:
    decoded = grid.decode(*grid.encode(box))
    for before, after in zip(box.corners, decoded.corners, strict=True):
        assert abs(before - after) <= 1 / grid.bins + 1e-12


@given(GRIDS, st.data())
def test_encoding_undoes_decoding_on_any_grid(grid: LocationGrid, data: st.DataObject) -> None:
    cells = st.integers(0, grid.bins - 1)
    left, right = sorted((data.draw(cells), data.draw(cells)))
    top, bottom = sorted((data.draw(cells), data.draw(cells)))
    pair = top * grid.bins + left, bottom * grid.bins + right
    assert grid.encode(grid.decode(*pair)) == pair


@pytest.mark.parametrize("point", [0.0, 0.5, 1.0])
def test_a_point_is_the_cell_it_lies_in(point: float) -> None:
    cell = min(int(point * 32), 31) * 33
    box = Box(point, point, point, point)
    assert GRID.encode(box) == GRID.encode_as_trained(box) == (cell, cell)


@pytest.mark.parametrize("cells", [(-1, 5), (0, 1024), (9999, 9999)])
def test_cells_outside_the_grid_are_refused(cells: tuple[int, int]) -> None:
    with pytest.raises(BoxError, match=r"0\.\.1023"):
        GRID.decode(*cells)


@pytest.mark.parametrize("cells", [(863, 44), (33, 32), (33, 2), (33, 64)])
def test_cells_in_the_wrong_order_are_refused(cells: tuple[int, int]) -> None:
    with pytest.raises(BoxError, match="left of or above"):
        GRID.decode(*cells)


def test_a_grid_needs_a_cell() -> None:
    with pytest.raises(BoxError):
        LocationGrid(0)
