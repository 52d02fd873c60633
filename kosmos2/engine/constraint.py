"""What may come next, where an answer must have a form: a box, or a caption that is given.

A constraint sees the new tokens so far and names the tokens that may follow. It keeps no state of
its own, so one constraint serves any number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from kosmos2.errors import RequestError
from kosmos2.vocab.special import Tag, Vocabulary


class Constraint(Protocol):
    def allowed(self, generated: Sequence[int]) -> Sequence[int] | None:
        """Return the ids that may follow: None is any, an empty sequence ends the answer.

        Allowed ids are never forbidden by the n-gram rule.
        """
        ...


class Free(Enum):
    """The type of `FREE`."""

    FREE = "free"


FREE = Free.FREE
"""In place of spans: the model decides where phrases open and close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxConstraint:
    """An object group and nothing else: `<object>` pair (delimiter pair)* `</object>`.

    Every pair is a box: its second cell is not above or left of its first.
    """

    vocabulary: Vocabulary
    max_boxes: int = 16

    def __post_init__(self) -> None:
        if self.max_boxes < 1:
            raise RequestError(f"max_boxes must be at least 1, got {self.max_boxes}")

    @property
    def longest(self) -> int:
        """Return the most tokens an answer can have; a smaller max_new_tokens may cut it."""
        return 1 + 3 * self.max_boxes

    def allowed(self, generated: Sequence[int]) -> Sequence[int]:
        """Return the ids that may follow; none after `</object>`."""
        vocabulary = self.vocabulary
        if not generated:
            return (vocabulary.tag(Tag.OBJECT),)
        if generated[-1] == vocabulary.tag(Tag.OBJECT_END):
            return ()
        num_boxes, place = divmod(len(generated) - 1, 3)
        if place == 0:
            return range(vocabulary.first_location, vocabulary.size)
        if place == 1:
            return self._not_above_or_left_of(generated[-1])
        if num_boxes + 1 == self.max_boxes:
            return (vocabulary.tag(Tag.OBJECT_END),)
        return (vocabulary.tag(Tag.DELIMITER), vocabulary.tag(Tag.OBJECT_END))

    def _not_above_or_left_of(self, location: int) -> list[int]:
        first, bins = self.vocabulary.first_location, self.vocabulary.bins
        row, column = divmod(location - first, bins)
        return [first + y * bins + x for y in range(row, bins) for x in range(column, bins)]


@dataclass(frozen=True, slots=True, kw_only=True)
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

    def __post_init__(self) -> None:
        if not self.caption_ids:
            raise RequestError("there is no caption to ground: caption_ids is empty")
        odd = [id for id in self.caption_ids if not self._is_word(id)]
        if odd:
            raise RequestError(f"caption_ids must be words, these are not: {odd}")
        if self.max_boxes < 1:
            raise RequestError(f"max_boxes must be at least 1, got {self.max_boxes}")
        if self.spans is not FREE:
            self._check_spans(self.spans)
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
    def longest(self) -> int:
        """Return the most tokens an answer can have; a smaller max_new_tokens may cut it."""
        num_tokens = len(self.caption_ids)
        num_phrases = num_tokens if self.spans is FREE else len(self.spans)
        return num_tokens + num_phrases * (2 + self._group.longest)

    def allowed(self, generated: Sequence[int]) -> Sequence[int]:
        """Return the ids that may follow; none after the whole caption."""
        tag = self.vocabulary.tag
        since_close = _since_last(generated, tag(Tag.PHRASE_END))
        if since_close is not None and tag(Tag.OBJECT_END) not in since_close:
            return self._group.allowed(since_close)

        num_words = sum(self._is_word(id) for id in generated)
        word = self.caption_ids[num_words : num_words + 1]
        since_open = _since_last(generated, tag(Tag.PHRASE))
        if since_open is not None and tag(Tag.PHRASE_END) not in since_open:
            return self._in_phrase(num_words, word, len(since_open))
        return self._in_text(num_words, word)

    def _in_text(self, num_words: int, word: tuple[int, ...]) -> tuple[int, ...]:
        opening = (self.vocabulary.tag(Tag.PHRASE),)
        if self.spans is FREE:
            return opening + word if word and self._is_border(num_words) else word
        return opening if any(start == num_words for start, _ in self.spans) else word

    def _in_phrase(self, num_words: int, word: tuple[int, ...], size: int) -> tuple[int, ...]:
        closing = (self.vocabulary.tag(Tag.PHRASE_END),)
        if self.spans is FREE:
            return word + closing if size and self._is_border(num_words) else word
        return closing if any(stop == num_words for _, stop in self.spans) and size else word

    def _is_border(self, index: int) -> bool:
        if self.borders is FREE or index == len(self.caption_ids):
            return True
        return index in self.borders

    @property
    def _group(self) -> BoxConstraint:
        return BoxConstraint(vocabulary=self.vocabulary, max_boxes=self.max_boxes)

    def _is_word(self, id: int) -> bool:
        return self.vocabulary.is_piece(id) or id == self.vocabulary.unk


def _since_last(generated: Sequence[int], id: int) -> Sequence[int] | None:
    """Return what follows the last occurrence of id, None where there is none."""
    for at in range(len(generated) - 1, -1, -1):
        if generated[at] == id:
            return generated[at + 1 :]
    return None
