"""Grounded text onto its picture: boxes with labels, and one crop for each box."""

import colorsys
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from kosmos2.boxes import Box
from kosmos2.grounding.spans import GroundedText

# Each is at least 3:1 against white and against near-black, so that one colour serves a light page,
# a dark page and a picture; and black or white letters on it reach 4.5:1.
PALETTE = (
    "#2f6fde",
    "#d9660b",
    "#1f9254",
    "#d13a9b",
    "#7f5ae0",
    "#0d8a99",
    "#dd3b3b",
    "#85850f",
    "#a8693a",
    "#6b7a90",
)
GOLDEN_ANGLE = (3 - math.sqrt(5)) / 2
LUMINANCE_BEYOND_PALETTE = 0.2
INK_TURNS_BLACK_AT = 0.179  # where black letters begin to contrast more than white ones

ELLIPSIS = "…"
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are outside


def colour(index: int) -> str:
    """Return the colour of the phrase with this number, always the same one, as #rrggbb."""
    if index < len(PALETTE):
        return PALETTE[index]
    hue = index * GOLDEN_ANGLE % 1
    darkest, lightest = 0.0, 1.0
    for _ in range(20):
        lightness = (darkest + lightest) / 2
        candidate = _hex(*colorsys.hls_to_rgb(hue, lightness, 0.75))
        if luminance(candidate) < LUMINANCE_BEYOND_PALETTE:
            darkest = lightness
        else:
            lightest = lightness
    return candidate


