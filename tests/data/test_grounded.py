"""Boxes that are none: each left out with its reason, its caption and the others stay."""

import json
from typing import Any

import pytest

from kosmos2.boxes import Box
from kosmos2.data.grounded import Checked, checked, grounded, roots, without_overlaps
from kosmos2.data.ledger import Rejected
from kosmos2.grounding.spans import GroundedText, Phrase

CAPTION = "a red car next to a dog"
GOOD = [0, 9, 0.0, 0.25, 0.5, 0.75, 0.9]


def found(rows: Any, min_score: float = 0.0, **fields: Any) -> Checked:
    row = {"caption": CAPTION, "noun_chunks": None, "ref_exps": rows, **fields}
    result = checked(row, "here:1", view="ref_exps", min_score=min_score)
    assert isinstance(result, Checked)
    return result


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([0, 9, -0.1, 0.2, 0.5, 0.7, 0.9], "box out of range"),
        ([0, 9, 0.1, 0.2, 34.0, 0.7, 0.9], "box out of range"),
        ([0, 9, 0.5, 0.2, 0.1, 0.7, 0.9], "box flipped"),
        ([0, 9, 0.1, 0.7, 0.5, 0.2, 0.9], "box flipped"),
        ([0, 9, 0.5, 0.2, 0.5, 0.7, 0.9], "box without area"),
        ([0, 9, float("nan"), 0.2, 0.5, 0.7, 0.9], "box not finite"),
        ([0, 24, 0.1, 0.2, 0.5, 0.7, 0.9], "span outside the caption"),
        ([9, 9, 0.1, 0.2, 0.5, 0.7, 0.9], "span outside the caption"),
        ([0.5, 9, 0.1, 0.2, 0.5, 0.7, 0.9], "span outside the caption"),
        ([9, 10, 0.1, 0.2, 0.5, 0.7, 0.9], "span without words"),
        ([0, 9, 0.1, 0.2, 0.5], "no entry of 7 numbers"),
        ([0, 9, 0.1, 0.2, 0.5, "0.7", 0.9], "no entry of 7 numbers"),
        ("junk", "no entry of 7 numbers"),
        ([0, 9, 0.1, 0.2, 0.5, 0.7, 0.3], "score below min_score"),
    ],
)
def test_a_box_in_fault_is_left_out_with_its_reason_and_place(bad: Any, reason: str) -> None:
    result = found([bad, GOOD], min_score=0.5)
    assert [each.reason for each in result.left_out] == [reason]
    assert "here:1" in result.left_out[0].detail
    assert "ref_exps[0]" in result.left_out[0].detail
    assert [each.box.corners for each in result.entries] == [(0.0, 0.25, 0.5, 0.75)]


def test_spans_may_be_floats_and_scores_unknown_as_released_and_own_files_have_them() -> None:
    (entry,) = found([[0.0, 9.0, *GOOD[2:6], None]], min_score=0.5).entries
    assert (entry.start, entry.end) == (0, 9)


def test_a_view_as_text_is_read_as_what_it_says() -> None:
    assert found(json.dumps([GOOD])).entries == found([GOOD]).entries


def test_the_other_view_stands_in_for_one_that_nobody_knows() -> None:
    assert found(None, noun_chunks=[GOOD]).entries == found([GOOD]).entries
    assert found([], noun_chunks=[GOOD]).entries == ()  # known, and empty
    assert found(None).entries == ()


@pytest.mark.parametrize("caption", [None, "", "  ", 7])
def test_a_row_without_words_is_rejected(caption: object) -> None:
    result = checked({"caption": caption}, "here:1", view="ref_exps", min_score=0)
    assert isinstance(result, Rejected)
    assert result.reason == "no caption"


def test_the_entries_of_a_span_are_one_phrase_with_its_boxes_in_file_order() -> None:
    rows = [GOOD, [18, 23, 0.5, 0.5, 1, 1, 0.9], [0, 9, 0.1, 0.1, 0.2, 0.2, 0.8]]
    text = grounded(CAPTION, found(rows).entries)
    assert [(p.start, [b.x0 for b in p.boxes]) for p in text.phrases] == [
        (0, [0, 0.1]),
        (18, [0.5]),
    ]


def phrase(start: int, end: int) -> Phrase:
    return Phrase(start=start, end=end, boxes=(Box(0, 0, 1, start / 100),))


def test_only_phrases_inside_no_other_remain_and_equal_spans_are_not_inside() -> None:
    whole, same, inner, apart = phrase(0, 9), phrase(0, 9), phrase(2, 9), phrase(18, 23)
    text = GroundedText(text=CAPTION, phrases=(whole, same, inner, apart))
    assert roots(text).phrases == (whole, same, apart)


def test_of_expressions_that_overlap_the_first_stays_and_the_others_are_counted() -> None:
    text = GroundedText(text=CAPTION, phrases=(phrase(0, 12), phrase(10, 16), phrase(16, 23)))
    kept, lost = without_overlaps(text, "here:1")
    assert [(each.start, each.end) for each in kept.phrases] == [(0, 12), (16, 23)]
    assert [each.reason for each in lost] == ["expression overlaps another"]
