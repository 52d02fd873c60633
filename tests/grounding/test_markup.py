"""Markup: what is written is read back, and no string or id list can break the lenient reader."""

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.errors import MarkupError
from kosmos2.grounding.markup import (
    CONTROL,
    read,
    read_leniently,
    read_symbols,
    segments,
    tokens,
    write,
)
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag, Vocabulary
from kosmos2.vocab.tokenizer import Symbol, Tokenizer, parse_markup_string, train_tokenizer

GRID = LocationGrid()
A_B = "<patch_index_0044><patch_index_0863>"
INVERTED = "<patch_index_0863><patch_index_0044>"
C_D = "<patch_index_0005><patch_index_0911>"
BOX_AB, BOX_CD = GRID.decode(44, 863), GRID.decode(5, 911)
DELIMITER = "</delimiter_of_multi_objects/>"

# Letters, blanks of every kind, angle brackets and things that are nearly tags.
WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from([" ", "  ", "\n", "\u2003", "a", "a < b", "c > d", "<b>", "</i>", "<", "<phr"]),
)
CONTROLS = st.one_of(
    st.sampled_from([str(tag) for tag in Tag if tag not in (Tag.IMAGE, Tag.IMAGE_END)]),
    st.integers(0, 1100).map("<patch_index_{:04d}>".format),
    st.sampled_from([A_B, C_D, f"<object>{A_B}</object>", "<phrase> a</phrase>"]),
)


@st.composite
def writable_texts(draw: st.DrawFn) -> GroundedText:
    """Texts whose phrases do not overlap and whose words are no tags."""
    text = "".join(draw(st.lists(WORDS, max_size=6)))
    assume(not CONTROL.search(text))
    borders = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pairs = zip(borders[::2], borders[1::2], strict=False)
    return GroundedText(
        text=text,
        phrases=tuple(
            Phrase(
                start=start,
                end=end,
                boxes=tuple(draw(st.lists(st.from_type(Box), min_size=1, max_size=3))),
            )
            for start, end in pairs
        ),
    )


def on_grid(grounded: GroundedText) -> GroundedText:
    return replace(
        grounded,
        phrases=tuple(
            replace(p, boxes=tuple(GRID.decode(*GRID.encode(box)) for box in p.boxes))
            for p in grounded.phrases
        ),
    )


def summary(grounded: GroundedText) -> list[tuple[str, int, int, tuple[Box, ...]]]:
    return [(grounded.phrase_text(p), p.start, p.end, p.boxes) for p in grounded.phrases]


def reasons(grounded: GroundedText) -> list[str]:
    return [fault.reason for fault in grounded.malformed]


@given(writable_texts())
def test_what_is_written_is_read_back(grounded: GroundedText) -> None:
    assert read(write(grounded, GRID), GRID) == on_grid(grounded.trimmed())


@given(writable_texts())
def test_both_readers_agree_on_well_formed_markup(grounded: GroundedText) -> None:
    markup = write(grounded, GRID)
    assert read_leniently(markup, GRID) == read(markup, GRID)


@given(writable_texts())
def test_blanks_around_tags_cells_and_the_grounding_tag_mean_nothing(
    grounded: GroundedText,
) -> None:
    # HF's own prompts are written so; its reader then loses the phrase.
    spaced = " <grounding>" + write(grounded, GRID).replace("</phrase>", "</phrase> \n")
    spaced = spaced.replace("<object>", "<object> ").replace("><patch", "> <patch")
    assert read(spaced, GRID) == on_grid(grounded.trimmed())


@st.composite
def damaged_markup(draw: st.DrawFn) -> str:
    """Valid markup with pieces cut out, doubled and put in; or no order at all."""
    markup = write(draw(writable_texts()), GRID)
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted((draw(st.integers(0, len(markup))), draw(st.integers(0, len(markup)))))
        inserted = draw(st.one_of(CONTROLS, WORDS, st.just(markup[start:end]), st.just("")))
        kept = draw(st.sampled_from([start, end]))
        markup = markup[:start] + inserted + markup[kept:]
    return draw(st.sampled_from([markup, "".join(draw(st.lists(CONTROLS | WORDS, max_size=12)))]))


@given(damaged_markup())
def test_no_word_is_lost_and_none_is_made_up_whatever_the_markup(markup: str) -> None:
    # GroundedText and Box check themselves: spans index the text and boxes are boxes.
    grounded = read_leniently(markup, GRID)
    assert "".join(grounded.text.split()) == "".join(CONTROL.sub("", markup).split())


