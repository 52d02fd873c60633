"""The pictures of the page: shares against the threshold, and scenes with right and wrong boxes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.grit_quality import Judged, judged
from kosmos2.boxes import Box
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import read

WIDTH, HEIGHT = 640, 360
LEFT, TOP, RIGHT, BOTTOM = 52, 20, 620, 310
"""Pixels of the chart's frame."""
LINES = (("precision", "#1b6ca8"), ("recall", "#c2571a"), ("f1", "#4b8b3b"))
SIDE, WORDS, COLUMNS = 300, 50, 4
"""Pixels of a scene on the sheet and of the caption under it; scenes in a row."""
RIGHT_BOX, WRONG_BOX, MISSED_BOX = "#18a558", "#d7263d", "#e0a800"


def chart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return precision, recall and F1 against the threshold as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for step in range(11):
        share = step / 10
        y, x = _y(share), _x(share)
        parts.append(f'<path d="M{LEFT} {y}H{RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{share:.1f}</text>')
        parts.append(f'<text x="{x}" y="{BOTTOM + 18}" text-anchor="middle">{share:.1f}</text>')
    for number, (name, colour) in enumerate(LINES):
        points = " ".join(
            f"{_x(row['threshold']):.1f},{_y(row[name]):.1f}" for row in rows if row["said"]
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        label = "F1" if name == "f1" else name
        y = BOTTOM - 64 + 20 * number
        parts.append(f'<path d="M{LEFT + 14} {y - 4}h24" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 44}" y="{y}">{label}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">linking.threshold</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(value: float) -> float:
    return round(LEFT + value * (RIGHT - LEFT), 1)


def _y(value: float) -> float:
    return round(BOTTOM - value * (BOTTOM - TOP), 1)


def sheet(scenes: Path, out: Path) -> Image.Image:
    """Return the first scenes that are all right, and under them the first that are not."""
    truth = list(read(scenes / "records.jsonl"))
    both = list(zip(truth, judged(truth, out), strict=True))
    good = [pair for pair in both if not pair[1].wrong and not pair[1].missed]
    bad = [pair for pair in both if pair[1].wrong or pair[1].missed]
    shown = [*islice(good, COLUMNS), *islice(bad, 2 * COLUMNS)]
    rows = -(-len(shown) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + WORDS)), "white")
    for number, (record, found) in enumerate(shown):
        at = number % COLUMNS * SIDE, number // COLUMNS * (SIDE + WORDS)
        page.paste(_drawn(scenes, record, found), at)
    return page


def _drawn(scenes: Path, record: GroundedRecord, found: Judged) -> Image.Image:
    tile = Image.new("RGB", (SIDE, SIDE + WORDS), "white")
    assert record.image is not None
    picture = Image.open(scenes / record.image).convert("RGB").resize((SIDE - 6, SIDE - 6))
    tile.paste(picture, (3, 3))
    draw = ImageDraw.Draw(tile)
    for entries, colour in (
        (found.missed, MISSED_BOX),
        (found.right, RIGHT_BOX),
        (found.wrong, WRONG_BOX),
    ):
        for entry in entries:
            _outline(draw, record.caption, entry, colour)
    for number, line in enumerate(textwrap.wrap(record.caption, 52)[:3]):
        draw.text((5, SIDE + 13 * number), line, fill="black")
    return tile


def _outline(draw: ImageDraw.ImageDraw, caption: str, entry: Grounded, colour: str) -> None:
    x0, y0, x1, y1 = _pixels(entry.box)
    draw.rectangle((x0, y0, x1, y1), outline=colour, width=3)
    score = "" if colour == MISSED_BOX else f" {entry.score:.2f}"
    label = f"{caption[entry.start : entry.end]}{score}"
    end = min(draw.textlength(label) + x0 + 4, SIDE)
    draw.rectangle((x0, y0, end, y0 + 13), fill=colour)
    draw.text((x0 + 2, y0 + 1), label, fill="white")


def _pixels(box: Box) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (3 + corner * (SIDE - 6) for corner in box.corners)
    return x0, y0, x1, y1
