"""What may come next, where an answer must have a form: a box, a given caption, good markup.

A constraint reads the new tokens one by one into a state, and names the tokens that may follow it.
It keeps no state of its own, so one constraint serves any number of rows. Object groups are those
of `grounding.grammar` in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from kosmos2.errors import RequestError
from kosmos2.grounding.grammar import DISTANCE, Grammar, Ids, Place, State
from kosmos2.vocab.special import Tag, Vocabulary


@dataclass(frozen=True, slots=True)
class Gate:
    """A question that the model answers with a token or another: yes where P(yes) >= 1/2.

    The logprob of the answer is log P(yes) or log(1 - P(yes)), P over the whole vocabulary.
    """

    yes: int
    no: int


Allowed = Ids | Gate | None
"""The ids that may follow: None is any, () is none, as the form is complete."""

Opaque = Any
"""A state: immutable, hashable, and known to its own constraint alone."""


class Constraint(Protocol):
    @property
    def free_text(self) -> bool:
        """Return whether rules about repetition choose among what is allowed."""
        ...

    def start(self, prompt_ids: Sequence[int]) -> Opaque:
        """Return the state before the first new token."""
        ...

    def advance(self, state: Opaque, id: int) -> Opaque:
        """Return the state after one more token."""
        ...

    def allowed(self, state: Opaque, room: int) -> Allowed:
        """Return what may follow if at most `room` tokens, one or more, may still be written.

        The form is closed in time, if it can be: else it goes on along the shortest way to its end.
        """
        ...


class Free(Enum):
    """The type of `FREE`."""

    FREE = "free"


FREE = Free.FREE
"""In place of spans: the model decides where phrases open and close."""

GROUP = DISTANCE[Place.CLOSED]
"""The fewest tokens of an object group: a box between its tags."""
TAGS = 2 + GROUP
"""The fewest tokens that a phrase adds to its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarConstraint:
    """Any text whose markup is well formed; a prompt may end inside a phrase or an object group.

    Never start, padding, <unk>, <mask> or a tag that is no markup, such as those of a picture.
    """

    vocabulary: Vocabulary
    max_boxes: int = 16
    blanks: frozenset[int] = frozenset()
    """Pieces without a letter, of which alone no phrase is made; see `Tokenizer.blanks`."""
    grammar: Grammar = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grammar = Grammar(vocabulary=self.vocabulary, max_boxes=self.max_boxes, blanks=self.blanks)
        object.__setattr__(self, "grammar", grammar)

    @property
    def free_text(self) -> bool:
        return True

    def start(self, prompt_ids: Sequence[int]) -> State:
        """Return where the prompt ends."""
        return self.grammar.start(prompt_ids)

    def advance(self, state: State, id: int) -> State:
        """Return the state after one more token."""
        return self.grammar.advance(state, id)

    def allowed(self, state: State, room: int) -> Ids:
        """Return the ids that may follow; an end of text, outside of phrases alone."""
        return self.grammar.allowed(state, room)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxConstraint:
    """An object group and nothing else: `<object>` pair (delimiter pair)* `</object>`.

    Every pair is a box: its second cell is not above or left of its first.
    """

    vocabulary: Vocabulary
    max_boxes: int = 16
    allow_absent: bool = False
    """Ask the model first whether `<object>` comes; if not, the answer has no tokens."""
    grammar: Grammar = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        grammar = Grammar(vocabulary=self.vocabulary, max_boxes=self.max_boxes)
        object.__setattr__(self, "grammar", grammar)

    @property
    def free_text(self) -> bool:
        return False

    @property
    def longest(self) -> int:
        """Return the most tokens an answer can have."""
        return 1 + 3 * self.max_boxes

    def start(self, prompt_ids: Sequence[int]) -> State:
        """Return the place of `<object>`, whatever the prompt is."""
        return State(Place.CLOSED)

    def advance(self, state: State, id: int) -> State:
        """Return the state after one more token."""
        return self.grammar.advance(state, id)

    def allowed(self, state: State, room: int) -> Allowed:
        """Return the ids that may follow; none after `</object>`."""
        if state.place is Place.TEXT:
            return ()
        if state.place is Place.CLOSED and self.allow_absent:
            return Gate(yes=self.vocabulary.tag(Tag.OBJECT), no=self.vocabulary.eos)
        return self.grammar.allowed(state, room)


class Reached(NamedTuple):
    """How far a caption has come."""

    markup: State
    num_words: int


