"""Sequences exactly as the published loaders made them (B.3 and B.6 of the data specification).

For the reader of results: what `compat = "paper"` does differently from our own lessons.
- A lower-right corner on the border of two cells goes to the farther one.
- Spans are found by tokenising the caption up to their ends. Where that fails, the original drops
  the whole row in silence; here the row is rejected with its reason.
- Spans that begin inside another are lost. In the original some keep a part of their tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kosmos2.boxes import Box
from kosmos2.data.album import resized
from kosmos2.data.grounded import Entry
from kosmos2.data.ledger import Rejected
from kosmos2.grounding.spans import GroundedText
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

LEAST_LEFT = 0.2
"""A box of which the crop leaves a smaller share of its area is dropped."""


def cropped(entry: Entry, width: int, height: int, size: int) -> Entry | Rejected:
    """Return the entry in the middle square of a picture of width x height pixels.

    Published as `centercrop_norm_bbox`; its offset is not rounded, that of the picture is.
    """
    wide, high = resized(width, height, size)
    left, top = (wide - size) / 2, (high - size) / 2
    x0, y0, x1, y1 = entry.box.to_pixels(width=wide, height=high)
    inside = (x0 - left, y0 - top, x1 - left, y1 - top)
    x0, y0, x1, y1 = (min(max(corner, 0.0), float(size)) for corner in inside)
    whole = entry.box.area * wide * high
    if not x0 < x1 or not y0 < y1 or (x1 - x0) * (y1 - y0) < LEAST_LEFT * whole:
        return Rejected("box outside the crop", f"{entry.box.corners} of {width}x{height} pixels")
    return replace(entry, box=Box(x0 / size, y0 / size, x1 / size, y1 / size))


def caption_ids(grounded: GroundedText, tokenizer: Tokenizer) -> list[int] | Rejected:
    """Return `<grounding>` and the caption with its tags; `</s>` is the caller's."""
    ids = tokenizer.encode_text(grounded.text)
    spans: dict[tuple[int, int], tuple[Box, ...]] = {}
    for phrase in grounded.phrases:
        found = _token_span(grounded.text, phrase.start, phrase.end, tokenizer)
        if found is None:
            words = grounded.phrase_text(phrase)
            return Rejected("span not on tokens", f"{words!r} in {grounded.text!r}")
        spans[found] = phrase.boxes  # the same tokens: the later one wins, as in the original
    vocabulary, cursor = tokenizer.vocabulary, 0
    written = [vocabulary.tag(Tag.GROUNDING)]
    for (first, last), boxes in sorted(spans.items()):
        if first < cursor:
            continue
        written += ids[cursor:first]
        written += [vocabulary.tag(Tag.PHRASE), *ids[first:last], vocabulary.tag(Tag.PHRASE_END)]
        written += object_ids(boxes, tokenizer)
        cursor = last
    return written + ids[cursor:]


def object_ids(boxes: Sequence[Box], tokenizer: Tokenizer) -> list[int]:
    """Return the ids from `<object>` to `</object>`, cells by the published rule."""
    vocabulary = tokenizer.vocabulary
    found = [vocabulary.tag(Tag.OBJECT)]
    for number, box in enumerate(boxes):
        if number:
            found.append(vocabulary.tag(Tag.DELIMITER))
        found += [vocabulary.location(cell) for cell in tokenizer.grid.encode_as_trained(box)]
    return [*found, vocabulary.tag(Tag.OBJECT_END)]


def _token_span(text: str, start: int, end: int, tokenizer: Tokenizer) -> tuple[int, int] | None:
    before, upto = tokenizer.encode_text(text[:start]), tokenizer.encode_text(text[:end])
    for ids in (before, before[:-1]):
        if upto[: len(ids)] == ids:
            return len(ids), len(upto)
    return None
