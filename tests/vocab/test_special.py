"""The id map is that of the released model, and scales down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.errors import VocabularyError
from kosmos2.vocab.special import Tag, Vocabulary

RELEASED = Vocabulary(num_pieces=63_997)
VOCABULARIES = st.builds(Vocabulary, num_pieces=st.integers(1, 500), bins=st.integers(1, 9))


def test_ids_of_the_released_model() -> None:
    assert (RELEASED.bos, RELEASED.pad, RELEASED.eos, RELEASED.unk) == (0, 1, 2, 3)
    assert RELEASED.mask == 64001
    assert [(RELEASED.tag(tag), tag.value) for tag in Tag] == [
        (64002, "</doc>"),
        (64003, "<image>"),
        (64004, "</image>"),
        (64005, "</chunk>"),
        (64006, "</line>"),
        (64007, "<phrase>"),
        (64008, "</phrase>"),
        (64009, "<object>"),
        (64010, "</object>"),
        (64011, "</delimiter_of_multi_objects/>"),
        (64012, "<grounding>"),
    ]
    assert (RELEASED.first_location, RELEASED.location(1023), RELEASED.size) == (
        64013,
        65036,
        65037,
    )
    assert RELEASED.location_token(44) == "<patch_index_0044>"
    assert RELEASED.placeholders(64) == range(4, 68)


@given(VOCABULARIES)
def test_every_id_is_exactly_one_thing(vocabulary: Vocabulary) -> None:
    specials = dict(vocabulary.special_tokens())
    assert len(set(specials.values())) == len(specials)
    for id in range(vocabulary.size):
        tag, cell = vocabulary.tag_of(id), vocabulary.cell_of(id)
        assert vocabulary.is_piece(id) == (id not in specials)
        assert tag is None or cell is None
        if tag is not None:
            assert (vocabulary.tag(tag), str(tag)) == (id, specials[id])
        if cell is not None:
            assert vocabulary.location(cell) == id
            assert vocabulary.location_token(cell) == specials[id]
        if tag is None and cell is None:
            assert id <= vocabulary.mask


@given(VOCABULARIES, st.integers())
def test_ids_outside_are_nothing(vocabulary: Vocabulary, id: int) -> None:
    if not 0 <= id < vocabulary.size:
        assert vocabulary.tag_of(id) is None
        assert vocabulary.cell_of(id) is None
        assert not vocabulary.is_piece(id)


@pytest.mark.parametrize("cell", [-4, -1, 1024, 1030, 9999])
def test_cells_outside_the_grid_have_no_id(cell: int) -> None:
    with pytest.raises(VocabularyError, match=f"cell {cell} is outside the grid of 32x32"):
        RELEASED.location(cell)
    with pytest.raises(VocabularyError):
        RELEASED.location_token(cell)


def test_an_image_needs_no_more_places_than_there_are_pieces() -> None:
    small = Vocabulary(num_pieces=10, bins=2)
    assert list(small.placeholders(10)) == list(range(4, 14))
    with pytest.raises(VocabularyError, match="64 latents"):
        small.placeholders(64)


@pytest.mark.parametrize(("num_pieces", "bins"), [(0, 32), (10, 0), (-1, 32)])
def test_an_empty_vocabulary_is_refused(num_pieces: int, bins: int) -> None:
    with pytest.raises(VocabularyError, match="at least one piece and one bin"):
        Vocabulary(num_pieces=num_pieces, bins=bins)