@given(damaged_markup())
def test_the_strict_reader_refuses_exactly_what_the_lenient_one_reports(markup: str) -> None:
    grounded = read_leniently(markup, GRID)
    if grounded.malformed:
        with pytest.raises(MarkupError, match=re.escape(grounded.malformed[0].detail)):
            read(markup, GRID)
    else:
        assert read(markup, GRID) == grounded


@given(damaged_markup())
def test_repaired_markup_is_well_formed_when_written_again(markup: str) -> None:
    repaired = replace(read_leniently(markup, GRID), malformed=())
    assume(not CONTROL.search(repaired.text))  # "<phr" and "ase>" may have met
    assert read(write(repaired, GRID), GRID) == repaired


@given(damaged_markup())
def test_every_location_is_in_a_box_or_in_a_report(markup: str) -> None:
    grounded = read_leniently(markup, GRID)
    used = 2 * sum(len(phrase.boxes) for phrase in grounded.phrases)
    pairs = sum(
        2 for reason in reasons(grounded) if reason in {"inverted_box", "cell_outside_grid"}
    )
    single = sum(reason in {"stray_location", "lone_location"} for reason in reasons(grounded))
    assert used + pairs + single == markup.count("<patch_index_") - len(
        re.findall("<patch_index_(?![0-9]+>)", markup)
    )


@given(st.text())
def test_text_without_tags_is_its_own_reading(text: str) -> None:
    assume(not CONTROL.search(text))
    assert read_leniently(text, GRID) == GroundedText(text=text.strip())


@pytest.mark.parametrize(
    ("markup", "text", "phrases", "faults"),
    [
        # The rows of the specification's table of corner cases (model.md 7.3), then our own.
        (
            # As both references: the inner phrase.
            f"<phrase> a<phrase> b</phrase><object>{A_B}</object>",
            "a b",
            [("b", 2, 3, (BOX_AB,))],
            ["nested_phrase"],
        ),
        (
            # Both references lose the phrase; HF's span lies behind the text.
            f"<phrase> a</phrase> <object>{A_B}</object>",
            "a",
            [("a", 0, 1, (BOX_AB,))],
            [],
        ),
        (
            # HF: an entity "<patch_index_44><patch_index_863>" at (-1, -1).
            f" <object>{A_B}</object>",
            "",
            [("", 0, 0, (BOX_AB,))],
            [],
        ),
        (f"<object>{A_B}</object> a", "a", [("", 0, 0, (BOX_AB,))], []),
        (
            # HF: one entity per box, each with a made-up name.
            f"here <object>{A_B}{DELIMITER}{C_D}</object> too",
            "here  too",
            [("", 5, 5, (BOX_AB, BOX_CD))],
            [],
        ),
        (
            "<phrase> a</phrase><object><patch_index_0044></object> b",
            "a b",
            [],
            ["lone_location"],
        ),
        (
            # The references want </object>; the pair is complete, so we take it.
            f"<phrase> a</phrase><object>{A_B}",
            "a",
            [("a", 0, 1, (BOX_AB,))],
            ["unclosed_object"],
        ),
        (
            f"<phrase> a</phrase><object>{A_B}{DELIMITER}</object>",
            "a",
            [("a", 0, 1, (BOX_AB,))],
            ["stray_delimiter"],
        ),
        ("<phrase> a</phrase><object></object> b", "a b", [], ["empty_object"]),
        (
            f"x <phrase></phrase><object>{A_B}</object>y",
            "x y",
            [("", 2, 2, (BOX_AB,))],
            ["empty_phrase"],
        ),
        (
            # The references give a box with x1 > x2.
            f"<phrase> a</phrase><object>{INVERTED}</object>",
            "a",
            [],
            ["inverted_box"],
        ),
        (
            # The references give coordinates above 1.
            "<phrase> a</phrase><object><patch_index_0044><patch_index_9999></object>",
            "a",
            [],
            ["cell_outside_grid"],
        ),
        # The references delete "< b and c >".
        ("a < b and c > d", "a < b and c > d", [], []),
        ("bold <b>words</b> stay", "bold <b>words</b> stay", [], []),
        ("two  blanks stay", "two  blanks stay", [], []),
        (
            # Never a phrase for the references.
            f"<phrase> a <b> c</phrase><object>{A_B}</object>",
            "a <b> c",
            [("a <b> c", 0, 7, (BOX_AB,))],
            [],
        ),
        (
            f"<phrase> a\nb</phrase><object>{A_B}</object>",
            "a\nb",
            [("a\nb", 0, 3, (BOX_AB,))],
            [],
        ),
        ("<phrase> a</phrase> b", "a b", [], ["phrase_without_boxes"]),
        ("<phrase> a", "a", [], ["unclosed_phrase"]),
        (
            f"<phrase> a<object>{A_B}</object> b",
            "a b",
            [("a", 0, 1, (BOX_AB,))],
            ["unclosed_phrase"],
        ),
        ("a</phrase> b", "a b", [], ["stray_tag"]),
        ("a </object><grounding> b", "a  b", [], ["stray_tag", "stray_tag"]),
        (f"a {A_B}", "a", [], ["stray_location", "stray_location"]),
        (
            f"<phrase> a</phrase><object>{A_B}{C_D}</object>",
            "a",
            [("a", 0, 1, (BOX_AB, BOX_CD))],
            ["missing_delimiter"],
        ),
        (
            f"<phrase> a</phrase><object>{A_B} b</object> c",
            "a b c",
            [("a", 0, 1, (BOX_AB,))],
            ["unclosed_object", "stray_tag"],
        ),
        (
            # One good box of two is kept.
            f"<phrase> a</phrase><object>{INVERTED}{DELIMITER}{C_D}</object>",
            "a",
            [("a", 0, 1, (BOX_CD,))],
            ["inverted_box"],
        ),
        ("<object><patch_index_44><patch_index_863></object>", "", [], ["cell_outside_grid"]),
        ("a</line>b", "ab", [], ["stray_tag"]),
        # Before the last picture stand placeholders and earlier examples, as in the references.
        ("<image>. the, to</image><grounding> a cat", "a cat", [], []),
        # ... but a tag that closes no picture swallows nothing.
        ("a cat</image> sits", "a cat sits", [], ["stray_tag"]),
        ("", "", [], []),
    ],
)
def test_corner_case(
    markup: str, text: str, phrases: list[tuple[str, int, int, tuple[Box, ...]]], faults: list[str]
) -> None:
    grounded = read_leniently(markup, GRID)
    assert (grounded.text, summary(grounded), reasons(grounded)) == (text, phrases, faults)


