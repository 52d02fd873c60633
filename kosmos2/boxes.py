"""One box: normalised corners of a rectangle in a picture, (0, 0) top left and (1, 1) bottom right.

Pixels, widths and heights never travel under this name; they come in and go out by explicit
conversion only.
"""

import math
from dataclasses import dataclass
from typing import Self

from kosmos2.errors import BoxError

_ROUNDING = 1e-9
"""A sum of fractions may pass the border of the picture by this much and still mean the border."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle as fractions of the whole picture; zero width or height is allowed."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        for name in ("x0", "y0", "x1", "y1"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if not (0 <= self.x0 <= self.x1 <= 1 and 0 <= self.y0 <= self.y1 <= 1):
            raise BoxError(_refusal(self.corners))

    @classmethod
    def from_pixels(
        cls, corners: tuple[float, float, float, float], *, width: int, height: int
    ) -> Self:
        """Return the box of pixel corners (x0, y0, x1, y1) in a picture of this size.

        Nothing is clipped: corners outside the picture are refused.
        """
        _check_size(width, height)
        x0, y0, x1, y1 = corners
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise BoxError(
                f"pixel corners need 0 <= x0 <= x1 <= {width} and 0 <= y0 <= y1 <= {height} in a "
                f"picture of {width}x{height}, got {tuple(corners)}. "
                f"Clip them first, or use Box.from_xywh if these are (x, y, width, height)."
            )
        return cls(x0 / width, y0 / height, x1 / width, y1 / height)

    @classmethod
    def from_xywh(cls, xywh: tuple[float, float, float, float]) -> Self:
        """Return the box of a normalised top-left corner, width and height."""
        x, y, width, height = xywh
        return cls(x, y, _at_most_one(x + width), _at_most_one(y + height))

    @property
    def corners(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def to_pixels(self, *, width: int, height: int) -> tuple[float, float, float, float]:
        """Return (x0, y0, x1, y1) in pixels, not rounded."""
        _check_size(width, height)
        return self.x0 * width, self.y0 * height, self.x1 * width, self.y1 * height

    def to_xywh(self) -> tuple[float, float, float, float]:
        """Return the normalised top-left corner, width and height."""
        return self.x0, self.y0, self.width, self.height


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, 0 to 1.

    A box without area overlaps nothing but its equal.
    """
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    intersection = max(width, 0.0) * max(height, 0.0)
    union = a.area + b.area - intersection
    if a == b or union <= 0:
        return float(a == b)
    return min(intersection / union, 1.0)


def _number(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BoxError(f"Box.{name} needs a number, got {value!r}") from None
    if not math.isfinite(number):
        raise BoxError(f"Box.{name} needs a finite number, got {number}")
    return number


def _refusal(corners: tuple[float, float, float, float]) -> str:
    shown = ", ".join(f"{corner:g}" for corner in corners)
    message = f"Box needs 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1, got ({shown})."
    if max(corners) > 1:
        return f"{message} Are these pixels? Use Box.from_pixels(corners, width=…, height=…)."
    return f"{message} If these are a corner and a size, use Box.from_xywh."


def _check_size(width: int, height: int) -> None:
    if not (width > 0 and height > 0):
        raise BoxError(f"a picture needs a width and height above 0, got {width}x{height}")


def _at_most_one(value: float) -> float:
    return 1.0 if 1 < value <= 1 + _ROUNDING else value
