"""What a prompt is made of, and what generated ids read as."""

import re
from dataclasses import dataclass

from kosmos2.vocab.special import Tag

_LOCATION = r"<patch_index_((?:[0-9]|[1-9][0-9]+)[0-9]{3})>"
_MARKUP = re.compile("|".join([*(re.escape(str(tag)) for tag in Tag), _LOCATION]))


@dataclass(frozen=True, slots=True)
class Cell:
    """One location token: a cell of the grid, counted row by row."""

    index: int


@dataclass(frozen=True, slots=True)
class ImageSlot:
    """The place of one image."""


Segment = str | Tag | Cell | ImageSlot
"""One part of a prompt. A plain str is always a user's text, never control, whatever it says."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, and for each whether an image latent takes its place."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Symbol:
    """Text, a tag or a location that the token ids [start, stop) of a list stand for."""

    value: str | Tag | Cell
    start: int
    stop: int


def parse_markup_string(text: str) -> tuple[Segment, ...]:
    """Split text in which tags and location tokens are meant as control, as in a model card.

    Only for text whose author may control the model; anything not exactly a tag stays text.
    """
    segments: list[Segment] = []
    position = 0
    for found in _MARKUP.finditer(text):
        segments.append(text[position : found.start()])
        segments.append(Cell(int(found[1])) if found[1] else Tag(found[0]))
        position = found.end()
    segments.append(text[position:])
    return tuple(segment for segment in segments if segment != "")
