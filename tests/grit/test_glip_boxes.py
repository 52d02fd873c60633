"""Anchors, boxes, scores and what is suppressed, against loops."""

from collections.abc import Sequence
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_glip import LevelSize, decoded, slow
from torch import Tensor

from kosmos2.grit.glip import boxes
from kosmos2.grit.glip.boxes import anchors, decode, find, overlap, suppress
from kosmos2.grit.glip.network import Seen


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0, [-28, -28, 35, 35]),
        (1, [-56, -56, 71, 71]),
        (2, [-112, -112, 143, 143]),
        (3, [-224, -224, 287, 287]),
        (4, [-448, -448, 575, 575]),
    ],
)
def test_the_first_anchor_of_each_level_is_a_square_around_the_first_cell(
    level: int, expected: list[int]
) -> None:
    """Sides of 64 to 1024 pixels, ends counted, around the middle of pixels 0 to stride - 1."""
    assert anchors(level, 1, 1).tolist() == [expected]


def test_anchors_go_row_by_row_a_stride_apart() -> None:
    found = anchors(1, 2, 3) - anchors(1, 1, 1)
    assert found[:, 0].tolist() == [0, 16, 32, 0, 16, 32]
    assert found[:, 1].tolist() == [0, 0, 0, 16, 16, 16]
    assert torch.equal(found[:, :2], found[:, 2:])


def test_boxes_are_anchors_moved_and_scaled() -> None:
    torch.manual_seed(0)
    shift, anchor = torch.randn(20, 4).double() * 20, anchors(0, 4, 5).double()
    for got, s, a in zip(decode(shift, anchor), shift, anchor, strict=True):
        assert got.tolist() == pytest.approx(decoded(s.tolist(), a.tolist()))


def test_no_shift_gives_the_anchor() -> None:
    assert torch.equal(decode(torch.zeros(1, 4), anchors(2, 1, 1)), anchors(2, 1, 1))


def pixels_shared(a: Sequence[int], b: Sequence[int]) -> float:
    inside = [
        {(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)}
        for box in (a, b)
    ]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


BOX = st.tuples(*[st.integers(0, 9)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(BOX, st.lists(BOX, min_size=1, max_size=5))
def test_overlap_counts_pixels(box: tuple[int, ...], others: list[tuple[int, ...]]) -> None:
    found = overlap(torch.tensor(box).double(), torch.tensor(others).double())
    assert found.tolist() == pytest.approx([pixels_shared(box, other) for other in others])


@given(st.lists(BOX, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_a_box_goes_where_a_surer_one_that_stays_overlaps_it_by_more_than_0_6(
    found: list[tuple[int, ...]], chance: Random
) -> None:
    scores = [chance.random() for _ in found]
    kept: list[int] = []
    for n in sorted(range(len(found)), key=lambda n: -scores[n]):
        if all(pixels_shared(found[n], found[other]) <= 0.6 + 1e-9 for other in kept):
            kept.append(n)
    got = suppress(torch.tensor(found).double(), torch.tensor(scores, dtype=torch.double))
    assert got.tolist() == kept


def seen(sizes: Sequence[LevelSize], tokens: int, batch: int = 2) -> list[Seen]:
    torch.manual_seed(1)
    return [
        Seen(
            torch.randn(batch, rows * columns, tokens) * 2 - 2,
            torch.randn(batch, rows * columns, 4) * 3,
            torch.randn(batch, rows * columns),
            (rows, columns),
        )
        for rows, columns in sizes
    ]


def share(phrases: Sequence[Sequence[int]], tokens: int) -> Tensor:
    out = torch.zeros(len(phrases), tokens)
    for row, phrase in enumerate(phrases):
        for token in phrase:
            out[row, token] = 1 / len(phrase)
    return out


PHRASES = ((1, 2, 3), (5,), (), (6, 8))
SIZES = ((8, 10), (4, 5), (2, 3), (1, 2), (1, 1))


@pytest.mark.parametrize("picture", [0, 1])
@pytest.mark.parametrize("per_level", [1000, 30])
def test_rows_are_those_of_a_slow_reference(
    picture: int, per_level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "PER_LEVEL", per_level)
    levels = seen(SIZES, 9)
    found = find(levels, picture, share(PHRASES, 9), (60, 75))
    expected = slow(levels, picture, PHRASES, (60, 75), per_level)
    assert len(expected) > 20
    assert found.phrase_R.tolist() == [row[0] for row in expected]
    assert found.score_R.tolist() == pytest.approx([row[1] for row in expected], rel=1e-5)
    for got, row in zip(found.box_R4.tolist(), expected, strict=True):
        assert got == pytest.approx(row[2], abs=1e-3)


def test_a_picture_has_a_hundred_boxes_at_most_and_they_are_the_surest() -> None:
    levels = seen(((20, 24), (10, 12), (5, 6), (3, 3), (2, 2)), 9)
    found = find(levels, 0, share(PHRASES, 9), (160, 192))
    expected = slow(levels, 0, PHRASES, (160, 192))
    assert len(found.score_R) == len(expected) == 100
    assert found.score_R.tolist() == pytest.approx([row[1] for row in expected], rel=1e-5)


def test_nothing_is_found_where_no_phrase_is_likely() -> None:
    levels = seen(SIZES, 9)
    unlikely = [Seen(each.logits_BVT - 20, each.shifts_BV4, each.centred_BV, each.size)
                for each in levels]  # fmt: skip
    assert len(find(unlikely, 0, share(PHRASES, 9), (60, 75)).score_R) == 0
    assert len(find(levels, 0, torch.zeros(0, 9), (60, 75)).score_R) == 0
