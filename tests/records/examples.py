"""The records that every format is tried with, and their pictures.

Each record shows something that a format may lose; each has a picture of its own, 40 x 30 pixels
with a white rectangle in `KNOWN_BOX` on a dark ground. Picture names sort in the order of the
records, for formats that are a folder of files.
"""

import hashlib
import zlib
from pathlib import Path

from PIL import Image, ImageDraw

from kosmos2.boxes import Box
from kosmos2.records.record import Grounded, GroundedRecord, Provenance

WIDTH, HEIGHT = 40, 30
KNOWN_PIXELS = (10, 5, 30, 20)
"""x0, y0, x1, y1 in pixels: the corners of the rectangle that the pictures show."""
KNOWN_BOX = Box.from_pixels(KNOWN_PIXELS, width=WIDTH, height=HEIGHT)
"""The same, as shares of the picture: (0.25, 1/6, 0.75, 2/3)."""

_LEFT = (0.05, 0.1, 0.3, 0.9)
_RIGHT = (0.625, 0.25, 0.975, 0.75)
_ALL = (0.0, 0.0, 1.0, 1.0)


def draw(path: Path, *, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Write a picture that shows a white rectangle at the known pixels.

    The ground is dark, in a shade of its own for every name, so that no two files are equal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = zlib.crc32(path.name.encode()) & 0x3F3F3F
    ground = (shade >> 16, shade >> 8 & 255, shade & 255)
    picture = Image.new("RGB", (width, height), ground)
    x0, y0, x1, y1 = KNOWN_PIXELS
    ImageDraw.Draw(picture).rectangle((x0, y0, x1 - 1, y1 - 1), fill="white")
    picture.save(path)


def known_record(folder: Path) -> GroundedRecord:
    """Return "a white square" with the known box; its picture `1-known.png` is made in `folder`."""
    draw(folder / "1-known.png")
    return GroundedRecord(
        id=1,
        image="1-known.png",
        width=WIDTH,
        height=HEIGHT,
        caption="a white square",
        noun_chunks=None,
        ref_exps=(entry("a white square", "a white square", KNOWN_BOX.corners),),
    )


def example_records(folder: Path) -> list[GroundedRecord]:
    """Return the records; their pictures are made in `folder`, where the records' paths start."""
    records = [
        known_record(folder),
        _several_boxes(),
        _nested(),
        _unicode(),
        _two_views(),
        _chunks_alone(),
        _no_boxes(),
    ]
    for record in records:
        assert record.image is not None
        draw(folder / record.image)
    return [*records, _everything(folder)]


def entry(
    caption: str,
    words: str,
    corners: tuple[float, float, float, float],
    score: float | None = None,
) -> Grounded:
    """Return the entry of the first occurrence of `words`; corners normalised (x0, y0, x1, y1)."""
    start = caption.index(words)
    return Grounded(start, start + len(words), *corners, score)


def _several_boxes() -> GroundedRecord:
    caption = "two cats beside a red chair"
    return GroundedRecord(
        id=2,
        image="2-several.png",
        width=WIDTH,
        height=HEIGHT,
        caption=caption,
        noun_chunks=None,
        ref_exps=(
            entry(caption, "two cats", _LEFT),
            entry(caption, "two cats", _RIGHT),
            entry(caption, "a red chair", KNOWN_BOX.corners),
        ),
    )


def _nested() -> GroundedRecord:
    caption = "a dog in a field of flowers, a dog"
    return GroundedRecord(
        id=3,
        image="3-nested.png",
        width=WIDTH,
        height=HEIGHT,
        caption=caption,
        noun_chunks=None,
        ref_exps=(
            entry(caption, "a dog in a field of flowers", _LEFT, 0.875),
            entry(caption, "a field of flowers", _ALL, 0.5),
            # The second "a dog" of the caption: its words alone would say the first.
            Grounded(len(caption) - len("a dog"), len(caption), *_RIGHT, 0.25),
        ),
    )


def _unicode() -> GroundedRecord:
    caption = 'Ein großer Hund 🐕 – "狗" & <Café>, größer'
    return GroundedRecord(
        id="vier/ß-4",
        image="4-ünicode 狗.png",
        width=WIDTH,
        height=HEIGHT,
        caption=caption,
        noun_chunks=None,
        ref_exps=(
            entry(caption, "Ein großer Hund 🐕", _RIGHT, 0.75),
            entry(caption, '"狗"', _LEFT, 0.625),
        ),
    )


def _two_views() -> GroundedRecord:
    caption = "a wire hanger with a paper cover"
    return GroundedRecord(
        id=5,
        image="5-views.png",
        width=WIDTH,
        height=HEIGHT,
        caption=caption,
        noun_chunks=(
            entry(caption, "a paper cover", KNOWN_BOX.corners, 0.75),
            entry(caption, "a wire hanger", _ALL, 0.5),
        ),
        ref_exps=(entry(caption, caption, _ALL, 0.5),),
    )


def _chunks_alone() -> GroundedRecord:
    """Entries without expressions, some of them with a score; the size is the picture's alone."""
    caption = "a lamp, a table"
    return GroundedRecord(
        id=6,
        image="6-chunks.png",
        caption=caption,
        noun_chunks=(
            entry(caption, "a lamp", _LEFT, 0.5),
            entry(caption, "a table", KNOWN_BOX.corners),
        ),
        ref_exps=None,
    )


def _no_boxes() -> GroundedRecord:
    return GroundedRecord(
        id=7,
        image="7-caption.png",
        width=WIDTH,
        height=HEIGHT,
        caption="nothing but words",
        noun_chunks=None,
        ref_exps=(),
    )


def _everything(folder: Path) -> GroundedRecord:
    caption = "a snowman by a fire"
    picture = folder / "8-deep" / "snow.png"
    draw(picture)
    return GroundedRecord(
        id=8,
        image="8-deep/snow.png",
        url="https://example.com/snow.png?size=big",
        sha256=hashlib.sha256(picture.read_bytes()).hexdigest(),
        width=WIDTH,
        height=HEIGHT,
        caption=caption,
        noun_chunks=None,
        ref_exps=(
            entry(caption, "a snowman", _RIGHT, 0.9375),
            entry(caption, "a fire", KNOWN_BOX.corners, 0.875),
        ),
        provenance=Provenance(
            model="kosmos2",
            weights="sha256:00ff",
            task="describe",
            prompt="<grounding>Describe this image in detail:",
            decoding={"beams": 1, "max_tokens": 64},
            code="kosmos2 0.1.0",
        ),
        extra={"licence": "CC BY 4.0", "key": "000373938", "clip": 0.25, "tags": ["snow", "fire"]},
    )
