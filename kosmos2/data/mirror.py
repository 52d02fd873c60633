"""A picture in a mirror: boxes and the words left and right change sides with it."""

from __future__ import annotations

import re
from dataclasses import replace

from kosmos2.boxes import Box
from kosmos2.grounding.spans import GroundedText

_SIDE = re.compile(
    r"\b(left|right)(?=(?:most|ward|wards|handed|hand|side|sided)?\b)", re.IGNORECASE
)
_UNTRUE = re.compile(
    r"\b(?:(?:anti|counter)?clockwise|text|words?|letters?|numbers?|signs?|logo|writing|written|"
    r"reads?|reading|says?|saying|titled|labell?ed|license|plate|clock|watch|map|all right|"
    r"right (?:now|away)|(?:is|are|was|were|has|have|had|nothing) left|left ?overs?|copyright|"
    r"rights? reserved)\b|[\"“”]",
    re.IGNORECASE,
)
"""What a mirror makes untrue, and what left and right mean besides sides."""


def mirrored(box: Box) -> Box:
    """Return the box at the other side, normalised."""
    return Box(1 - box.x1, box.y0, 1 - box.x0, box.y1)


def can_mirror(text: str) -> bool:
    """Return whether swapping left and right keeps the text true."""
    return _UNTRUE.search(text) is None


def swapped(grounded: GroundedText) -> GroundedText:
    """Return the text with left and right swapped, its phrases where they went, boxes mirrored."""
    places = [0]  # of every character, and of the end
    parts, cursor = [], 0
    for found in _SIDE.finditer(grounded.text):
        before = grounded.text[cursor : found.start()]
        word = _other(found[0])
        parts += [before, word]
        places += range(places[-1] + 1, places[-1] + len(before) + 1)
        # A phrase never ends inside of these words; if it does, it takes the whole of them.
        places += [places[-1] + len(word)] * len(found[0])
        cursor = found.end()
    rest = grounded.text[cursor:]
    places += range(places[-1] + 1, places[-1] + len(rest) + 1)
    return replace(
        grounded,
        text="".join((*parts, rest)),
        phrases=tuple(
            replace(
                phrase,
                start=places[phrase.start],
                end=places[phrase.end],
                boxes=tuple(mirrored(box) for box in phrase.boxes),
            )
            for phrase in grounded.phrases
        ),
    )


def _other(word: str) -> str:
    other = "right" if word.lower() == "left" else "left"
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