def test_a_location_of_a_thousand_digits_is_reported() -> None:
    # int() itself refuses more than 4300 digits.
    grounded = read_leniently(
        f"<object><patch_index_{'9' * 5000}><patch_index_0001></object>", GRID
    )
    assert reasons(grounded) == ["cell_outside_grid"]


def test_a_strict_refusal_says_what_where_and_the_way_out() -> None:
    with pytest.raises(MarkupError, match=r"inverted_box, .*at character 36.*read_leniently"):
        read(f"A picture<phrase> a</phrase><object>{INVERTED}</object>", GRID)


@pytest.mark.parametrize("other", [(2, 6), (3, 4), (3, 3), (0, 9)])
def test_phrases_that_overlap_are_not_written(other: tuple[int, int]) -> None:
    phrases = [Phrase(start=s, end=e, boxes=(BOX_AB,)) for s, e in [(2, 5), other]]
    with pytest.raises(MarkupError, match="markup cannot nest"):
        write(GroundedText(text="a big dog", phrases=tuple(phrases)), GRID)


@pytest.mark.parametrize("tag", [*Tag, "<patch_index_0001>", "<patch_index_7>"])
def test_words_that_look_like_a_tag_are_not_written(tag: str) -> None:
    with pytest.raises(MarkupError, match="could not tell from a tag"):
        write(GroundedText(text=f"say {tag} please"), GRID)


@given(writable_texts())
def test_the_string_and_the_segments_are_the_same_prompt(grounded: GroundedText) -> None:
    merged: list[object] = [part for part in parse_markup_string(write(grounded, GRID)) if part]
    assert merged == list(segments(grounded, GRID))


def test_locations_are_spelled_as_the_vocabulary_spells_them() -> None:
    vocabulary = Vocabulary(num_pieces=1)
    spelled = "".join(vocabulary.location_token(cell) for cell in (44, 863))
    grounded = GroundedText(text="", phrases=(Phrase(start=0, end=0, boxes=(BOX_AB,)),))
    assert write(grounded, GRID) == f"<object>{spelled}</object>"


