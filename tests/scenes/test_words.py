"""Nouns, zones and relations."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.errors import SceneError
from kosmos2.scenes.geometry import is_next_to, relation, zone
from kosmos2.scenes.nouns import SETS, all_nouns, noun_set
from kosmos2.scenes.sprites import HELD_OUT_STYLES, TRAINING_STYLES

OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
    None: None,
}


def small_box(x: float, y: float) -> Box:
    return Box(x - 0.05, y - 0.05, x + 0.05, y + 0.05)


def mirrored(box: Box) -> Box:
    return Box(1 - box.x1, box.y0, 1 - box.x0, box.y1)


def test_every_noun_has_a_drawing_to_train_on_and_one_to_test_on() -> None:
    for noun in all_nouns().values():
        assert any(noun.sprites.get(style) for style in TRAINING_STYLES)
        assert all(noun.sprites.get(style) for style in HELD_OUT_STYLES)


def test_no_word_names_two_nouns() -> None:
    words = [word for n in all_nouns().values() for word in {n.singular, n.plural}]
    assert len(words) == len(set(words))


def test_noun_sets_nest_and_the_starters_are_drawn_in_every_training_style() -> None:
    starter, core, everything = (set(noun_set(name)) for name in SETS)
    assert starter < core < everything == set(all_nouns())
    for name in starter:
        assert all(all_nouns()[name].sprites.get(style) for style in TRAINING_STYLES)
    with pytest.raises(SceneError, match="huge"):
        noun_set("huge")


@pytest.mark.parametrize(
    ("centers", "words"),
    [
        ([(0.1, 0.1)], "in the top left corner"),
        ([(0.9, 0.9)], "in the bottom right corner"),
        ([(0.5, 0.1)], "at the top"),
        ([(0.1, 0.5)], "on the left"),
        ([(0.5, 0.5)], "in the middle"),
        ([(0.34, 0.5)], None),
        ([(0.1, 0.1), (0.9, 0.1)], "at the top"),
        ([(0.9, 0.1), (0.9, 0.9)], "on the right"),
        ([(0.1, 0.5), (0.9, 0.5)], None),
        ([(0.1, 0.1), (0.9, 0.9)], None),
    ],
)
def test_zones_are_said_of_groups_that_lie_in_them_whole(
    centers: list[tuple[float, float]], words: str | None
) -> None:
    assert zone([small_box(*center) for center in centers]) == words


GROUPS = st.lists(st.from_type(Box), min_size=1, max_size=3)


@given(GROUPS, GROUPS)
def test_a_relation_seen_from_the_other_side_is_its_opposite(a: list[Box], b: list[Box]) -> None:
    assert relation(b, a) == OPPOSITE[relation(a, b)]


@given(GROUPS, GROUPS)
def test_mirroring_a_picture_swaps_left_and_right_alone(a: list[Box], b: list[Box]) -> None:
    seen = relation(a, b)
    expected = OPPOSITE[seen] if seen in ("to the left of", "to the right of") else seen
    # Mirrored corners are rounded anew, so distances that tie may tip over.
    shifts = [(x.center[0] - y.center[0], x.center[1] - y.center[1]) for x in a for y in b]
    assume(all(abs(dx) > 1e-6 and abs(dy) > 1e-6 for dx, dy in shifts))
    assume(abs(_hull_ratio(a, b) - 1.3) > 1e-6 and abs(1 / _hull_ratio(a, b) - 1.3) > 1e-6)
    assert relation(list(map(mirrored, a)), list(map(mirrored, b))) == expected


def _hull_ratio(a: list[Box], b: list[Box]) -> float:
    def middle(boxes: list[Box], axis: int) -> float:
        return min(x.corners[axis] for x in boxes) + max(x.corners[axis + 2] for x in boxes)

    dx, dy = abs(middle(a, 0) - middle(b, 0)), abs(middle(a, 1) - middle(b, 1))
    assume(dx > 1e-6 and dy > 1e-6)
    return dx / dy


def test_a_diagonal_is_no_relation() -> None:
    assert relation([small_box(0.2, 0.2)], [small_box(0.7, 0.65)]) is None
    assert relation([small_box(0.2, 0.2)], [small_box(0.7, 0.3)]) == "to the left of"


def test_next_to_means_side_by_side_with_little_between() -> None:
    thing = small_box(0.3, 0.5)
    assert is_next_to(thing, small_box(0.42, 0.52)) and is_next_to(small_box(0.42, 0.52), thing)
    assert not is_next_to(thing, small_box(0.6, 0.5))
    assert not is_next_to(thing, small_box(0.3, 0.62))