def luminance(hex_colour: str) -> float:
    """Return the relative luminance of #rrggbb, 0..1, as WCAG defines it."""
    linear = []
    for place in (1, 3, 5):
        share = int(hex_colour[place : place + 2], 16) / 255
        linear.append(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink(hex_colour: str) -> str:
    """Return black or white, whichever reads better on this colour."""
    return "#000000" if luminance(hex_colour) >= INK_TURNS_BLACK_AT else "#ffffff"


def draw(image: Image.Image, grounded: GroundedText, min_score: float = 0.0) -> Image.Image:
    """Return a copy of the picture, in RGB, with its boxes and the words of their phrases.

    Boxes with a score below `min_score` are left out; those that nobody measured stay.
    """
    drawn = image.convert("RGB")
    if drawn is image:
        drawn = image.copy()
    brush = _Brush.of(drawn)
    marks = list(_marks(drawn, grounded, min_score))
    for mark in marks:
        brush.rectangle(mark)
    # Labels last, so that no box crosses a label; large boxes first, as they have the most room.
    taken: list[Rectangle] = []
    for mark in sorted(marks, key=lambda mark: -_area(mark.rectangle)):
        if mark.label:
            taken.append(brush.label(mark, taken))
    return drawn


def crops(image: Image.Image, grounded: GroundedText) -> list[tuple[str, Image.Image]]:
    """Return a name fit for a file ("1-a-snowman", no suffix) and the cut-out of every box."""
    cut = []
    for number, phrase in enumerate(grounded.phrases, start=1):
        words = _slug(grounded.phrase_text(phrase)) or "box"
        for copy, box in enumerate(phrase.boxes, start=1):
            name = f"{number}-{words}" + (f"-{copy}" if len(phrase.boxes) > 1 else "")
            cut.append((name, image.crop(_pixels(box, image))))
    return cut


@dataclass(frozen=True, slots=True)
class _Mark:
    rectangle: Rectangle
    label: str
    colour: str


@dataclass(frozen=True, slots=True)
class _Brush:
    """What draws on one picture, sized for it."""

    canvas: ImageDraw.ImageDraw
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    width: int
    height: int
    line: int

    @classmethod
    def of(cls, image: Image.Image) -> "_Brush":
        side = min(image.size)
        return cls(
            canvas=ImageDraw.Draw(image),
            font=ImageFont.load_default(size=max(10, round(side / 32))),
            width=image.width,
            height=image.height,
            line=max(1, round(side / 256)),
        )

    def rectangle(self, mark: _Mark) -> None:
        """Draw a coloured frame between thin white ones, visible on any picture."""
        left, top, right, bottom = mark.rectangle
        rim = max(1, self.line // 3) if self.line > 1 else 0
        corners = (left, top, right - 1, bottom - 1)
        if rim:
            self.canvas.rectangle(corners, outline="#ffffff", width=self.line + 2 * rim)
            corners = (left + rim, top + rim, right - 1 - rim, bottom - 1 - rim)
        if corners[0] <= corners[2] and corners[1] <= corners[3]:
            self.canvas.rectangle(corners, outline=mark.colour, width=self.line)

    def label(self, mark: _Mark, taken: Sequence[Rectangle]) -> Rectangle:
        """Write the words where they cover no earlier label, and return the place they took."""
        pad = max(2, 2 * self.line)
        words = self._fitting(mark.label, self.width - 2 * pad)
        left, _, right, _ = self.canvas.textbbox((0, 0), words, font=self.font)
        _, ascent, _, descent = self.canvas.textbbox((0, 0), "Åg", font=self.font)
        size = (math.ceil(right - left) + 2 * pad, math.ceil(descent - ascent) + 2 * pad)
        place = self._free(mark.rectangle, size, taken)
        self.canvas.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=mark.colour)
        self.canvas.text(
            (place[0] + pad - left, place[1] + pad - ascent),
            words,
            font=self.font,
            fill=ink(mark.colour),
        )
        return place

    def _fitting(self, words: str, room: int) -> str:
        words = " ".join(words.split())
        if self.canvas.textlength(words, font=self.font) <= room:
            return words
        while words and self.canvas.textlength(words + ELLIPSIS, font=self.font) > room:
            words = words[:-1]
        return words.rstrip() + ELLIPSIS

    def _free(self, box: Rectangle, size: tuple[int, int], taken: Sequence[Rectangle]) -> Rectangle:
        """Return the first place by the box that hits no label, else the one that hits least."""
        left, top, right, bottom = box
        wide, high = size
        rows = [top - high, top, bottom, bottom - high]
        rows += [top + step * high for step in range(1, 1 + self.height // max(high, 1))]
        best, least = (0, 0, 0, 0), math.inf
        for row in rows:
            for column in (left, right - wide):
                x = min(max(column, 0), max(self.width - wide, 0))
                y = min(max(row, 0), max(self.height - high, 0))
                place = (x, y, min(x + wide, self.width), min(y + high, self.height))
                hit = sum(_overlap(place, other) for other in taken)
                if row == rows[0] and row < 0:
                    hit += 1  # above the picture's edge: sliding down would cover the frame
                if hit < least:
                    best, least = place, hit
                if hit == 0:
                    return place
        return best


def _marks(image: Image.Image, grounded: GroundedText, min_score: float) -> Iterator[_Mark]:
    for index, phrase in enumerate(grounded.phrases):
        scores = phrase.scores or (1.0,) * len(phrase.boxes)
        for box, score in zip(phrase.boxes, scores, strict=True):
            if score < min_score:
                continue
            yield _Mark(_pixels(box, image), grounded.phrase_text(phrase), colour(index))


def _pixels(box: Box, image: Image.Image) -> Rectangle:
    """Return whole pixels that cover the box, at least one, none outside the picture."""
    x0, y0, x1, y1 = box.to_pixels(width=image.width, height=image.height)
    left, top = min(math.floor(x0), image.width - 1), min(math.floor(y0), image.height - 1)
    return (
        left,
        top,
        max(left + 1, min(math.ceil(x1), image.width)),
        max(top + 1, min(math.ceil(y1), image.height)),
    )


def _overlap(one: Rectangle, other: Rectangle) -> int:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0) * max(high, 0)


def _area(rectangle: Rectangle) -> int:
    return (rectangle[2] - rectangle[0]) * (rectangle[3] - rectangle[1])


def _slug(words: str) -> str:
    letters = "".join(letter if letter.isalnum() else " " for letter in words.lower())
    return "-".join(letters.split())[:40].rstrip("-")


def _hex(red: float, green: float, blue: float) -> str:
    return "#" + "".join(f"{round(255 * share):02x}" for share in (red, green, blue))
