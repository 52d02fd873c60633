"""The automaton against the reader: what it allows is read without a fault, however it is walked.

An allowed id drawn at random is the choice of random logits under the constraint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos2.errors import RequestError
from kosmos2.grounding.grammar import AMPLE, DISTANCE, Grammar, Ids, Kind, Place, State
from kosmos2.grounding.markup import read, read_symbols
from kosmos2.grounding.reader import Event, MarkupReader
from kosmos2.vocab.pieces import PieceTable
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

PIECES = ("▁", "▁a", "cat", "▁cat", ",", "s", "▁<", ">", "é", "<b>")
TABLE = PieceTable(
    pieces=tuple((piece, -1.0) for piece in PIECES), normalizer=None, pre_tokenizer=None
)
TOKENIZER = Tokenizer(TABLE, bins=4)
VOCABULARY, GRID = TOKENIZER.vocabulary, TOKENIZER.grid
BINS, LOCATIONS = VOCABULARY.bins, range(VOCABULARY.first_location, VOCABULARY.size)
MAX_BOXES = 3
GRAMMAR = Grammar(vocabulary=VOCABULARY, max_boxes=MAX_BOXES, blanks=TOKENIZER.blanks)

PHRASE, PHRASE_END = VOCABULARY.tag(Tag.PHRASE), VOCABULARY.tag(Tag.PHRASE_END)
OBJECT, OBJECT_END = VOCABULARY.tag(Tag.OBJECT), VOCABULARY.tag(Tag.OBJECT_END)
DELIMITER, EOS = VOCABULARY.tag(Tag.DELIMITER), VOCABULARY.eos
IMAGE, IMAGE_END = VOCABULARY.tag(Tag.IMAGE), VOCABULARY.tag(Tag.IMAGE_END)
(BLANK,) = TOKENIZER.blanks
WORD = VOCABULARY.placeholders(len(PIECES))[PIECES.index("cat")]
A, B = LOCATIONS[1], LOCATIONS[6]

OPENINGS = {
    Place.TEXT: (VOCABULARY.bos, VOCABULARY.tag(Tag.GROUNDING), WORD),
    Place.OPENED: (WORD, PHRASE, BLANK),
    Place.PHRASE: (PHRASE, WORD),
    Place.CLOSED: (PHRASE, WORD, PHRASE_END),
    Place.PAIR: (PHRASE, WORD, PHRASE_END, OBJECT, A, B, DELIMITER),
    Place.CORNER: (PHRASE, WORD, PHRASE_END, OBJECT, A),
    Place.BOX: (PHRASE, WORD, PHRASE_END, OBJECT, A, B, DELIMITER, A, B),
}
"""A well-formed prompt that ends at each place."""
NO_PICTURE = st.one_of(
    st.sampled_from([WORD, BLANK, PHRASE, PHRASE_END, OBJECT, OBJECT_END, DELIMITER, A, B]),
    st.integers(0, VOCABULARY.size - 1).filter(lambda id: id not in (IMAGE, IMAGE_END)),
)


def drawn(allowed: Ids, rng: random.Random) -> int:
    """Return any of the ids; half of the time tags are as frequent as all words together."""
    if rng.random() < 0.5:
        return rng.choice(rng.choice(allowed))
    place = rng.randrange(sum(map(len, allowed)))
    for run in allowed:
        if place < len(run):
            return run[place]
        place -= len(run)
    raise AssertionError


def walk(prompt: Sequence[int], room: int, rng: random.Random) -> list[int]:
    """Return what random logits write behind a prompt, without the end of text."""
    state, ids = GRAMMAR.start(prompt), []
    while len(ids) < room and (allowed := GRAMMAR.allowed(state, room - len(ids))):
        id = drawn(allowed, rng)
        if id == EOS:
            break
        state = GRAMMAR.advance(state, id)
        ids.append(id)
    return ids


def faults(ids: Sequence[int]) -> list[str]:
    malformed = read_symbols(TOKENIZER.symbols(ids), GRID, ()).malformed
    return [fault.reason for fault in malformed]


@pytest.mark.parametrize("place", OPENINGS)
def test_a_million_random_steps_are_read_without_a_fault(place: Place) -> None:
    rng = random.Random(f"seed {place}")
    prompt, num_steps, num_texts = OPENINGS[place], 0, 0
    while num_steps < 1_000_000 // len(OPENINGS):
        room = rng.randrange(GRAMMAR.distance(GRAMMAR.start(prompt)), 200) or 1
        ids = [*prompt, *walk(prompt, room, rng)]
        assert len(ids) <= len(prompt) + room
        assert not faults(ids)
        if num_texts % 10 == 0:
            read(TOKENIZER.decode(ids), GRID)
        num_texts += 1
        num_steps += max(1, len(ids) - len(prompt))
    assert num_texts > 1000


@pytest.mark.parametrize("place", OPENINGS)
def test_every_room_that_can_be_enough_is_enough(place: Place) -> None:
    rng, prompt = random.Random(0), OPENINGS[place]
    for room in range(max(1, DISTANCE[place]), 40):
        for _ in range(40):
            assert not faults([*prompt, *walk(prompt, room, rng)])


@pytest.mark.parametrize("place", OPENINGS)
@pytest.mark.parametrize("room", range(1, AMPLE))
def test_where_room_is_short_the_nearest_end_is_taken(place: Place, room: int) -> None:
    if room > DISTANCE[place]:
        return
    rng, state = random.Random(0), GRAMMAR.start(OPENINGS[place])
    for left in range(room, room - DISTANCE[place], -1):
        before = GRAMMAR.distance(state)
        state = GRAMMAR.advance(state, drawn(GRAMMAR.allowed(state, left), rng))
        assert GRAMMAR.distance(state) == before - 1


def test_the_distance_is_that_of_a_search() -> None:
    for place, prompt in OPENINGS.items():
        states, steps = {GRAMMAR.start(prompt)}, 0
        assert {state.place for state in states} == {place}
        while not any(EOS in run for state in states for run in GRAMMAR.allowed(state, 1000)):
            states = {
                GRAMMAR.advance(state, id)
                for state in states
                for run in GRAMMAR.allowed(state, 1000)
                for id in run
            }
            steps += 1
        assert steps == DISTANCE[place]


SMALL = (WORD, PHRASE, PHRASE_END, OBJECT, OBJECT_END, DELIMITER, A, B)
BEGUN = ((), (PHRASE, WORD), (WORD, PHRASE, WORD, PHRASE_END, OBJECT, A))


@pytest.mark.parametrize("begun", BEGUN)
def test_all_that_the_reader_takes_and_only_that_is_allowed(begun: Sequence[int]) -> None:
    right = 0
    for length in range(6):
        for ids in product(SMALL, repeat=length):
            whole = (*begun, *ids)
            # Boxes without words the reader takes, too: prompts may have them, answers may not.
            lone = any(
                id == OBJECT and behind != PHRASE_END for behind, id in pairwise((0, *whole))
            )
            expected = not lone and not faults(whole)
            assert is_accepted(whole) == expected, whole
            right += expected
    assert right >= 3


def is_accepted(ids: Sequence[int]) -> bool:
    state = State(Place.TEXT)
    for id in ids:
        if not any(id in run for run in GRAMMAR.allowed(state, 1000)):
            return False
        state = GRAMMAR.advance(state, id)
    return state.place is Place.TEXT


@settings(max_examples=500)
@given(st.lists(NO_PICTURE, max_size=20), st.integers(6, 30), st.randoms(use_true_random=False))
def test_whatever_the_prompt_is_nothing_more_is_wrong_behind_it(
    prompt: list[int], room: int, rng: random.Random
) -> None:
    reader = MarkupReader(GRID)
    for symbol in TOKENIZER.symbols(prompt):
        reader.feed(Event(value=symbol.value, place="in the prompt"))
    num_faults = len(reader._malformed)
    for symbol in TOKENIZER.symbols(walk(prompt, room, rng)):
        reader.feed(Event(value=symbol.value, place="in the answer"))
    new = [fault.reason for fault in reader.finish().malformed[num_faults:]]
    # A phrase that the prompt left empty is told of when its boxes come.
    assert not new or (new == ["empty_phrase"] and GRAMMAR.start(prompt).place is Place.CLOSED)


@given(
    st.lists(NO_PICTURE | st.sampled_from([IMAGE, IMAGE_END]), max_size=9),
    st.lists(NO_PICTURE, max_size=9),
)
def test_only_what_stands_behind_the_last_picture_counts(
    before: list[int], behind: list[int]
) -> None:
    assert GRAMMAR.start([*before, IMAGE, WORD, IMAGE_END, *behind]) == GRAMMAR.start(behind)


def test_a_stray_end_of_a_picture_ends_nothing() -> None:
    assert GRAMMAR.start([PHRASE, WORD, IMAGE_END]) == State(Place.PHRASE)


def test_every_id_is_of_one_kind_and_others_are_never_allowed() -> None:
    states = {GRAMMAR.start(prompt) for prompt in OPENINGS.values()} | {State(Place.END)}
    allowed = {
        id
        for state in states
        for room in range(1, 20)
        for run in GRAMMAR.allowed(state, room)
        for id in run
    }
    others = {VOCABULARY.bos, VOCABULARY.pad, VOCABULARY.unk, VOCABULARY.mask}
    others |= {VOCABULARY.tag(tag) for tag in Tag} - {
        PHRASE,
        PHRASE_END,
        OBJECT,
        OBJECT_END,
        DELIMITER,
    }
    assert allowed | others == set(range(VOCABULARY.size)) and not allowed & others
    assert {GRAMMAR.kind(id) for id in allowed} == set(Kind) - {Kind.OTHER}


def test_ids_rise_and_do_not_overlap() -> None:
    corners = {State(Place.CORNER, 0, cell) for cell in range(len(LOCATIONS))}
    for state in corners | {GRAMMAR.start(prompt) for prompt in OPENINGS.values()}:
        for room in range(1, 20):
            runs = GRAMMAR.allowed(state, room)
            assert runs and all(runs)
            assert all(one.stop <= other.start for one, other in pairwise(runs))


@pytest.mark.parametrize("cell", range(BINS * BINS))
def test_a_second_cell_is_not_above_or_left_of_the_first(cell: int) -> None:
    allowed = GRAMMAR.allowed(State(Place.CORNER, 0, cell), 9)
    row, column = divmod(cell, BINS)
    expected = [
        VOCABULARY.location(other)
        for other in range(BINS * BINS)
        if other // BINS >= row and other % BINS >= column
    ]
    assert [id for run in allowed for id in run] == expected


def test_a_group_has_at_most_so_many_boxes() -> None:
    state = GRAMMAR.start([OBJECT])
    for num_boxes in range(1, MAX_BOXES + 1):
        state = GRAMMAR.advance(GRAMMAR.advance(state, A), B)
        assert state == State(Place.BOX, num_boxes)
        ids = [id for run in GRAMMAR.allowed(state, 99) for id in run]
        assert ids == [OBJECT_END, DELIMITER][: 1 + (num_boxes < MAX_BOXES)]
        state = GRAMMAR.advance(state, DELIMITER)


def test_a_phrase_of_blanks_is_no_phrase_yet() -> None:
    blank = GRAMMAR.start([PHRASE, BLANK, BLANK])
    assert blank == State(Place.OPENED)
    assert faults([PHRASE, BLANK, PHRASE_END, OBJECT, A, B, OBJECT_END]) == ["empty_phrase"]
    # With room for one word, it is none of the blanks.
    assert not any(BLANK in run for run in GRAMMAR.allowed(blank, DISTANCE[Place.OPENED]))
    assert any(BLANK in run for run in GRAMMAR.allowed(blank, DISTANCE[Place.OPENED] + 1))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ([OBJECT, A, B, A], State(Place.CORNER, 1, VOCABULARY.cell_of(A) or 0)),
        ([OBJECT, A, DELIMITER], State(Place.PAIR)),
        ([OBJECT, A, B, WORD], State(Place.TEXT)),
        ([PHRASE, VOCABULARY.unk], State(Place.PHRASE)),
        ([PHRASE, VOCABULARY.mask], State(Place.PHRASE)),
        ([OBJECT, A, PHRASE_END], State(Place.TEXT)),
        ([PHRASE, PHRASE_END], State(Place.CLOSED)),
        ([PHRASE, WORD, PHRASE_END, EOS], State(Place.CLOSED)),
        ([PHRASE, WORD, PHRASE_END, BLANK], State(Place.CLOSED)),
        ([PHRASE, WORD, PHRASE_END, WORD], State(Place.TEXT)),
    ],
)
def test_a_prompt_that_is_not_well_formed_ends_where_the_reader_believes_it_to_be(
    prompt: list[int], expected: State
) -> None:
    assert GRAMMAR.start(prompt) == expected


def test_states_are_values() -> None:
    prompt = OPENINGS[Place.CORNER]
    assert len({GRAMMAR.start(prompt), GRAMMAR.start([WORD, *prompt])}) == 1


def test_a_group_of_no_boxes_is_refused() -> None:
    with pytest.raises(RequestError, match="at least 1, got 0"):
        Grammar(vocabulary=VOCABULARY, max_boxes=0)
