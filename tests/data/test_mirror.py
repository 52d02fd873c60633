"""A mirrored picture: words and boxes change sides together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.data.mirror import can_mirror, mirrored, swapped
from kosmos2.grounding.spans import GroundedText, Phrase

WORDS = st.lists(
    st.sampled_from(["a", "dog", "left", "RIGHT", "Left", "leftmost", "right-hand", "bright,"]),
    min_size=1,
    max_size=8,
)


def text_of(words: list[str]) -> GroundedText:
    """Every word is a phrase, its box by its number."""
    phrases, place = [], 0
    for number, word in enumerate(words):
        box = Box(number / 10, 0.2, 0.85, 0.6)
        phrases.append(Phrase(start=place, end=place + len(word), boxes=(box,)))
        place += len(word) + 1
    return GroundedText(text=" ".join(words), phrases=tuple(phrases))


@given(WORDS)
def test_a_mirror_in_a_mirror_shows_what_was_there(words: list[str]) -> None:
    text = text_of(words)
    twice = swapped(swapped(text))
    assert twice.text == text.text
    for before, after in zip(text.phrases, twice.phrases, strict=True):
        assert (before.start, before.end) == (after.start, after.end)
        assert before.boxes[0].corners == pytest.approx(after.boxes[0].corners)


@given(WORDS)
def test_phrases_keep_their_words_but_for_sides(words: list[str]) -> None:
    text = text_of(words)
    other = {"left": "right", "RIGHT": "LEFT", "Left": "Right", "leftmost": "rightmost",
             "right-hand": "left-hand"}  # fmt: skip
    after = swapped(text)
    assert [after.phrase_text(each) for each in after.phrases] == [
        other.get(word, word) for word in words
    ]


def test_a_box_at_the_left_is_at_the_right() -> None:
    assert mirrored(Box(0.125, 0.2, 0.375, 0.6)) == Box(0.625, 0.2, 0.875, 0.6)


@pytest.mark.parametrize(
    "text", ["a sign that says hi", 'a "stop" sign', "there is nothing left", "he turns clockwise"]
)
def test_what_a_mirror_makes_untrue_is_not_mirrored(text: str) -> None:
    assert not can_mirror(text)
    assert can_mirror("a dog left of a cat, bright and right-handed")