@dataclass(frozen=True, kw_only=True)
class CaptionConstraint:
    """A given caption, grounded: the model adds only phrase tags and boxes.

    With spans of caption tokens, these are the phrases. With `FREE`, the model opens and closes
    phrases of one token or more, never one inside another. Every phrase gets its object group.
    At each border the model's own probabilities decide between the tag and the next word.
    """

    caption_ids: tuple[int, ...]
    vocabulary: Vocabulary
    spans: tuple[tuple[int, int], ...] | Free = FREE
    """(start, stop) indices of caption_ids, in order, none empty, none overlapping."""
    borders: tuple[int, ...] | Free = FREE
    """With free spans: indices of the tokens before which a phrase may open or close.

    For instance all but those inside a word. The end of the caption always is a border.
    """
    max_boxes: int = 16
    """Most boxes of one phrase."""
    allow_absent: bool = False
    """With given spans: ask the model behind each phrase whether `<object>` comes.

    If not, the caption goes on, and this phrase has no boxes.
    """
    grammar: Grammar = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.caption_ids:
            raise RequestError("there is no caption to ground: caption_ids is empty")
        odd = [id for id in self.caption_ids if not self._is_word(id)]
        if odd:
            raise RequestError(f"caption_ids must be words, these are not: {odd}")
        grammar = Grammar(vocabulary=self.vocabulary, max_boxes=self.max_boxes)
        object.__setattr__(self, "grammar", grammar)
        if self.spans is not FREE:
            self._check_spans(self.spans)
        elif self.allow_absent:
            raise RequestError(
                "phrases can be absent only where they are given: name spans, or leave out "
                "allow_absent"
            )
        if self.borders is not FREE and not set(self.borders) <= set(range(len(self.caption_ids))):
            raise RequestError(
                f"borders must be indices of the {len(self.caption_ids)} tokens of the caption, "
                f"got {self.borders}"
            )

    def _check_spans(self, spans: Sequence[tuple[int, int]]) -> None:
        end = 0
        for start, stop in spans:
            if not end <= start < stop <= len(self.caption_ids):
                raise RequestError(
                    f"spans must be in order, not empty, not overlapping and within the "
                    f"{len(self.caption_ids)} tokens of the caption, got {tuple(spans)}"
                )
            end = stop

    @property
    def free_text(self) -> bool:
        return False

    @property
    def longest(self) -> int:
        """Return the most tokens an answer can have."""
        num_tokens = len(self.caption_ids)
        num_phrases = num_tokens if self.spans is FREE else len(self.spans)
        return num_tokens + num_phrases * (3 + 3 * self.max_boxes)

    @property
    def shortest(self) -> int:
        """Return the fewest tokens an answer with all its boxes can have."""
        return self._needed[0]

    def start(self, prompt_ids: Sequence[int]) -> Reached:
        """Return the beginning of the caption, whatever the prompt is."""
        return Reached(State(Place.TEXT), 0)

    def advance(self, state: Reached, id: int) -> Reached:
        """Return the state after one more token."""
        return Reached(self.grammar.advance(state.markup, id), state.num_words + self._is_word(id))

    def allowed(self, state: Reached, room: int) -> Allowed:
        """Return the ids that may follow; none after the whole caption."""
        (place, _, _), num_words = state
        match place:
            case Place.TEXT:
                return self._in_text(num_words, room)
            case Place.OPENED:
                return _one(self.caption_ids[num_words])
            case Place.PHRASE:
                return self._in_phrase(num_words)
            case Place.CLOSED if self.allow_absent:
                ((go_on, *_),) = self._in_text(num_words, room) or _one(self.vocabulary.eos)
                return Gate(yes=self.vocabulary.tag(Tag.OBJECT), no=go_on)
        return self.grammar.allowed(state.markup, room - self._needed[num_words])

    def _in_text(self, num_words: int, room: int) -> Ids:
        if num_words == len(self.caption_ids):
            return ()
        opening, word = _one(self.vocabulary.tag(Tag.PHRASE)), _one(self.caption_ids[num_words])
        if self.spans is not FREE:
            return opening if num_words in self._stops else word
        may_open = self._is_border(num_words) and room >= self._needed[num_words] + TAGS
        return word + opening if may_open else word

    def _in_phrase(self, num_words: int) -> Ids:
        closing = _one(self.vocabulary.tag(Tag.PHRASE_END))
        if num_words == len(self.caption_ids):
            return closing
        word = _one(self.caption_ids[num_words])
        if self.spans is not FREE:
            return closing if num_words in self._ends else word
        return word + closing if self._is_border(num_words) else word

    def _is_border(self, index: int) -> bool:
        return self._borders is FREE or index in self._borders

    @cached_property
    def _borders(self) -> frozenset[int] | Free:
        return FREE if self.borders is FREE else frozenset(self.borders)

    @cached_property
    def _stops(self) -> dict[int, int]:
        return {} if self.spans is FREE else dict(self.spans)

    @cached_property
    def _ends(self) -> frozenset[int]:
        return frozenset(self._stops.values())

    @cached_property
    def _needed(self) -> tuple[int, ...]:
        """Return the fewest tokens of what follows each number of words, outside of phrases."""
        costs = [1 + TAGS * (at in self._stops) for at in range(len(self.caption_ids))]
        return tuple(accumulate(reversed(costs), initial=0))[::-1]

    def _is_word(self, id: int) -> bool:
        return self.vocabulary.is_piece(id) or id == self.vocabulary.unk


def _one(id: int) -> Ids:
    return (range(id, id + 1),)
