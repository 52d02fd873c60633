"""Several grounded pictures on one page, the text below each: for looking at many at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from kosmos2.boxes import Box
from kosmos2.grounding.render import draw
from kosmos2.grounding.spans import GroundedText

COLUMNS = 4
SIDE = 288
"""Pixels at the longer side of each picture."""
LINES = 4
DASH = 5
_LINE_HEIGHT = 17
_MARGIN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    image: Image.Image
    grounded: GroundedText
    true: tuple[Box, ...] = ()
    """What it should have been: thin dashes of black and white."""


def sheet(tiles: Sequence[Tile]) -> Image.Image:
    """Return the tiles in rows of four, the boxes of each in the colours of `render.draw`."""
    font = ImageFont.load_default(13)
    width, height = SIDE + 2 * _MARGIN, SIDE + LINES * _LINE_HEIGHT + 2 * _MARGIN
    columns = min(COLUMNS, max(1, len(tiles)))
    rows = max(1, -(-len(tiles) // COLUMNS))
    page = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(page)
    for number, tile in enumerate(tiles):
        x, y = number % COLUMNS * width + _MARGIN, number // COLUMNS * height + _MARGIN
        page.paste(_picture(tile), (x, y))
        lines = _wrapped(tile.grounded.text, pen, font)
        for line, words in enumerate(lines):
            place = (x, y + SIDE + 3 + line * _LINE_HEIGHT)
            pen.text(place, words, fill="black", font=font)
    return page


def _picture(tile: Tile) -> Image.Image:
    scale = SIDE / max(tile.image.size)
    size = (max(1, round(tile.image.width * scale)), max(1, round(tile.image.height * scale)))
    picture = tile.image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for box in tile.true:
        x0, y0, x1, y1 = box.to_pixels(width=size[0] - 1, height=size[1] - 1)
        for corners in ((x0, y0, x1, y0), (x0, y1, x1, y1), (x0, y0, x0, y1), (x1, y0, x1, y1)):
            for number, dash in enumerate(_dashes(*corners)):
                pen.line(dash, fill="black" if number % 2 else "white")
    return draw(picture, tile.grounded)


def _dashes(
    x0: float, y0: float, x1: float, y1: float
) -> Iterator[tuple[float, float, float, float]]:
    """Yield the pieces of a line that is level or upright."""
    length = x1 - x0 + y1 - y0
    across, down = (1, 0) if y0 == y1 else (0, 1)
    begin = 0.0
    while begin < length:
        end = min(begin + DASH, length)
        yield x0 + across * begin, y0 + down * begin, x0 + across * end, y0 + down * end
        begin = end


def _wrapped(
    text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    """Return at most `LINES` lines as wide as a picture; what does not fit is cut off."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and pen.textlength(longer, font=font) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:LINES]