# ---------------------------------------------------------------------------------------- ids


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["a red kite over the green hill", "two black dogs and a snowman by the fire", "a hat."]
    return train_tokenizer(texts * 4, num_pieces=160, bins=32)


@given(data=st.data())
def test_any_ids_are_read_as_their_string_is(tokenizer: Tokenizer, data: st.DataObject) -> None:
    vocabulary = tokenizer.vocabulary
    tags = [vocabulary.tag(tag) for tag in Tag]
    near = st.integers(vocabulary.first_location, vocabulary.first_location + 40)
    ids = data.draw(
        st.lists(st.one_of(st.integers(0, vocabulary.size - 1), st.sampled_from(tags), near))
    )
    from_ids = read_symbols(tokenizer.symbols(ids), GRID, ())
    from_string = read_leniently(tokenizer.decode(ids), GRID)
    assert from_ids.text == from_string.text
    assert from_ids.phrases == from_string.phrases
    assert reasons(from_ids) == reasons(from_string)


def test_words_of_generated_ids_are_never_taken_for_tags() -> None:
    said = [Symbol("a <phrase> b </image> <patch_index_0001>", 0, 9)]
    assert read_symbols(said, GRID, ()) == GroundedText(
        text="a <phrase> b </image> <patch_index_0001>"
    )


def symbols_of(markup: str) -> list[Symbol]:
    parts = parse_markup_string(markup)
    return [Symbol(part, n, n + 1) for n, part in enumerate(parts)]  # type: ignore[arg-type]


def test_the_score_of_a_box_is_the_geometric_mean_of_its_two_tokens() -> None:
    said = symbols_of(f"<phrase> a</phrase><object>{A_B}{DELIMITER}{C_D}</object>")
    masses = [None, None, None, None, 0.81, 0.25, None, 1.0000001, 1.0, None]
    (phrase,) = read_symbols(said, GRID, masses).phrases
    assert phrase.scores == pytest.approx((0.45, 1.0))


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_a_phrase_with_one_unmeasured_box_has_no_scores(unknown: float | None) -> None:
    said = symbols_of(f"<object>{A_B}{DELIMITER}{C_D}</object>")
    (phrase,) = read_symbols(said, GRID, [None, 0.5, 0.5, None, 0.5, unknown, None]).phrases
    assert (len(phrase.boxes), phrase.scores) == (2, ())


@given(data=st.data())
def test_training_ids_are_the_caption_with_tags_between_its_tokens(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    grounded = data.draw(writable_texts())
    ids = tokens(grounded, tokenizer)
    vocabulary = tokenizer.vocabulary
    assert [id for id in ids if id <= vocabulary.mask] == tokenizer.encode_text(
        grounded.trimmed().text
    )
    read_back = read_symbols(tokenizer.symbols(ids), GRID, ())
    assert [box for phrase in read_back.phrases for box in phrase.boxes] == [
        box for phrase in on_grid(grounded).phrases for box in phrase.boxes
    ]
    assert reasons(read_back) == []


@given(data=st.data())
def test_training_ids_say_the_same_when_spans_are_whole_words(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    words = data.draw(
        st.lists(st.sampled_from(["a", "red", "kite", "dogs", "snowman", "fire."]), min_size=1)
    )
    starts = [sum(len(word) + 1 for word in words[:n]) for n in range(len(words))]
    chosen = data.draw(st.sets(st.integers(0, len(words) - 1)))
    grounded = GroundedText(
        text=" ".join(words),
        phrases=tuple(
            Phrase(start=starts[n], end=starts[n] + len(words[n]), boxes=(BOX_AB,)) for n in chosen
        ),
    )
    assert read_symbols(tokenizer.symbols(tokens(grounded, tokenizer)), GRID, ()) == grounded


def test_a_span_inside_a_token_grows_to_the_token_and_shares_it(tokenizer: Tokenizer) -> None:
    # The original drops the whole sample.
    (snowman,) = tokenizer.encode_text("snowman")
    grounded = GroundedText(
        text="snowman",
        phrases=(
            Phrase(start=0, end=4, boxes=(BOX_AB,)),
            Phrase(start=5, end=6, boxes=(BOX_CD,)),
        ),
    )
    read_back = read_symbols(tokenizer.symbols(tokens(grounded, tokenizer)), GRID, ())
    assert summary(read_back) == [("snowman", 0, 7, (BOX_AB, BOX_CD))]
    assert snowman in tokens(grounded, tokenizer)
