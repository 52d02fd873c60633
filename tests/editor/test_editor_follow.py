"""Spans follow their words through an edit of the caption."""

import pytest
from editor_cases import captions, spans
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.editor.follow import follower

words = {
    side: st.lists(st.sampled_from([f"{side}{n}" for n in range(4)]), max_size=5).map(" ".join)
    for side in "lpr"
}


@given(before=captions.filter(bool), after=captions, data=st.data())
def test_a_span_stays_inside_the_caption_or_is_gone(
    before: str, after: str, data: st.DataObject
) -> None:
    start, end = data.draw(spans(len(before) - 1).filter(lambda span: span[0] < span[1]))
    found = follower(before, after)((start, end))
    assert found is None or 0 <= found[0] < found[1] <= len(after)


@given(text=captions.filter(bool), data=st.data())
def test_an_edit_of_nothing_moves_nothing(text: str, data: st.DataObject) -> None:
    span = data.draw(spans(len(text) - 1).filter(lambda span: span[0] < span[1]))
    assert follower(text, text)(span) == span


@given(
    old=st.tuples(words["l"], words["r"]),
    new=st.tuples(words["l"], words["r"]),
    phrase=words["p"].filter(bool),
)
def test_a_phrase_that_was_not_touched_is_the_same_words(
    old: tuple[str, str], new: tuple[str, str], phrase: str
) -> None:
    before, after = (f"{left} {phrase} {right}" for left, right in (old, new))
    start = len(old[0]) + 1
    found = follower(before, after)((start, start + len(phrase)))
    assert found is not None
    assert after[found[0] : found[1]] == phrase


@pytest.mark.parametrize(
    ("before", "phrase", "after", "expected"),
    [
        ("a red ball here", "a red ball", "a blue ball here", "a blue ball"),
        ("a red ball here", "a red ball", "two cats here", "two cats"),
        ("a red ball here", "ball", "a red balloon here", "balloon"),
        ("a red ball here", "a red ball", "a big red ball here", "a big red ball"),
        ("a red ball here", "a red ball", "there is a red ball here", "a red ball"),
        ("a red ball here", "a red ball", "a red here", "a red"),
        ("a red ball here", "red ball", "a here", None),
        ("a dog, a dog", "a dog", "the dog, a dog", "the dog"),
        ("😀 a dog", "a dog", "😀😀 a dog", "a dog"),
    ],
)  # fmt: skip
def test_a_phrase_becomes_what_people_would_say(
    before: str, phrase: str, after: str, expected: str | None
) -> None:
    start = before.index(phrase)
    found = follower(before, after)((start, start + len(phrase)))
    assert (found and after[found[0] : found[1]]) == expected


def test_a_long_caption_that_is_another_one_is_replaced_in_one_piece() -> None:
    before, after = "one " * 3_000, "two three " * 3_000
    assert follower(before, after)((0, len(before) - 1)) == (0, len(after) - 1)
