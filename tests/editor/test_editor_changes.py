"""What can be changed of a record, and that nothing else changes with it."""

from contextlib import suppress
from dataclasses import replace

import pytest
from editor_cases import (
    BALL,
    CAPTION,
    DOG,
    FIELD,
    LEFT,
    LONG_DOG,
    RIGHT,
    changes,
    corners,
    dog,
    records,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from kosmos2.editor.changes import (
    Change,
    Corners,
    Delete,
    Draw,
    DropPhrase,
    Move,
    Relink,
    Respan,
    Reword,
    applied,
)
from kosmos2.editor.twins import is_parallel
from kosmos2.errors import Kosmos2Error
from kosmos2.records.record import Grounded, GroundedRecord

MIDDLE = (0.3, 0.3, 0.5, 0.5)


@given(record=records(), wanted=st.lists(changes, max_size=6))
def test_changes_of_a_record_give_a_record_or_are_refused(
    record: GroundedRecord, wanted: list[Change]
) -> None:
    for change in wanted:
        with suppress(Kosmos2Error):
            record = applied(record, change)
        assert GroundedRecord.from_dict(record.to_dict()) == record


@given(wanted=st.lists(changes.filter(lambda each: not isinstance(each, Reword)), max_size=6))
def test_views_that_are_parallel_stay_so(wanted: list[Change]) -> None:
    record = dog()
    for change in wanted:
        with suppress(Kosmos2Error):
            record = applied(record, change)
        assert is_parallel(record)
        assert len(record.extra["round_trip"]) == len(record.entries)


@given(record=records(), change=changes)
def test_a_change_touches_nothing_that_it_is_not_about(
    record: GroundedRecord, change: Change
) -> None:
    try:
        made = applied(record, change)
    except Kosmos2Error:
        return
    empty = {"noun_chunks": None, "ref_exps": None, "caption": "x"}
    assert replace(made, **empty) == replace(record, **empty)
    if not isinstance(change, Reword):
        assert made.caption == record.caption


@given(box=corners)
def test_a_moved_box_moves_in_both_views_and_has_no_score(box: Corners) -> None:
    assume(box[0] < box[2] and box[1] < box[3])
    assume(box != LEFT)
    moved = applied(dog(), Move(view="ref_exps", entry=0, corners=box))
    assert moved.ref_exps == (Grounded(*LONG_DOG, *box, None), Grounded(*BALL, *RIGHT, 0.4))
    assert moved.noun_chunks == (Grounded(*DOG, *box, None), Grounded(*BALL, *RIGHT, 0.4))
    assert moved.extra["round_trip"] == [None, 0.3]


def test_a_box_that_is_moved_to_where_it_is_keeps_its_score() -> None:
    assert applied(dog(), Move(view="ref_exps", entry=0, corners=LEFT)) == dog()


def test_a_box_that_is_drawn_and_deleted_was_never_there() -> None:
    drawn = applied(dog(), Draw(view="ref_exps", span=FIELD, corners=MIDDLE))
    assert drawn.noun_chunks is not None
    assert drawn.noun_chunks[-1] == Grounded(*FIELD, *MIDDLE, None)
    assert applied(drawn, Delete(view="noun_chunks", entry=2)) == dog()


def test_a_second_box_of_an_expression_is_one_of_its_chunk() -> None:
    drawn = applied(dog(), Draw(view="ref_exps", span=LONG_DOG, corners=MIDDLE))
    assert drawn.noun_chunks is not None
    assert drawn.noun_chunks[-1][:2] == DOG


def test_a_box_of_one_view_alone_stays_in_it() -> None:
    record = replace(dog(), noun_chunks=None)
    drawn = applied(record, Draw(view="ref_exps", span=FIELD, corners=MIDDLE))
    assert drawn.noun_chunks is None
    assert drawn.ref_exps is not None
    assert len(drawn.ref_exps) == 3


def test_a_relinked_box_takes_its_twin_along_to_the_same_phrase() -> None:
    linked = applied(dog(), Relink(view="ref_exps", entry=1, span=LONG_DOG))
    assert [entry[:2] for entry in linked.ref_exps or ()] == [LONG_DOG, LONG_DOG]
    assert [entry[:2] for entry in linked.noun_chunks or ()] == [DOG, DOG]
    assert [entry.score for entry in linked.entries] == [0.9, 0.4]


def test_a_chunk_stays_when_its_expression_grows_or_shrinks_around_it() -> None:
    respanned = applied(dog(), Respan(view="ref_exps", old=LONG_DOG, new=(0, 22)))
    assert [entry[:2] for entry in respanned.ref_exps or ()] == [(0, 22), BALL]
    assert [entry[:2] for entry in respanned.noun_chunks or ()] == [DOG, BALL]


def test_blanks_at_the_ends_of_a_span_are_left_out() -> None:
    respanned = applied(dog(), Respan(view="ref_exps", old=BALL, new=(25, 31)))
    assert [CAPTION[start:end] for start, end, *_ in respanned.entries] == [
        "A dog in a field", "a red"
    ]  # fmt: skip


def test_a_phrase_goes_with_all_its_boxes() -> None:
    two = applied(dog(), Draw(view="ref_exps", span=BALL, corners=MIDDLE))
    left = applied(two, DropPhrase(view="ref_exps", span=BALL))
    assert [len(left.ref_exps or ()), len(left.noun_chunks or ())] == [1, 1]
    assert left.extra["round_trip"] == [0.8]


def test_a_phrase_goes_with_its_last_word() -> None:
    shorter = applied(dog(), Reword(caption="A dog in a field."))
    assert [entry[:2] for entry in shorter.ref_exps or ()] == [LONG_DOG]
    assert shorter.extra["round_trip"] == [0.8]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Move(view="ref_exps", entry=2, corners=LEFT), "no box 2"),
        (Move(view="ref_exps", entry=0, corners=(0.5, 0.1, 0.5, 0.9)), "a width and a height"),
        (Move(view="ref_exps", entry=0, corners=(0.5, 0.1, 50.0, 0.9)), "Are these pixels"),
        (Move(view="ref_exps", entry=0, corners=(0, 0, float("nan"), 1)), "finite"),
        (Draw(view="ref_exps", span=(5, 6), corners=LEFT), "are blanks"),
        (Draw(view="ref_exps", span=(30, 40), corners=LEFT), "a span of the 37 characters"),
        (Draw(view="ref_exps", span=BALL, corners=LEFT, score=2.0), "score in 0..1"),
        (Delete(view="noun_chunks", entry=-1), "no box -1"),
        (DropPhrase(view="ref_exps", span=FIELD), r"no phrase \[9, 16\)"),
        (Relink(view="ref_exps", entry=0, span=(3, 3)), "a span of"),
        (Respan(view="ref_exps", old=FIELD, new=BALL), "no phrase"),
        (Reword(caption=" "), "needs words"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(change: Change, why: str) -> None:
    with pytest.raises(Kosmos2Error, match=why):
        applied(dog(), change)
