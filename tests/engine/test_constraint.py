"""What is chosen among the allowed ids is well formed; every well-formed text is allowed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, pairwise

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
from slow_constraints import SlowBoxes, SlowCaption

from kosmos2.engine import FREE, BoxConstraint, CaptionConstraint, Constraint, Free
from kosmos2.engine.constraint import Allowed, Gate, GrammarConstraint
from kosmos2.errors import RequestError
from kosmos2.vocab.special import Vocabulary

BINS = VOCABULARY.bins
AMPLE = 10_000
BOX = (VOCABULARY.location(5), VOCABULARY.location(15))
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


def listed(allowed: Allowed) -> list[int]:
    """Return the ids that may follow."""
    assert allowed is not None
    if isinstance(allowed, Gate):
        return [allowed.no, allowed.yes]
    return [id for ids in allowed for id in ids]


def after(form: Constraint, ids: Sequence[int], room: int = AMPLE) -> list[int]:
    """Return the ids that may follow some new tokens."""
    state = form.start(())
    for id in ids:
        state = form.advance(state, id)
    return listed(form.allowed(state, room))


def walk(form: Constraint, room: int, rng: random.Random) -> list[int]:
    """Return what random logits write under a constraint, without the end of text."""
    state, ids = form.start(()), []
    while len(ids) < room and (allowed := form.allowed(state, room - len(ids))):
        # Tags are few, locations are many: each range is as likely as the others.
        runs = [listed(allowed)] if isinstance(allowed, Gate) else allowed
        id = rng.choice(rng.choice(runs))
        if id == VOCABULARY.eos:
            break
        state = form.advance(state, id)
        ids.append(id)
    return ids


def assert_accepts(form: Constraint, ids: Sequence[int]) -> None:
    state = form.start(())
    for at, id in enumerate(ids):
        assert id in listed(form.allowed(state, len(ids) - at))
        state = form.advance(state, id)
    assert form.allowed(state, 1) == ()


def phrases(ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found, start, num_words = [], 0, 0
    for id in ids:
        num_words += id < VOCABULARY.mask
        if id == PHRASE:
            start = num_words
        if id == PHRASE_END:
            found.append((start, num_words))
    return tuple(found)


# --- the same as the slow constraints


SMALL = Vocabulary(num_pieces=4, bins=2)


def nodes(slow: SlowBoxes | SlowCaption) -> Iterator[tuple[list[int], list[int]]]:
    """Yield every beginning of a text, with what may follow; of the cells, the first and last."""
    stack: list[list[int]] = [[]]
    while stack:
        ids = stack.pop()
        following = list(slow.allowed(ids))
        yield ids, following
        cells = [id for id in following if id >= SMALL.first_location]
        stack += [[*ids, id] for id in following if id not in cells[1:-1]]


def subsets(items: Sequence[int]) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(items, size) for size in range(len(items) + 1)))


@pytest.mark.parametrize("max_boxes", [1, 2, 3])
def test_boxes_are_those_of_the_slow_constraint(max_boxes: int) -> None:
    fast = BoxConstraint(vocabulary=SMALL, max_boxes=max_boxes)
    for ids, following in nodes(SlowBoxes(SMALL, max_boxes)):
        assert after(fast, ids) == sorted(following)


@pytest.mark.parametrize("caption", [(4,), (4, 5), (5, 5), (3, 4, 5)])
def test_free_captions_are_those_of_the_slow_constraint(caption: tuple[int, ...]) -> None:
    num_nodes = 0
    for borders in [FREE, *subsets(range(len(caption)))]:
        fast = CaptionConstraint(
            caption_ids=caption, vocabulary=SMALL, borders=borders, max_boxes=1
        )
        for ids, following in nodes(SlowCaption(caption, SMALL, FREE, borders, 1)):
            assert after(fast, ids) == sorted(following)
            num_nodes += 1
    assert num_nodes > 10 ** len(caption)


@pytest.mark.parametrize("caption", [(4,), (4, 5), (5, 5), (3, 4, 5)])
def test_captions_with_spans_are_those_of_the_slow_constraint(caption: tuple[int, ...]) -> None:
    borders = range(len(caption) + 1)
    for chosen in subsets(borders):
        for spans in {tuple(pairwise(chosen)), tuple(pairwise(chosen))[::2]}:
            fast = CaptionConstraint(
                caption_ids=caption, vocabulary=SMALL, spans=spans, max_boxes=2
            )
            for ids, following in nodes(SlowCaption(caption, SMALL, spans, FREE, 2)):
                assert after(fast, ids) == sorted(following)


# --- walks of random logits


@given(st.integers(1, 4), st.integers(4, 20), st.randoms(use_true_random=False))
def test_any_walk_through_a_box_constraint_is_an_object_group(
    max_boxes: int, room: int, rng: random.Random
) -> None:
    form = BoxConstraint(vocabulary=VOCABULARY, max_boxes=max_boxes)
    assert is_group(walk(form, room, rng), max_boxes)
    assert len(walk(form, AMPLE, rng)) <= form.longest


@given(st.data(), captions, st.randoms(use_true_random=False))
def test_any_walk_opens_and_closes_phrases_at_borders_alone(
    data: st.DataObject, caption: tuple[int, ...], rng: random.Random
) -> None:
    borders = tuple(data.draw(st.sets(st.integers(0, len(caption) - 1))))
    form = CaptionConstraint(
        caption_ids=caption, vocabulary=VOCABULARY, borders=borders, max_boxes=2
    )
    ids = walk(form, AMPLE, rng)
    assert is_grounded(ids, caption, max_boxes=2)
    assert all({start, stop} <= {*borders, len(caption)} for start, stop in phrases(ids))


@given(st.data(), captions, st.randoms(use_true_random=False))
def test_any_walk_with_spans_has_exactly_these_phrases(
    data: st.DataObject, caption: tuple[int, ...], rng: random.Random
) -> None:
    spans = data.draw(spans_of(caption))
    form = CaptionConstraint(caption_ids=caption, vocabulary=VOCABULARY, spans=spans, max_boxes=2)
    ids = walk(form, data.draw(st.integers(form.shortest, form.shortest + 9)), rng)
    assert is_grounded(ids, caption, max_boxes=2)
    assert phrases(ids) == spans


@pytest.mark.parametrize("mode", ["free", "spans"])
def test_half_a_million_random_steps_ground_the_caption_within_any_room(mode: str) -> None:
    rng, num_steps, num_phrases = random.Random(0), 0, 0
    while num_steps < 500_000:
        caption = tuple(rng.choices(range(3, VOCABULARY.mask), k=rng.randint(1, 30)))
        borders = sorted(rng.sample(range(len(caption) + 1), rng.randint(0, len(caption) + 1)))
        spans = FREE if mode == "free" else tuple(pairwise(borders))[:: rng.choice([1, 2])]
        form = CaptionConstraint(
            caption_ids=caption, vocabulary=VOCABULARY, spans=spans, max_boxes=3
        )
        room = form.shortest + rng.randint(0, 40)
        ids = walk(form, room, rng)
        assert is_grounded(ids, caption, max_boxes=3)
        assert spans is FREE or phrases(ids) == spans
        assert len(ids) <= min(room, form.longest)
        num_steps += len(ids)
        num_phrases += ids.count(PHRASE)
    assert num_phrases > 10_000


@given(st.integers(1, 60), st.lists(st.integers(0, 60), max_size=9), st.randoms())
def test_free_text_under_the_grammar_has_only_groups_of_closed_phrases(
    room: int, prompt: list[int], rng: random.Random
) -> None:
    form = GrammarConstraint(vocabulary=VOCABULARY, max_boxes=2)
    assert form.free_text
    ids = walk(form, room, rng)
    words = [id for id in ids if id < VOCABULARY.mask]
    assert is_grounded(ids, words, max_boxes=2)
    assert form.start(prompt) == form.grammar.start(prompt)


# --- what is accepted


@given(groups())
def test_a_box_constraint_accepts_every_object_group(ids: list[int]) -> None:
    assert_accepts(BoxConstraint(vocabulary=VOCABULARY, max_boxes=3), ids)


@given(st.data(), captions, st.booleans())
def test_every_grounding_of_the_caption_is_accepted_with_just_the_room_for_it(
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


@given(st.data(), captions, st.integers(1, 2), st.randoms(use_true_random=False))
def test_with_given_spans_only_cells_and_the_number_of_boxes_are_chosen(
    data: st.DataObject, caption: tuple[int, ...], max_boxes: int, rng: random.Random
) -> None:
    spans = data.draw(spans_of(caption))
    form = CaptionConstraint(
        caption_ids=caption, vocabulary=VOCABULARY, spans=spans, max_boxes=max_boxes
    )
    ids = walk(form, AMPLE, rng)
    for at in range(len(ids)):
        choice = after(form, ids[:at])
        is_cell = VOCABULARY.cell_of(ids[at]) is not None
        assert all((VOCABULARY.cell_of(id) is not None) == is_cell for id in choice)
        assert is_cell or len(choice) == 1 or (choice, max_boxes) == ([OBJECT_END, DELIMITER], 2)


def test_only_what_is_open_is_left_to_the_model() -> None:
    form = CaptionConstraint(caption_ids=(10, 11), vocabulary=VOCABULARY, max_boxes=2)
    assert after(form, []) == [10, PHRASE]
    assert after(form, [PHRASE]) == [10]
    assert after(form, [PHRASE, 10]) == [11, PHRASE_END]
    assert after(form, [PHRASE, 10, 11]) == [PHRASE_END]
    assert after(form, [PHRASE, 10, PHRASE_END]) == [OBJECT]
    opened = [PHRASE, 10, PHRASE_END, OBJECT]
    assert len(after(form, opened)) == BINS * BINS
    assert after(form, [*opened, BOX[0]]) == [
        VOCABULARY.location(y * BINS + x) for y in (1, 2, 3) for x in (1, 2, 3)
    ]
    assert after(form, [*opened, *BOX]) == [OBJECT_END, DELIMITER]
    assert after(form, [*opened, *BOX, DELIMITER, *BOX]) == [OBJECT_END]
    assert after(form, [*opened, *BOX, OBJECT_END]) == [11, PHRASE]


def test_detours_are_open_while_there_is_room_for_them_and_the_rest() -> None:
    form = CaptionConstraint(caption_ids=(10, 11), vocabulary=VOCABULARY, max_boxes=2)
    assert [after(form, [], room) for room in (1, 2, 7, 8)] == [[10]] * 3 + [[10, PHRASE]]
    boxed = [PHRASE, 10, PHRASE_END, OBJECT, *BOX]
    both = [OBJECT_END, DELIMITER]
    assert [after(form, boxed, room) for room in (1, 2, 4, 5)] == [[OBJECT_END]] * 3 + [both]
    spans = CaptionConstraint(
        caption_ids=(10, 11), vocabulary=VOCABULARY, spans=((0, 1), (1, 2)), max_boxes=2
    )
    assert (form.shortest, spans.shortest) == (2, 14)
    assert [after(spans, boxed, room) for room in (8, 10, 11)] == [[OBJECT_END]] * 2 + [both]


# --- phrases that are absent


def test_a_phrase_may_be_absent_before_its_first_box() -> None:
    form = BoxConstraint(vocabulary=VOCABULARY, max_boxes=1, allow_absent=True)
    state = form.start(())
    gate = Gate(yes=OBJECT, no=VOCABULARY.eos)
    assert form.allowed(state, 1) == form.allowed(state, AMPLE) == gate
    assert form.allowed(form.advance(state, VOCABULARY.eos), 9) == ()
    assert after(form, [OBJECT, *BOX]) == [OBJECT_END]
    assert after(form, [OBJECT, *BOX, OBJECT_END]) == []


def test_phrases_of_a_caption_may_be_absent_one_by_one() -> None:
    form = CaptionConstraint(
        caption_ids=(10, 11, 12),
        vocabulary=VOCABULARY,
        spans=((0, 1), (1, 2), (2, 3)),
        max_boxes=1,
        allow_absent=True,
    )
    state = form.start(())
    for id in [PHRASE, 10, PHRASE_END]:
        state = form.advance(state, id)
    assert form.allowed(state, AMPLE) == Gate(yes=OBJECT, no=PHRASE)
    for id in [PHRASE, 11, PHRASE_END, OBJECT, *BOX, OBJECT_END, PHRASE, 12, PHRASE_END]:
        assert id in listed(form.allowed(state, AMPLE))
        state = form.advance(state, id)
    assert form.allowed(state, AMPLE) == Gate(yes=OBJECT, no=VOCABULARY.eos)
    assert form.allowed(form.advance(state, VOCABULARY.eos), AMPLE) == ()


def test_behind_an_absent_phrase_the_caption_goes_on() -> None:
    form = CaptionConstraint(
        caption_ids=(10, 11), vocabulary=VOCABULARY, spans=((0, 1),), allow_absent=True
    )
    state = form.start(())
    for id in [PHRASE, 10, PHRASE_END]:
        state = form.advance(state, id)
    assert form.allowed(state, AMPLE) == Gate(yes=OBJECT, no=11)
    assert form.allowed(form.advance(state, 11), AMPLE) == ()


@given(st.data(), captions, st.randoms(use_true_random=False))
def test_a_caption_of_present_and_absent_phrases_keeps_its_words(
    data: st.DataObject, caption: tuple[int, ...], rng: random.Random
) -> None:
    spans = data.draw(spans_of(caption))
    form = CaptionConstraint(
        caption_ids=caption, vocabulary=VOCABULARY, spans=spans, max_boxes=2, allow_absent=True
    )
    ids = walk(form, form.shortest, rng)
    assert tuple(id for id in ids if id < VOCABULARY.mask) == caption
    assert phrases(ids) == spans
    assert ids.count(OBJECT) == ids.count(OBJECT_END) <= len(spans)


# --- what is refused


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
        ({"allow_absent": True}, "only where they are given"),
    ],
)
def test_an_impossible_caption_is_refused(wrong: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"caption_ids": (10, 11, 12), "vocabulary": VOCABULARY}
    with pytest.raises(RequestError, match=message):
        CaptionConstraint(**{**settings, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [BoxConstraint, GrammarConstraint])
def test_a_group_of_no_boxes_is_refused(
    form: type[BoxConstraint] | type[GrammarConstraint],
) -> None:
    with pytest.raises(RequestError, match="at least 1, got 0"):
        form(vocabulary=VOCABULARY, max_boxes=0)
