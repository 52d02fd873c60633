"""A grounded text never holds a span outside its text, a phrase without a box or a stray score."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.grounding.spans import GroundedText, Malformed, Phrase, mark

BOX = Box(0.25, 0.25, 0.5, 0.75)


@st.composite
def grounded_texts(draw: st.DrawFn) -> GroundedText:
    text = draw(st.text(max_size=30))
    phrases = []
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted(draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=2)))
        x0, x1, y0, y1 = (draw(st.floats(0, 1)) for _ in range(4))
        box = Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        boxes = (box,) * draw(st.integers(1, 3))
        scores = tuple(draw(st.floats(0, 1)) for _ in boxes) if draw(st.booleans()) else ()
        phrases.append(Phrase(start=start, end=end, boxes=boxes, scores=scores))
    malformed = (Malformed(reason="stray_tag", detail=draw(st.text(max_size=5))),)
    return GroundedText(text=text, phrases=tuple(phrases), malformed=malformed)


@given(grounded_texts())
def test_json_gives_the_same_value_back(grounded: GroundedText) -> None:
    assert GroundedText.from_dict(json.loads(json.dumps(grounded.to_dict()))) == grounded


@given(grounded_texts())
def test_phrases_stand_in_the_order_of_the_text(grounded: GroundedText) -> None:
    places = [(phrase.start, phrase.end) for phrase in grounded.phrases]
    assert places == sorted(places)


@given(grounded_texts())
def test_trimming_changes_no_words_and_twice_is_once(grounded: GroundedText) -> None:
    trimmed = grounded.trimmed()
    assert trimmed.text == grounded.text.strip()
    words = sorted(grounded.phrase_text(phrase).strip() for phrase in grounded.phrases)
    assert sorted(trimmed.phrase_text(phrase) for phrase in trimmed.phrases) == words
    assert trimmed.trimmed() == trimmed


def test_mark_ties_the_first_occurrence() -> None:
    question = mark("Where is the fire next to the fire?", "the fire", [BOX])
    assert [(p.start, p.end, p.boxes) for p in question.phrases] == [(9, 17, (BOX,))]


@pytest.mark.parametrize("words", ["the pond", "", " "])
def test_mark_refuses_words_that_are_not_there(words: str) -> None:
    with pytest.raises(RecordError, match="does not occur"):
        mark("Where is the fire?", words, [BOX])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": -1, "end": 2}, "0 <= start <= end"),
        ({"start": 3, "end": 2}, "0 <= start <= end"),
        ({"start": 0, "end": 1, "boxes": ()}, "has no box"),
        ({"start": 0, "end": 1, "scores": (0.5, 0.5)}, "1 boxes but 2 scores"),
        ({"start": 0, "end": 1, "scores": (1.5,)}, "0..1, got 1.5"),
        ({"start": 0, "end": 1, "scores": (float("nan"),)}, "0..1, got nan"),
    ],
)
def test_a_phrase_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        Phrase(**{"boxes": (BOX,), **fields})


def test_a_phrase_outside_its_text_is_refused() -> None:
    with pytest.raises(RecordError, match="leaves the text, which has 3 characters"):
        GroundedText(text="cat", phrases=(Phrase(start=0, end=4, boxes=(BOX,)),))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"text": 7}, "expected text, got 7"),
        ({"phrases": [{"start": 0, "end": 3, "text": "dog", "boxes": [BOX]}]}, "wrong kind"),
        ({"phrases": [{"start": 0, "boxes": []}]}, "lacks the key 'end'"),
        ({"phrases": [{"start": 0.5, "end": 3, "boxes": []}]}, "whole number, got 0.5"),
        ({"phrases": [{"start": True, "end": 3, "boxes": []}]}, "whole number, got True"),
        ({"phrases": [{"start": 0, "end": 3, "boxes": [[0, 0, 1, 1]]}]}, "wrong kind"),
        ({"phrases": 3}, "wrong kind"),
    ],
)
def test_json_of_another_kind_is_one_clear_error(damage: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        GroundedText.from_dict({"text": "cat", **damage})


def test_json_whose_words_disagree_with_its_span_is_refused() -> None:
    data = GroundedText(text="a cat", phrases=(Phrase(start=2, end=5, boxes=(BOX,)),)).to_dict()
    data["phrases"][0]["text"] = "dog"
    with pytest.raises(RecordError, match="'cat' in the text, but its own `text` says 'dog'"):
        GroundedText.from_dict(data)
