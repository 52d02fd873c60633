"""Prompts as ids and back: the published cases, and no way for a text to become control."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, Kosmos2Processor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from kosmos2.errors import VocabularyError
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import (
    Cell,
    ImageSlot,
    Segment,
    Symbol,
    Tokenizer,
    parse_markup_string,
    train_tokenizer,
)

IMAGE_IDS = (64003, *range(4, 68), 64004)

# The cases of the transformers test-suite: three texts, boxes for their phrases, six answers.
T0 = "<grounding> Two puppies sit in a field of grass."
T1 = "<grounding> <phrase> Two puppies </phrase> sit in a field of grass."
T2 = "<grounding> <phrase> Two puppies </phrase> sit in a field of <phrase> grass </phrase>."
T3 = (
    "<grounding> <phrase> Two puppies </phrase> <object> <patch_index_0079> <patch_index_1016> "
    "</delimiter_of_multi_objects/> <patch_index_0135> <patch_index_1008> </object> sit in a field "
    "of <phrase> grass </phrase>."
)
FIELD = (1357, 12, 10, 770, 9)
PUPPIES = (64007, 1264, 17772, 64008)
ONE_BOX = (64009, 64092, 65029, 64010)
TWO_BOXES = (64009, 64092, 65029, 64011, 64148, 65021, 64010)
E0 = (0, 64012, 1264, 17772, *FIELD, 4464, 4, 2)
E1 = (0, 64012, *PUPPIES, *FIELD, 4464, 4, 2)
E2 = (0, 64012, *PUPPIES, *ONE_BOX, *FIELD, 4464, 4, 2)
E3 = (0, 64012, *PUPPIES, *TWO_BOXES, *FIELD, 4464, 4, 2)
E4 = (0, 64012, *PUPPIES, *TWO_BOXES, *FIELD, 64007, 4464, 64008, 106, 4, 2)
GRASS = (64007, 4464, 64008, 64009, 64493, 65036, 64010)
E5 = (0, 64012, *PUPPIES, *TWO_BOXES, *FIELD, *GRASS, 106, 4, 2)

Pair = tuple[int, int]
BOTH = [(79, 1016), (135, 1008)]
PROCESSOR_CASES: list[tuple[str, list[Pair | list[Pair] | None] | None, tuple[int, ...]]] = [
    (T0, None, E0),
    (T0, [], E0),
    (T1, [None], E1),
    (T1, [[]], E1),
    (T1, [(79, 1016)], E2),
    (T1, [[(79, 1016)]], E2),
    (T1, [list(BOTH)], E3),
    (T2, [list(BOTH), None], E4),
    (T2, [list(BOTH), []], E4),
    (T2, [list(BOTH), (480, 1023)], E5),
    (T2, [list(BOTH), [(480, 1023)]], E5),
    (T3, [None, [(480, 1023)]], E5),
]


def with_boxes(text: str, boxes: list[Pair | list[Pair] | None] | None) -> str:
    """Write boxes behind their phrases, as the processor of transformers does."""
    parts = text.split("</phrase>")
    written = [parts[0]]
    for part, entry in itertools.zip_longest(parts[1:], boxes or []):
        pairs = [entry] if isinstance(entry, tuple) else entry or []
        tokens = "</delimiter_of_multi_objects/>".join(
            f"<patch_index_{a:04d}><patch_index_{b:04d}>" for a, b in pairs
        )
        written.append("</phrase>" + (f"<object>{tokens}</object>" if pairs else "") + (part or ""))
    return "".join(written)


def ids_of(tokenizer: Tokenizer, markup: str) -> tuple[int, ...]:
    return tokenizer.encode(parse_markup_string(markup), num_latents=64).ids


@pytest.mark.parametrize(("text", "boxes", "expected"), PROCESSOR_CASES)
def test_ids_of_the_transformers_suite(
    real_tokenizer: Tokenizer,
    text: str,
    boxes: list[Pair | list[Pair] | None] | None,
    expected: tuple[int, ...],
) -> None:
    markup = with_boxes(text, boxes) if boxes else text
    assert (*ids_of(real_tokenizer, markup), 2) == expected

    with_image = real_tokenizer.encode((ImageSlot(), *parse_markup_string(markup)), num_latents=64)
    assert (*with_image.ids, 2) == (0, *IMAGE_IDS, *expected[1:])
    rest = len(expected) - 2
    assert with_image.image_mask == (False, False, *[True] * 64, False, *[False] * rest)


def test_the_processor_of_transformers_works_on_our_file(
    real_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    real_tokenizer.save(tmp_path)
    processor = Kosmos2Processor(CLIPImageProcessorPil(), AutoTokenizer.from_pretrained(tmp_path))
    for text, boxes, expected in PROCESSOR_CASES:
        theirs = processor(text=text, bboxes=boxes, add_eos_token=True).input_ids
        assert tuple(theirs) == expected


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<grounding>An image of", (64012, 712, 1648, 9)),
        ("<grounding> An image of", (64012, 712, 1648, 9)),
        (
            "<grounding>Describe this image in detail:",
            (64012, 34645, 247, 38, 1648, 12, 3391, 55),
        ),
        (
            "<grounding><phrase>a snowman next to a fire</phrase>",
            (64012, 64007, 10, 43867, 197, 7, 10, 646, 64008),
        ),
        (
            "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863>"
            "</object> is",
            (64012, 64007, 67, 64008, 64009, 64057, 64876, 64010, 17),
        ),
        ("Answer:", (20032, 55)),
        ("<phrase> a snowman</phrase>", (64007, 10, 43867, 64008)),
        ("<phrase>a snowman</phrase>", (64007, 10, 43867, 64008)),
        ("</phrase>.", (64008, 106, 4)),
    ],
)
def test_ids_of_the_published_prompts(
    real_tokenizer: Tokenizer, markup: str, expected: tuple[int, ...]
) -> None:
    assert ids_of(real_tokenizer, markup) == (0, *expected)


def test_the_published_caption_is_read_back(real_tokenizer: Tokenizer) -> None:
    ids = [
        *(0, *IMAGE_IDS, 64012, 712, 1648, 9, 64007, 10, 43867, 64008, 64009, 64057, 64876, 64010),
        *(5950, 597, 32, 64007, 10, 646, 64008, 64009, 64018, 64924, 64010, 4, 2),
    ]
    assert real_tokenizer.decode(ids).split("</image>")[-1] == (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
        "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
        "<patch_index_0005><patch_index_0911></object>."
    )


@pytest.mark.parametrize(
    "literal",
    ["<s>", "</s>", "<unk>", "<pad>", "<mask>", "<patch_index_0001>", *map(str, Tag)],
)
def test_control_words_in_a_text_are_text(
    real_tokenizer: Tokenizer, tiny_tokenizer: Tokenizer, literal: str
) -> None:
    for tokenizer in (real_tokenizer, tiny_tokenizer):
        for text in (literal, f"a{literal}b", f"look: {literal} {literal}."):
            ids = tokenizer.encode((text,), num_latents=64).ids[1:]
            assert all(tokenizer.vocabulary.is_piece(id) for id in ids)
            assert tokenizer.decode(ids) == text


TINY = train_tokenizer(["a red dog, an old cat: where?"] * 3, num_pieces=120, bins=4)
SEGMENTS = st.lists(
    st.one_of(
        st.text(), st.sampled_from(Tag), st.builds(Cell, st.integers(0, 15)), st.just(ImageSlot())
    ),
    max_size=8,
)


@given(SEGMENTS)
def test_a_prompt_is_the_sum_of_its_segments(segments: list[Segment]) -> None:
    whole = TINY.encode(segments, num_latents=3)
    parts = [TINY.encode((segment,), num_latents=3) for segment in segments]
    assert whole.ids == (0, *(id for part in parts for id in part.ids[1:]))
    assert whole.image_mask == (
        False,
        *(masked for part in parts for masked in part.image_mask[1:]),
    )


@given(SEGMENTS)
def test_only_segments_of_control_become_control(segments: list[Segment]) -> None:
    encoded = TINY.encode(segments, num_latents=3)
    images = sum(isinstance(segment, ImageSlot) for segment in segments)
    assert encoded.ids.count(TINY.vocabulary.bos) == 1
    assert TINY.vocabulary.eos not in encoded.ids
    assert sum(encoded.image_mask) == 3 * images
    placeholders = [id for id, held in zip(encoded.ids, encoded.image_mask, strict=True) if held]
    assert placeholders == [4, 5, 6] * images

    control = [symbol.value for symbol in TINY.symbols(encoded.ids) if is_control(symbol)]
    expected: list[Segment] = []
    for segment in segments:
        if isinstance(segment, ImageSlot):
            expected.extend([Tag.IMAGE, Tag.IMAGE_END])
        elif isinstance(segment, Tag | Cell):
            expected.append(segment)
    assert control == expected


def is_control(symbol: Symbol) -> bool:
    return isinstance(symbol.value, Tag | Cell)


@given(st.lists(st.integers(0, TINY.vocabulary.size - 1)))
def test_symbols_cover_every_id_but_begin_end_and_padding(ids: list[int]) -> None:
    symbols = TINY.symbols(ids)
    silent = {TINY.vocabulary.bos, TINY.vocabulary.pad, TINY.vocabulary.eos}
    covered = [position for symbol in symbols for position in range(symbol.start, symbol.stop)]
    assert covered == [position for position, id in enumerate(ids) if id not in silent]
    assert all(symbol.stop - symbol.start == 1 for symbol in symbols if is_control(symbol))
    for before, after in itertools.pairwise(symbols):
        assert is_control(before) or is_control(after) or before.stop < after.start


@given(st.lists(st.integers(0, TINY.vocabulary.size - 1)))
def test_decoding_joins_the_symbols(ids: list[int]) -> None:
    words = [
        TINY.vocabulary.location_token(symbol.value.index)
        if isinstance(symbol.value, Cell)
        else symbol.value
        for symbol in TINY.symbols(ids)
    ]
    assert TINY.decode(ids) == "".join(words).strip(" ")


def test_symbols_keep_the_space_before_a_word(real_tokenizer: Tokenizer) -> None:
    ids = [2, 712, 1648, 9, 64007, 10, 43867, 64008, 4, 3, 1]
    assert real_tokenizer.symbols(ids) == (
        Symbol(" An image of", 1, 4),
        Symbol(Tag.PHRASE, 4, 5),
        Symbol(" a snowman", 5, 7),
        Symbol(Tag.PHRASE_END, 7, 8),
        Symbol(".<unk>", 8, 10),
    )


def test_a_run_of_pieces_is_blank_if_each_of_them_is(real_tokenizer: Tokenizer) -> None:
    for tokenizer in (TINY, real_tokenizer):
        pieces = range(4, min(tokenizer.vocabulary.mask, 2000))
        blank = {id for id in pieces if not tokenizer.decode([id]).strip()}
        assert blank == set(tokenizer.blanks) & set(pieces)
        assert not tokenizer.decode([*tokenizer.blanks] * 2).strip()
        assert blank


def test_no_ids_say_nothing() -> None:
    assert TINY.symbols([]) == ()
    assert TINY.decode([]) == TINY.decode([0, 1, 2]) == ""


def test_unknown_characters_become_one_unknown_piece() -> None:
    blank = TINY.encode_text("a")[0]
    ids = TINY.encode_text("中文字")
    assert (len(ids), ids[-1]) == (2, TINY.vocabulary.unk)
    assert TINY.decode([blank, TINY.vocabulary.unk]) == "a<unk>"


@pytest.mark.parametrize("id", [-1, TINY.vocabulary.size, 10**9])
def test_ids_outside_the_vocabulary_are_refused(id: int) -> None:
    with pytest.raises(VocabularyError, match=f"token id {id} is outside"):
        TINY.decode([4, id])


def test_cells_outside_the_grid_are_refused() -> None:
    with pytest.raises(VocabularyError, match="cell 16 is outside the grid of 4x4"):
        TINY.encode((Cell(16),), num_latents=3)


def test_an_image_of_more_latents_than_pieces_is_refused() -> None:
    with pytest.raises(VocabularyError, match="1000 latents"):
        TINY.encode((ImageSlot(),), num_latents=1000)
