"""Views: what each rule keeps, held against trying everything."""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.views import (
    longest_expression,
    minimum_area,
    minimum_score,
    non_overlapping,
    one_box,
)

CAPTION = "a dog in a field of flowers"
RULES: list[Callable[[GroundedRecord], GroundedRecord]] = [
    non_overlapping,
    longest_expression,
    one_box,
    partial(minimum_score, score=0.5),
    partial(minimum_area, area=0.1),
]
SPANS = st.tuples(st.integers(0, 7), st.integers(1, 8)).map(
    lambda span: (span[0], min(span[0] + span[1], 8))
)
SCORES = st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
ENTRIES = st.lists(
    st.builds(
        lambda span, box, score: Grounded(*span, *box.corners, score),
        SPANS,
        st.from_type(Box),
        SCORES,
    ),
    max_size=8,
)


def record_of(entries: list[Grounded]) -> GroundedRecord:
    return GroundedRecord(
        id=1, caption=CAPTION, noun_chunks=None, ref_exps=tuple(entries), extra={"licence": "MIT"}
    )


def at(words: str, score: float | None = None, side: float = 1.0) -> Grounded:
    start = CAPTION.index(words)
    return Grounded(start, start + len(words), 0.0, 0.0, side, side, score)


def spans(record: GroundedRecord) -> list[tuple[int, int]]:
    return [(entry.start, entry.end) for entry in record.entries]


def apart(chosen: tuple[tuple[int, int], ...]) -> bool:
    return all(a[1] <= b[0] or b[1] <= a[0] for a, b in combinations(chosen, 2))


@pytest.mark.parametrize("rule", RULES)
@given(ENTRIES, ENTRIES)
def test_a_rule_only_leaves_out_keeps_the_order_and_has_no_more_to_do_again(
    rule: Callable[[GroundedRecord], GroundedRecord], chunks: list[Grounded], rest: list[Grounded]
) -> None:
    record = dataclasses.replace(record_of(rest), noun_chunks=tuple(chunks))
    view = rule(record)
    for old, new in ((chunks, view.noun_chunks), (rest, view.ref_exps)):
        assert new is not None
        left = iter(old)
        assert all(entry in left for entry in new)
    assert rule(view) == view
    assert dataclasses.replace(view, noun_chunks=tuple(chunks), ref_exps=tuple(rest)) == record


@pytest.mark.parametrize("rule", RULES)
def test_a_view_that_nobody_knows_stays_unknown(
    rule: Callable[[GroundedRecord], GroundedRecord],
) -> None:
    assert rule(record_of([])).noun_chunks is None


@given(ENTRIES)
def test_no_choice_of_spans_apart_has_more_of_them(entries: list[Grounded]) -> None:
    every = {(entry.start, entry.end) for entry in entries}
    chosen = tuple(set(spans(non_overlapping(record_of(entries)))))
    assert apart(chosen)
    most = max(
        size
        for size in range(len(every) + 1)
        if any(apart(some) for some in combinations(every, size))
    )
    assert len(chosen) == most


@given(ENTRIES)
def test_the_longest_are_those_that_no_other_span_contains(entries: list[Grounded]) -> None:
    every = [(entry.start, entry.end) for entry in entries]
    roots = [
        one
        for one in every
        if not any(two != one and two[0] <= one[0] and one[1] <= two[1] for two in every)
    ]
    assert spans(longest_expression(record_of(entries))) == roots


@given(ENTRIES)
def test_one_box_is_the_first_of_the_best_of_each_span(entries: list[Grounded]) -> None:
    view = one_box(record_of(entries)).entries
    assert len({entry[:2] for entry in view}) == len(view) == len({e[:2] for e in entries})
    for entry in view:
        rivals = [other for other in entries if other[:2] == entry[:2]]
        known = [other.score for other in rivals if other.score is not None]
        assert entry == next(e for e in rivals if not known or e.score == max(known))


def test_nested_spans_are_taken_apart_or_left_to_the_longest() -> None:
    record = record_of([at(CAPTION), at("a dog"), at("a dog"), at("a field")])
    assert non_overlapping(record).entries == (at("a dog"), at("a dog"), at("a field"))
    assert longest_expression(record).entries == (at(CAPTION),)


def test_of_spans_with_one_end_the_longest_that_fits_is_kept() -> None:
    record = record_of([at("flowers"), at("a field of flowers"), at("a dog")])
    assert non_overlapping(record).entries == (at("a field of flowers"), at("a dog"))


def test_scores_below_the_least_and_unknown_ones_are_left_out() -> None:
    record = record_of([at("a dog", 0.5), at("a dog", 0.49), at("a dog", None)])
    assert minimum_score(record, 0.5).entries == (at("a dog", 0.5),)


def test_areas_are_shares_of_the_picture() -> None:
    record = record_of([at("a dog", side=0.5), at("a dog", side=0.25)])
    assert minimum_area(record, 0.25).entries == (at("a dog", side=0.5),)
