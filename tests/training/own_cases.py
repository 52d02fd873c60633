"""Own records for tests: a square on a plain ground, called by one word, with its box."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIDE = 64


def record(folder: Path, number: int, word: str = "dog") -> dict[str, Any]:
    """Draw a picture of its own, and return its record."""
    image = Image.new("RGB", (SIDE, SIDE), (20, 40 + number % 200, 90))
    x, y = 4 + 7 * number % 30, 4 + 11 * number % 30
    ImageDraw.Draw(image).rectangle((x, y, x + 25, y + 25), fill="white")
    image.save(folder / f"{number}.png")
    corners = [each / SIDE for each in (x, y, x + 26, y + 26)]
    caption = f"An image of a {word}."
    return {
        "id": number,
        "image": f"{number}.png",
        "caption": caption,
        "noun_chunks": None,
        "ref_exps": [[12, len(caption) - 1, *corners, 1.0]],
    }


def write(folder: Path, rows: list[Mapping[str, Any]], name: str = "records.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def squares(folder: Path, count: int, word: str = "dog", first: int = 0) -> Path:
    """Write so many records and their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, [record(folder, first + number, word) for number in range(count)])
