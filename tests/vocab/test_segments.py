"""Markup strings split into text and control, and lose nothing."""

from hypothesis import given
from hypothesis import strategies as st

from kosmos2.vocab.segments import Cell, ImageSlot, Segment, parse_markup_string
from kosmos2.vocab.special import Tag

CONTROL = st.sampled_from([*map(str, Tag), "<patch_index_0000>", "<patch_index_12345>"])


def literal(segment: Segment) -> str:
    assert not isinstance(segment, ImageSlot)
    return f"<patch_index_{segment.index:04d}>" if isinstance(segment, Cell) else segment


@given(st.lists(st.one_of(CONTROL, st.text(), st.sampled_from("<>/_"))).map("".join))
def test_segments_spell_the_string_they_come_from(text: str) -> None:
    assert "".join(map(literal, parse_markup_string(text))) == text


def test_a_model_card_prompt() -> None:
    text = "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is"
    assert parse_markup_string(text) == (
        Tag.GROUNDING,
        Tag.PHRASE,
        " It",
        Tag.PHRASE_END,
        Tag.OBJECT,
        Cell(44),
        Cell(863),
        Tag.OBJECT_END,
        " is",
    )


def test_what_is_not_exactly_a_tag_stays_text() -> None:
    for text in (
        "<s>",
        "</s>",
        "<unk>",
        "<pad>",
        "<mask>",
        "<Phrase>",
        "< phrase>",
        "<patch_index_44>",
        "<patch_index_00044>",
        "<patch_index_-001>",
        "<patch_index_٠٠٠١>",
        "a < b > c",
    ):
        assert parse_markup_string(text) == (text,)
        assert parse_markup_string(f"a {text} b") == (f"a {text} b",)


def test_nothing_is_no_segment() -> None:
    assert parse_markup_string("") == ()
