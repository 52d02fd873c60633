"""The reader against both references: their published constants, and transformers' own reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.kosmos2.processing_kosmos2 import (
    clean_text_and_extract_entities_with_bboxes,
)

from kosmos2.boxes import Box
from kosmos2.grounding.markup import read, read_leniently, read_symbols, segments, tokens, write
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.tokenizer import Tokenizer

GRID = LocationGrid()

BRIEF_IDS = [
    *(0, 64003, *range(4, 68), 64004, 64012, 712, 1648, 9),
    *(64007, 10, 43867, 64008, 64009, 64057, 64876, 64010, 5950, 597, 32),
    *(64007, 10, 646, 64008, 64009, 64018, 64924, 64010, 4, 2),
]
BRIEF_MARKUP = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
    "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
    "<patch_index_0005><patch_index_0911></object>."
)
BRIEF_ENTITIES = [
    ("a snowman", (12, 21), [(0.390625, 0.046875, 0.984375, 0.828125)]),
    ("a fire", (41, 47), [(0.171875, 0.015625, 0.484375, 0.890625)]),
]
DETAILED_IDS = [
    *(0, 64003, *range(4, 68), 64004, 64012, 34645, 247, 38, 1648, 12, 3391, 55),
    *(24, 1648, 1338, 10, 43867, 1280, 32, 64007, 10, 30879, 64008, 64009, 64018, 65020, 64010),
    *(12, 5, 1842, 4, 71, 17, 1679, 64007, 10, 3958, 64008, 64009, 64061, 64263, 64010, 6),
    *(64007, 15719, 64008, 64009, 64253, 64617, 64010, 6, 8, 64007, 9626, 64008, 64009, 64413),
    *(64545, 64010, 6, 23, 64007, 10, 4363, 64008, 64009, 64623, 64885, 64010, 2255, 8, 64007),
    *(10, 3486, 64008, 64009, 64809, 65036, 64010, 1560, 2255, 4, 24, 43867, 1684, 7, 27, 3774),
    *(5, 10356, 9, 5, 646, 6, 8, 22, 1684, 7, 30, 10, 2007, 8, 16239, 4337, 4, 2),
]
DETAILED_TEXT = (
    "Describe this image in detail: The image features a snowman sitting by a campfire in the "
    "snow. He is wearing a hat, scarf, and gloves, with a pot nearby and a cup placed nearby. "
    "The snowman appears to be enjoying the warmth of the fire, and it appears to have a warm "
    "and cozy atmosphere."
)
DETAILED_ENTITIES = [
    ("a campfire", (71, 81), [(0.171875, 0.015625, 0.484375, 0.984375)]),
    ("a hat", (109, 114), [(0.515625, 0.046875, 0.828125, 0.234375)]),
    ("scarf", (116, 121), [(0.515625, 0.234375, 0.890625, 0.578125)]),
    ("gloves", (127, 133), [(0.515625, 0.390625, 0.640625, 0.515625)]),
    ("a pot", (140, 145), [(0.078125, 0.609375, 0.265625, 0.859375)]),
    ("a cup", (157, 162), [(0.890625, 0.765625, 0.984375, 0.984375)]),
]


def entities(
    grounded: GroundedText,
) -> list[tuple[str, tuple[int, int], list[tuple[float, ...]]]]:
    """As transformers returns them."""
    return [
        (grounded.phrase_text(p), (p.start, p.end), [box.corners for box in p.boxes])
        for p in grounded.phrases
    ]


def test_the_brief_snowman_string_reads_as_published() -> None:
    grounded = read(BRIEF_MARKUP, GRID)
    assert grounded.text == "An image of a snowman warming himself by a fire."
    assert entities(grounded) == BRIEF_ENTITIES


def test_the_brief_snowman_is_written_as_the_model_writes_it() -> None:
    written = write(read(BRIEF_MARKUP, GRID), GRID)
    assert written == BRIEF_MARKUP.removeprefix("<grounding> ")


@pytest.mark.parametrize(
    ("ids", "text", "expected"),
    [
        (BRIEF_IDS, "An image of a snowman warming himself by a fire.", BRIEF_ENTITIES),
        (DETAILED_IDS, DETAILED_TEXT, DETAILED_ENTITIES),
    ],
    ids=["brief", "detailed"],
)
def test_published_ids_read_as_published_with_and_without_the_string_between(
    real_tokenizer: Tokenizer, ids: list[int], text: str, expected: list[object]
) -> None:
    for grounded in (
        read_symbols(real_tokenizer.symbols(ids), GRID, ()),
        read_leniently(real_tokenizer.decode(ids), GRID),
    ):
        assert (grounded.text, entities(grounded), grounded.malformed) == (text, expected, ())


@pytest.mark.parametrize("ids", [BRIEF_IDS, DETAILED_IDS], ids=["brief", "detailed"])
def test_training_ids_of_what_the_model_said_are_what_it_said(
    real_tokenizer: Tokenizer, ids: list[int]
) -> None:
    # From <grounding> to </s>, exclusive: what the released model emits is the training form.
    assert tokens(read_symbols(real_tokenizer.symbols(ids), GRID, ()), real_tokenizer) == ids[68:-1]


CAPTION = "a wire hanger with a paper cover that reads we heart our customers"
COVER_CROPPED = Box(0, 0.310540, 1, 0.960344)
HANGER_CROPPED = Box(0, 0.027634, 1, 0.969468)
COVER = Box(0.019644069503434333, 0.31054004033406574, 0.9622142865754519, 0.9603442351023356)
HANGER = Box(0.019422357885505368, 0.027634161214033764, 0.9593302408854166, 0.969467560450236)


@pytest.mark.parametrize(
    ("hanger", "cover", "locations"),
    [
        (HANGER_CROPPED, COVER_CROPPED, (0, 1023, 288, 991)),
        (HANGER, COVER, (0, 1022, 288, 990)),
    ],
    ids=["crop", "squash"],
)
def test_noun_chunks_of_the_published_record_become_the_ids_of_the_original_loader(
    real_tokenizer: Tokenizer, hanger: Box, cover: Box, locations: tuple[int, ...]
) -> None:
    grounded = GroundedText(
        text=CAPTION,
        phrases=(
            Phrase(start=19, end=32, boxes=(cover,)),
            Phrase(start=0, end=13, boxes=(hanger,)),
        ),
    )
    a, b, c, d = (64013 + cell for cell in locations)
    assert tokens(grounded, real_tokenizer) == [
        *(64007, 10, 6454, 31772, 64008, 64009, a, b, 64010, 23),
        *(64007, 10, 1287, 1285, 64008, 64009, c, d, 64010, 14, 6372, 46, 689, 84, 1158),
    ]


@pytest.mark.parametrize(("box", "cell"), [(HANGER_CROPPED, 1023), (HANGER, 1022)])
def test_the_whole_caption_as_one_expression_becomes_the_ids_of_the_original_loader(
    real_tokenizer: Tokenizer, box: Box, cell: int
) -> None:
    grounded = GroundedText(text=CAPTION, phrases=(Phrase(start=0, end=66, boxes=(box,)),))
    assert tokens(grounded, real_tokenizer) == [
        *(64007, 10, 6454, 31772, 23, 10, 1287, 1285, 14, 6372, 46, 689, 84, 1158, 64008),
        *(64009, 64013, 64013 + cell, 64010),
    ]


def test_punctuation_after_a_tag_differs_between_a_prompt_and_training(
    real_tokenizer: Tokenizer,
) -> None:
    # As in the original code: a prompt's pieces are tokenised on their own, so "." is "▁" ".".
    grounded = GroundedText(text="a hat.", phrases=(Phrase(start=0, end=5, boxes=(HANGER,)),))
    prompt = real_tokenizer.encode(segments(grounded, GRID), num_latents=0).ids
    assert prompt[-3:] == (64010, 106, 4)
    assert tokens(grounded, real_tokenizer)[-2:] == [64010, 4]


@st.composite
def clean_markup(draw: st.DrawFn) -> str:
    """Markup without angle brackets in its words, each phrase with a word and a box."""
    words = st.text(alphabet="ab. ,\n", max_size=6)
    parts = [draw(st.sampled_from(["", "<grounding>", "<grounding> "])), draw(words)]
    for _ in range(draw(st.integers(0, 3))):
        boxes = [draw(st.sampled_from([(44, 863), (5, 911), (7, 7), (7, 39)])) for _ in "ab"]
        cells = [f"<patch_index_{a:04d}><patch_index_{b:04d}>" for a, b in boxes]
        chosen = "</delimiter_of_multi_objects/>".join(cells[: draw(st.integers(1, 2))])
        blank, name = draw(st.sampled_from(["", " ", "  "])), draw(st.sampled_from(["x", "x y"]))
        parts.append(f"<phrase>{blank}{name}{blank}</phrase><object>{chosen}</object>{draw(words)}")
    return "".join(parts)


@given(clean_markup())
def test_well_formed_markup_reads_as_transformers_reads_it(markup: str) -> None:
    theirs = clean_text_and_extract_entities_with_bboxes(markup)  # type: ignore[no-untyped-call]
    ours = read(markup, GRID)
    assert (ours.text, entities(ours)) == theirs
