"""The markup as a finite automaton: what may follow, and how far it is to a well-formed end.

    place       what may follow                        tokens to the end of the form
    TEXT        </s>, words, <phrase>                  0; a text may end here alone
    OPENED      words                                  6
    PHRASE      words, </phrase>                       5
    CLOSED      <object>                               4
    PAIR        a cell                                 3
    CORNER      a cell, not above or left of the first 2
    BOX         </object>, or the delimiter            1
    END         nothing                                0

So a phrase has words, has no phrase inside, and is followed by its object group; a group has boxes.
Whatever is made of allowed tokens is read by `markup.read` without a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from kosmos2.errors import RequestError
from kosmos2.vocab.special import FIRST_PIECE, Tag, Vocabulary

Ids = tuple[range, ...]
"""A set of ids: ranges that rise and do not overlap."""


class Kind(StrEnum):
    """The tokens as the automaton tells them apart, by rising ids."""

    END = "end of text"
    WORD = "word"
    BLANK = "blank"
    """A piece without a letter: a phrase of blanks alone would be empty."""
    PHRASE = "<phrase>"
    PHRASE_END = "</phrase>"
    OBJECT = "<object>"
    OBJECT_END = "</object>"
    DELIMITER = "delimiter"
    CELL = "cell"
    OTHER = "other"
    """Start, padding and the tags that have no meaning inside a text; never allowed."""


class Place(StrEnum):
    """Where a text is; see the table above."""

    TEXT = "text"
    OPENED = "opened"
    PHRASE = "phrase"
    CLOSED = "closed"
    PAIR = "pair"
    CORNER = "corner"
    BOX = "box"
    END = "end"


class State(NamedTuple):
    place: Place
    num_boxes: int = 0
    """Of the object group that is open."""
    cell: int = 0
    """At a CORNER: the first cell of the pair."""


DISTANCE: Mapping[Place, int] = {
    Place.TEXT: 0,
    Place.OPENED: 6,
    Place.PHRASE: 5,
    Place.CLOSED: 4,
    Place.PAIR: 3,
    Place.CORNER: 2,
    Place.BOX: 1,
    Place.END: 0,
}
"""The fewest tokens after which a text may end."""
AMPLE = max(DISTANCE.values()) + 1
"""More room than this forbids nothing more."""

_FOLLOWING: Mapping[Place, Mapping[Kind, Place]] = {
    Place.TEXT: {
        Kind.END: Place.END,
        Kind.WORD: Place.TEXT,
        Kind.BLANK: Place.TEXT,
        Kind.PHRASE: Place.OPENED,
    },
    Place.OPENED: {Kind.WORD: Place.PHRASE, Kind.BLANK: Place.OPENED},
    Place.PHRASE: {
        Kind.WORD: Place.PHRASE,
        Kind.BLANK: Place.PHRASE,
        Kind.PHRASE_END: Place.CLOSED,
    },
    Place.CLOSED: {Kind.OBJECT: Place.PAIR},
    Place.PAIR: {Kind.CELL: Place.CORNER},
    Place.CORNER: {Kind.CELL: Place.BOX},
    Place.BOX: {Kind.OBJECT_END: Place.TEXT, Kind.DELIMITER: Place.PAIR},
    Place.END: {},
}

# A prompt is what a user makes it. After a token that may not follow, the text is where the reader
# (`grounding.reader`) believes it to be; a token that is not named here changes nothing.
_ANYWHERE = {Kind.PHRASE: Place.OPENED, Kind.OBJECT: Place.PAIR}
_IN_GROUP = {
    **_ANYWHERE,
    Kind.WORD: Place.TEXT,
    Kind.PHRASE_END: Place.TEXT,
    Kind.OBJECT_END: Place.TEXT,
}
_REPAIRED: Mapping[Place, Mapping[Kind, Place]] = {
    Place.TEXT: _ANYWHERE,
    Place.OPENED: {**_ANYWHERE, Kind.PHRASE_END: Place.CLOSED},
    Place.PHRASE: _ANYWHERE,
    Place.CLOSED: {**_ANYWHERE, Kind.WORD: Place.TEXT, Kind.END: Place.END},
    Place.PAIR: _IN_GROUP,
    Place.CORNER: {**_IN_GROUP, Kind.DELIMITER: Place.PAIR},
    Place.BOX: {**_IN_GROUP, Kind.CELL: Place.CORNER},
    Place.END: {},
}
_NEXT = {place: {**_REPAIRED[place], **_FOLLOWING[place]} for place in Place}
_PLAIN = {place: State(place) for place in Place}


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """The automaton over the ids of a vocabulary."""

    vocabulary: Vocabulary
    max_boxes: int
    """Most boxes of one object group."""
    blanks: frozenset[int] = frozenset()
    """Pieces without a letter; see `Tokenizer.blanks`."""

    def __post_init__(self) -> None:
        if self.max_boxes < 1:
            raise RequestError(f"max_boxes must be at least 1, got {self.max_boxes}")

    def start(self, prompt_ids: Sequence[int]) -> State:
        """Return where a prompt ends; what stands before its last picture does not matter."""
        state = _PLAIN[Place.TEXT]
        for id in prompt_ids[self._behind_last_picture(prompt_ids) :]:
            if id != self.vocabulary.eos:
                state = self.advance(state, id)
        return state

    def advance(self, state: State, id: int) -> State:
        """Return the state after one more token, whether or not it was allowed."""
        kind = self.kind(id)
        place = _NEXT[state.place].get(kind)
        if place is None:
            return state
        if place is Place.CORNER:
            return State(place, state.num_boxes, id - self._first_location)
        if place is Place.BOX:
            return State(place, state.num_boxes + 1)
        if place is Place.PAIR and kind is not Kind.OBJECT:
            return State(place, state.num_boxes)
        return _PLAIN[place]

    def distance(self, state: State) -> int:
        """Return the fewest tokens after which the text may end."""
        return DISTANCE[state.place]

    def allowed(self, state: State, room: int) -> Ids:
        """Return the ids after which a well-formed end still is in reach, of `room` tokens more.

        Where none is, the shortest way there. An end of text needs no room.
        """
        if state.place is Place.CORNER:
            return self._not_above_or_left_of(state.cell)
        # A group that is full goes on as one that has no room for more.
        room = 1 if state.num_boxes >= self.max_boxes else max(1, min(room, AMPLE))
        return self._allowed[state.place, room]

    def kind(self, id: int) -> Kind:
        """Return what a token is to the automaton."""
        if id >= self._first_location:
            return Kind.CELL
        if id in self.blanks:
            return Kind.BLANK
        # Both readers spell <unk> and <mask> out.
        is_word = self.vocabulary.unk <= id <= self._mask
        return Kind.WORD if is_word else self._marks.get(id, Kind.OTHER)

    def _not_above_or_left_of(self, cell: int) -> Ids:
        first, bins = self._first_location, self.vocabulary.bins
        column = cell % bins
        rows = range(first + cell - column, first + bins * bins, bins)
        return tuple([range(row + column, row + bins) for row in rows])

    def _behind_last_picture(self, ids: Sequence[int]) -> int:
        """Return where the text begins; as in the reader, a stray `</image>` ends no picture."""
        opening, closing = self.vocabulary.tag(Tag.IMAGE), self.vocabulary.tag(Tag.IMAGE_END)
        for at in range(len(ids) - 1, -1, -1):
            if ids[at] == closing:
                return at + 1 if opening in ids[:at] else 0
        return 0

    @cached_property
    def _allowed(self) -> Mapping[tuple[Place, int], Ids]:
        """Return what is allowed at each place but a corner, for each room that differs."""
        rooms = range(1, AMPLE + 1)
        return {(place, room): self._reaching(place, room) for place in Place for room in rooms}

    def _reaching(self, place: Place, room: int) -> Ids:
        following = _FOLLOWING[place]
        nearest = min((DISTANCE[after] for after in following.values()), default=0)
        reach = max(room - 1, nearest)
        kinds = [kind for kind, after in following.items() if DISTANCE[after] <= reach]
        ids = [self._ids[kind] for kind in kinds if kind in self._ids]
        if Kind.WORD in kinds:
            ids += self._pieces if Kind.BLANK in kinds else self._words
        return tuple(sorted(ids, key=lambda run: run.start))

    @cached_property
    def _first_location(self) -> int:
        return self.vocabulary.first_location

    @cached_property
    def _mask(self) -> int:
        return self.vocabulary.mask

    @cached_property
    def _ids(self) -> Mapping[Kind, range]:
        """Return the ids of the kinds that have one range; words and blanks lie mixed."""
        cells = range(self.vocabulary.first_location, self.vocabulary.size)
        return {kind: range(id, id + 1) for id, kind in self._marks.items()} | {Kind.CELL: cells}

    @cached_property
    def _marks(self) -> Mapping[int, Kind]:
        tag = self.vocabulary.tag
        return {
            self.vocabulary.eos: Kind.END,
            tag(Tag.PHRASE): Kind.PHRASE,
            tag(Tag.PHRASE_END): Kind.PHRASE_END,
            tag(Tag.OBJECT): Kind.OBJECT,
            tag(Tag.OBJECT_END): Kind.OBJECT_END,
            tag(Tag.DELIMITER): Kind.DELIMITER,
        }

    @cached_property
    def _pieces(self) -> Ids:
        return (range(FIRST_PIECE, self.vocabulary.mask),)

    @cached_property
    def _words(self) -> Ids:
        """Return the pieces without the blanks."""
        borders = [FIRST_PIECE - 1, *sorted(self.blanks), self.vocabulary.mask]
        runs = (range(start + 1, stop) for start, stop in pairwise(borders))
        return tuple(run for run in runs if run)
