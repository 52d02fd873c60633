"""What is chosen among the allowed ids is well formed; every well-formed text is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from engine_cases import (
    DELIMITER,
    OBJECT,
    OBJECT_END,
    PHRASE,
    PHRASE_END,
    VOCABULARY,
    is_grounded,
    is_group,
)
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.engine import FREE, BoxConstraint, CaptionConstraint, Constraint, Free
from kosmos2.errors import RequestError

BINS = VOCABULARY.bins
captions = st.lists(st.integers(3, VOCABULARY.mask - 1), min_size=1, max_size=8).map(tuple)


@st.composite
def spans_of(draw: st.DrawFn, caption: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    borders = sorted(draw(st.sets(st.integers(0, len(caption)), max_size=6)))
    return tuple(pairwise(borders))[:: draw(st.sampled_from([1, 2]))]


@st.composite
def groups(draw: st.DrawFn, max_boxes: int = 3) -> list[int]:
    """Return a well-formed object group."""
    ids = [OBJECT]
    for index in range(draw(st.integers(1, max_boxes))):
        row, column = draw(st.integers(0, BINS - 1)), draw(st.integers(0, BINS - 1))
        low = draw(st.integers(row, BINS - 1)) * BINS + draw(st.integers(column, BINS - 1))
        ids += [DELIMITER] if index else []
        ids += [VOCABULARY.location(row * BINS + column), VOCABULARY.location(low)]
    return [*ids, OBJECT_END]


def walk(form: BoxConstraint | CaptionConstraint, data: st.DataObject) -> list[int]:
    """Return a text made of any allowed ids; it ends, and not too late."""
    ids: list[int] = []
    while allowed := form.allowed(ids):
        ids.append(data.draw(st.sampled_from(list(allowed))))
        assert len(ids) <= form.longest
    return ids


def assert_accepts(form: Constraint, ids: Sequence[int]) -> None:
    for at, id in enumerate(ids):
        allowed = form.allowed(ids[:at])
        assert allowed is not None and id in allowed
    assert form.allowed(ids) is not None and not form.allowed(ids)


@given(st.data(), st.integers(1, 4))
def test_any_walk_through_a_box_constraint_is_an_object_group(
    data: st.DataObject, max_boxes: int
) -> None:
    form = BoxConstraint(vocabulary=VOCABULARY, max_boxes=max_boxes)
    ids = walk(form, data)
    assert is_group(ids, max_boxes)


@given(groups())
def test_a_box_constraint_accepts_every_object_group(ids: list[int]) -> None:
    assert_accepts(BoxConstraint(vocabulary=VOCABULARY, max_boxes=3), ids)


@given(st.data(), captions)
def test_any_walk_in_free_mode_is_the_caption_grounded(
    data: st.DataObject, caption: tuple[int, ...]
) -> None:
    form = CaptionConstraint(caption_ids=caption, vocabulary=VOCABULARY, max_boxes=2)
    ids = walk(form, data)
    assert is_grounded(ids, caption, max_boxes=2)


@given(st.data(), captions)
def test_any_walk_opens_and_closes_phrases_at_borders_alone(
    data: st.DataObject, caption: tuple[int, ...]
) -> None:
    borders = tuple(data.draw(st.sets(st.integers(0, len(caption) - 1))))
    form = CaptionConstraint(
        caption_ids=caption, vocabulary=VOCABULARY, borders=borders, max_boxes=2
    )
    ids = walk(form, data)
    assert is_grounded(ids, caption, max_boxes=2)
    assert all({start, stop} <= {*borders, len(caption)} for start, stop in phrases(ids))


@given(st.data(), captions)
def test_any_walk_with_spans_has_exactly_these_phrases(
    data: st.DataObject, caption: tuple[int, ...]
) -> None:
    spans = data.draw(spans_of(caption))
    form = CaptionConstraint(caption_ids=caption, vocabulary=VOCABULARY, spans=spans, max_boxes=2)
    ids = walk(form, data)
    assert is_grounded(ids, caption, max_boxes=2)
    assert phrases(ids) == spans


def phrases(ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found, start, num_words = [], 0, 0
    for id in ids:
        num_words += id < VOCABULARY.mask
        if id == PHRASE:
            start = num_words
        if id == PHRASE_END:
            found.append((start, num_words))
    return tuple(found)


@given(st.data(), captions, st.booleans())
def test_every_grounding_of_the_caption_is_accepted(
    data: st.DataObject, caption: tuple[int, ...], free: bool
) -> None:
    spans = data.draw(spans_of(caption))
    ids: list[int] = []
    for at, word in enumerate(caption):
        ids += [PHRASE] * any(start == at for start, _ in spans)
        ids.append(word)
        if any(stop == at + 1 for _, stop in spans):
            ids += [PHRASE_END, *data.draw(groups())]
    asked: tuple[tuple[int, int], ...] | Free = FREE if free else spans
    form = CaptionConstraint(caption_ids=caption, vocabulary=VOCABULARY, spans=asked, max_boxes=3)
    assert_accepts(form, ids)


def test_only_what_is_open_is_left_to_the_model() -> None:
    form = CaptionConstraint(caption_ids=(10, 11), vocabulary=VOCABULARY, max_boxes=2)
    box = [VOCABULARY.location(5), VOCABULARY.location(15)]
    assert set(form.allowed([])) == {PHRASE, 10}
    assert set(form.allowed([PHRASE])) == {10}
    assert set(form.allowed([PHRASE, 10])) == {PHRASE_END, 11}
    assert set(form.allowed([PHRASE, 10, 11])) == {PHRASE_END}
    assert set(form.allowed([PHRASE, 10, PHRASE_END])) == {OBJECT}
    opened = [PHRASE, 10, PHRASE_END, OBJECT]
    assert len(form.allowed(opened)) == BINS * BINS
    assert set(form.allowed([*opened, box[0]])) == {
        VOCABULARY.location(y * BINS + x) for y in (1, 2, 3) for x in (1, 2, 3)
    }
    assert set(form.allowed([*opened, *box])) == {DELIMITER, OBJECT_END}
    assert set(form.allowed([*opened, *box, DELIMITER, *box])) == {OBJECT_END}
    assert set(form.allowed([*opened, *box, OBJECT_END])) == {PHRASE, 11}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"caption_ids": ()}, "no caption"),
        ({"caption_ids": (10, OBJECT)}, rf"must be words, these are not: \[{OBJECT}\]"),
        ({"max_boxes": 0}, "at least 1, got 0"),
        ({"spans": ((0, 0),)}, r"not empty.*got \(\(0, 0\),\)"),
        ({"spans": ((1, 2), (0, 1))}, "in order"),
        ({"spans": ((0, 2), (1, 3))}, "not overlapping"),
        ({"spans": ((2, 4),)}, "within the 3 tokens"),
        ({"borders": (0, 3)}, r"the 3 tokens of the caption, got \(0, 3\)"),
    ],
)
def test_an_impossible_caption_is_refused(wrong: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"caption_ids": (10, 11, 12), "vocabulary": VOCABULARY}
    with pytest.raises(RequestError, match=message):
        CaptionConstraint(**{**settings, **wrong})  # type: ignore[arg-type]


def test_a_group_of_no_boxes_is_refused() -> None:
    with pytest.raises(RequestError, match="at least 1, got 0"):
        BoxConstraint(vocabulary=VOCABULARY, max_boxes=0)
