"""What one user has open: a picture, what the model sees of it, what was asked. Never changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from kosmos2.api import Reply, View
from kosmos2.boxes import Box
from kosmos2.errors import BoxError, ImageError
from kosmos2.images import Picture, open_picture

LONGEST_LOG = 50
"""Questions that are kept for a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a user may give, at most."""

    max_bytes: int = 32 << 20
    """Of a picture's file."""
    max_pixels: int = 50_000_000
    """Of a picture; a larger one is refused before it is decoded."""
    max_text: int = 4_000
    """Characters of a question, a phrase or a prompt."""
    max_new_tokens: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One question and its answer, exactly as the model had them."""

    task: str
    prompt: str
    settings: str
    markup: str
    stop: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sitting:
    """One user's picture, as the file that was given, and the log; `view` once it was looked at."""

    name: str
    data: bytes
    width: int
    height: int
    """Pixels of the upright picture."""
    view: View | None = None
    reply: Reply | None = None
    """The last answer."""
    log: tuple[Entry, ...] = ()
    """The oldest first."""

    def picture(self, bounds: Bounds) -> Picture:
        """Return the picture, decoded."""
        return open_picture(self.data, max_pixels=bounds.max_pixels)

    def box(self, corners: object) -> Box | None:
        """Return the box of corners in pixels that a browser sent; None: nothing was drawn."""
        if not corners:
            return None
        if not isinstance(corners, list) or len(corners) != 4:
            raise BoxError(f"a drawn box has four corners in pixels, got {corners!r:.80}")
        numbers = [_number(corner) for corner in corners]
        x0, x1 = sorted(min(max(x, 0.0), self.width) for x in numbers[::2])
        y0, y1 = sorted(min(max(y, 0.0), self.height) for y in numbers[1::2])
        if x0 == x1 or y0 == y1:
            raise BoxError("the drawn box has no area inside the picture; draw it again")
        return Box.from_pixels((x0, y0, x1, y1), width=self.width, height=self.height)

    def answered(self, view: View, reply: Reply, entry: Entry) -> Sitting:
        """Return the sitting after an answer."""
        log = (*self.log, entry)[-LONGEST_LOG:]
        return replace(self, view=view, reply=reply, log=log)


def open_file(path: Path, name: str, bounds: Bounds, log: tuple[Entry, ...]) -> Sitting:
    """Return a sitting with the picture of a file; refuse what is none, or too large."""
    size = path.stat().st_size
    if size > bounds.max_bytes:
        raise ImageError(
            f"{name} has {size / 2**20:.1f} MB, and {bounds.max_bytes / 2**20:.0f} MB is the most"
        )
    data = path.read_bytes()
    try:
        picture = open_picture(data, max_pixels=bounds.max_pixels)
    except ImageError as error:
        raise ImageError(f"{name}: {str(error).split(': ', 1)[-1]}") from error
    return Sitting(name=name, data=data, width=picture.width, height=picture.height, log=log)


def _number(corner: object) -> float:
    if isinstance(corner, bool) or not isinstance(corner, int | float) or not math.isfinite(corner):
        raise BoxError(f"a corner of the drawn box is no number: {corner!r:.40}")
    return float(corner)
