"""The first constraints of this engine, by scans of all that is written: a slow reference.

They know no room: a form may be as long as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kosmos2.engine import FREE, Free
from kosmos2.vocab.special import Tag, Vocabulary


@dataclass(frozen=True)
class SlowBoxes:
    vocabulary: Vocabulary
    max_boxes: int

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


@dataclass(frozen=True)
class SlowCaption:
    caption_ids: tuple[int, ...]
    vocabulary: Vocabulary
    spans: tuple[tuple[int, int], ...] | Free
    borders: tuple[int, ...] | Free
    max_boxes: int

    def allowed(self, generated: Sequence[int]) -> Sequence[int]:
        """Return the ids that may follow; none after the whole caption."""
        tag = self.vocabulary.tag
        since_close = _since_last(generated, tag(Tag.PHRASE_END))
        if since_close is not None and tag(Tag.OBJECT_END) not in since_close:
            return SlowBoxes(self.vocabulary, self.max_boxes).allowed(since_close)

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

    def _is_word(self, id: int) -> bool:
        return self.vocabulary.is_piece(id) or id == self.vocabulary.unk


def _since_last(generated: Sequence[int], id: int) -> Sequence[int] | None:
    """Return what follows the last occurrence of id, None where there is none."""
    for at in range(len(generated) - 1, -1, -1):
        if generated[at] == id:
            return generated[at + 1 :]
    return None
