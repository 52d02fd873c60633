"""What a detector with a text limit reads of a caption, and where the phrases are in it.

Grounding DINO lets words attend to one another between full stops and question marks only: the
caption as it is lets its phrases see one another, as GLIP does; noun chunks with stops between
them stand each by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from kosmos2.grit.detectors import Refused, Span

_SENTENCE_END = re.compile(r"[.!?;]+[\"')\]]*\s+")
TOO_LONG = "the caption is too long for the detector"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text for one forward pass, and the phrases to look for in it."""

    text: str
    """Ends in a full stop or a question mark: without one the words of the last segment would not
    see one another, or see what a longer neighbour in the batch pads it with."""
    phrases: tuple[int, ...]
    """Which of the caption's spans."""
    spans: tuple[Span, ...]
    """Their characters [start, end) in this text."""


def prompts(
    caption: str,
    spans: Sequence[Span],
    kind: Literal["caption", "chunks"],
    fits: Callable[[str], bool],
) -> tuple[Prompt, ...] | Refused:
    """Return what is read of a caption: one text if it fits, else as few as fit, in its order.

    A caption is split where a sentence ends outside every phrase; chunks between any two. What
    cannot be split any further and still does not fit is refused. Parts without a phrase are not
    read.
    """
    found = (_of_caption if kind == "caption" else _of_chunks)(caption, spans, fits)
    return found if all(fits(each.text) for each in found) else Refused(TOO_LONG)


def _of_caption(
    caption: str, spans: Sequence[Span], fits: Callable[[str], bool]
) -> tuple[Prompt, ...]:
    parts: list[Span] = []
    for start, end in _sentences(caption, spans):
        if parts and fits(_closed(caption[parts[-1][0] : end])):
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((start, end))
    inside = {
        (start, end): tuple(n for n, span in enumerate(spans) if start <= span[0] < end)
        for start, end in parts
    }
    return tuple(
        Prompt(
            _closed(caption[start:end]),
            numbers,
            tuple((spans[n][0] - start, spans[n][1] - start) for n in numbers),
        )
        for (start, end), numbers in inside.items()
        if numbers
    )


def _of_chunks(
    caption: str, spans: Sequence[Span], fits: Callable[[str], bool]
) -> tuple[Prompt, ...]:
    groups: list[list[int]] = []
    for number in range(len(spans)):
        if groups and fits(_chunks(caption, spans, [*groups[-1], number]).text):
            groups[-1].append(number)
        else:
            groups.append([number])
    return tuple(_chunks(caption, spans, group) for group in groups)


def _chunks(caption: str, spans: Sequence[Span], numbers: Sequence[int]) -> Prompt:
    text, places = "", []
    for start, end in (spans[n] for n in numbers):
        text += " " if text else ""
        places.append((len(text), len(text) + end - start))
        text += f"{caption[start:end]} ."
    return Prompt(text, tuple(numbers), tuple(places))


def _sentences(caption: str, spans: Sequence[Span]) -> list[Span]:
    """Return the characters [start, end) of sentences; a full stop inside a phrase ends none."""
    ends = [
        match.end()
        for match in _SENTENCE_END.finditer(caption)
        if not any(start < match.end() < end for start, end in spans)
    ]
    return list(pairwise(sorted({0, *ends, len(caption)})))


def _closed(text: str) -> str:
    return text if text.rstrip().endswith((".", "?")) else f"{text.rstrip()} ."
