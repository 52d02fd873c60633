"""What the readers of benchmarks share: JSON read with its faults named, pixels into boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import BoxError, RecordError

SLACK = 1.0
"""Pixels that an annotated box may leave the picture by; it is cut at the border."""


def read_json(path: Path) -> Any:  # noqa: ANN401  (JSON is whatever somebody wrote)
    """Return what a JSON file says."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error


def field(row: Any, name: str, where: str) -> Any:  # noqa: ANN401
    """Return a field that must be there."""
    if not isinstance(row, Mapping) or name not in row:
        raise RecordError(f"{where} has no {name!r}; is the file of this format?")
    return row[name]


def side(value: Any, where: str) -> int:  # noqa: ANN401
    """Return a width or height in pixels; MDETR's files have some as text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise RecordError(f"{where}: a picture's side is a number, got {value!r}") from None
    if not (number > 0 and number == int(number)):
        raise RecordError(f"{where}: a picture's side is a whole number above 0, got {value!r}")
    return int(number)


def box_of_xywh(xywh: Any, width: int, height: int, where: str) -> Box:  # noqa: ANN401
    """Return the box of a corner and a size in pixels, as COCO writes them."""
    x, y, w, h = _four(xywh, where)
    return box_of_corners((x, y, x + w, y + h), width, height, where)


def box_of_corners(corners: Any, width: int, height: int, where: str) -> Box:  # noqa: ANN401
    """Return the box of two corners in pixels, cut at the border of the picture."""
    x0, y0, x1, y1 = _four(corners, where)
    if min(x0, y0) < -SLACK or x1 > width + SLACK or y1 > height + SLACK:
        raise RecordError(
            f"{where}: the box {(x0, y0, x1, y1)} leaves the picture of {width}x{height} pixels"
        )
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    try:
        return Box.from_pixels(inside, width=width, height=height)
    except BoxError as error:
        raise RecordError(f"{where}: {error}") from error


def _four(numbers: Any, where: str) -> tuple[float, float, float, float]:  # noqa: ANN401
    if isinstance(numbers, Sequence) and not isinstance(numbers, str) and len(numbers) == 4:
        try:
            a, b, c, d = (float(number) for number in numbers)
            return a, b, c, d
        except (TypeError, ValueError):
            pass
    raise RecordError(f"{where}: a box is four numbers, got {numbers!r}")
