"""Spans that follow their words when a caption is edited.

The two texts are compared word by word. A span goes from where its first character is now to
where its last one is; words that were replaced stand for those that replaced them, and a span
that has lost all its characters is gone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import accumulate
from typing import NamedTuple

Span = tuple[int, int]

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_MOST_COMPARED = 1_000_000
"""Pairs of tokens; what is longer counts as replaced in one piece."""


class _Block(NamedTuple):
    """Characters [old, old_end) that became [new, new_end)."""

    old: int
    old_end: int
    new: int
    new_end: int
    is_same: bool


def follower(before: str, after: str) -> Callable[[Span], Span | None]:
    """Return what maps a span of `before` to one of `after`, None where its words are gone."""
    blocks = [block for block in _blocks(before, after) if block.old < block.old_end]
    starts = [block.old for block in blocks]

    def block_of(place: int) -> _Block:
        return blocks[bisect_right(starts, place) - 1]

    def follow(span: Span) -> Span | None:
        first, last = block_of(span[0]), block_of(span[1] - 1)
        start = first.new + (span[0] - first.old if first.is_same else 0)
        end = last.new + span[1] - last.old if last.is_same else last.new_end
        return _trimmed(after, start, end, before[span[0] : span[1]])

    return follow


def _trimmed(text: str, start: int, end: int, words: str) -> Span | None:
    """Return the span without blanks at ends where its old words had none."""
    while start < end and text[start].isspace() and not words[0].isspace():
        start += 1
    while start < end and text[end - 1].isspace() and not words[-1].isspace():
        end -= 1
    return (start, end) if start < end else None


def _blocks(before: str, after: str) -> Iterator[_Block]:
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    old_at, new_at = _places(old), _places(new)
    for tag, i1, i2, j1, j2 in _changes(old, new):
        if tag == "replace" and i2 - i1 == j2 - j1:  # word for word
            for i, j in zip(range(i1, i2), range(j1, j2), strict=True):
                yield _Block(old_at[i], old_at[i + 1], new_at[j], new_at[j + 1], False)
        else:
            yield _Block(old_at[i1], old_at[i2], new_at[j1], new_at[j2], tag == "equal")


def _changes(old: list[str], new: list[str]) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield the opcodes of two lists of tokens, their equal ends set aside first."""
    head = _shared(old, new)
    tail = _shared(old[head:][::-1], new[head:][::-1])
    old_end, new_end = len(old) - tail, len(new) - tail
    if head:
        yield "equal", 0, head, 0, head
    if (old_end - head) * (new_end - head) > _MOST_COMPARED:
        yield "replace", head, old_end, head, new_end
    else:
        middle = SequenceMatcher(None, old[head:old_end], new[head:new_end], autojunk=False)
        for tag, i1, i2, j1, j2 in middle.get_opcodes():
            yield tag, i1 + head, i2 + head, j1 + head, j2 + head
    if tail:
        yield "equal", old_end, len(old), new_end, len(new)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many items two lists begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _places(tokens: list[str]) -> list[int]:
    return list(accumulate(map(len, tokens), initial=0))
