"""Boxes as pairs of grid cells: the upper-left and the lower-right cell, counted row by row.

The codec is pinned, not improved: the released weights speak it.
"""

import math
from dataclasses import dataclass

from kosmos2.boxes import Box
from kosmos2.errors import BoxError


@dataclass(frozen=True, slots=True)
class LocationGrid:
    """A picture cut into bins x bins cells."""

    bins: int = 32

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise BoxError(f"a location grid needs at least one bin, got {self.bins}")

    def decode(self, upper_left: int, lower_right: int) -> Box:
        """Return the box of two cells; refuse cells outside the grid or in the wrong order."""
        last = self.bins * self.bins - 1
        if not (0 <= upper_left <= last and 0 <= lower_right <= last):
            raise BoxError(
                f"cells need to be in 0..{last} for a grid of {self.bins}x{self.bins}, "
                f"got ({upper_left}, {lower_right})"
            )
        # Compared by cell: the corners of a thin pair that is swapped by one cell coincide.
        if upper_left % self.bins > lower_right % self.bins or upper_left > lower_right:
            raise BoxError(
                f"the lower-right cell {lower_right} lies left of or above the upper-left cell "
                f"{upper_left} in a grid of {self.bins}x{self.bins}"
            )
        return Box(*self.decode_corners(upper_left, lower_right))

    def decode_corners(
        self, upper_left: int, lower_right: int
    ) -> tuple[float, float, float, float]:
        """Return (x0, y0, x1, y1) of any two cells as both references do, unchecked.

        Cells that share a row or a column give their outer edges, on both axes; others give their
        centres. Cells in the wrong order give an inverted box, cells outside give corners outside.
        """
        top, left = divmod(upper_left, self.bins)
        bottom, right = divmod(lower_right, self.bins)
        thin = left == right or top == bottom
        near, far = (0.0, 1.0) if thin else (0.5, 0.5)
        return (
            (left + near) / self.bins,
            (top + near) / self.bins,
            (right + far) / self.bins,
            (bottom + far) / self.bins,
        )

    def encode(self, box: Box) -> tuple[int, int]:
        """Return (upper-left, lower-right) by the rule of transformers, which undoes `decode`.

        Unlike there, boxes without width or height are welcome, and no cell is ever outside.
        """
        return self._cells(
            (math.floor(self._scaled(box.x0)), math.floor(self._scaled(box.y0))),
            (math.ceil(self._scaled(box.x1) - 1), math.ceil(self._scaled(box.y1) - 1)),
        )

    def encode_as_trained(self, box: Box) -> tuple[int, int]:
        """Return (upper-left, lower-right) by the rule of the original training code.

        A lower-right corner on the edge between two cells goes to the farther one, so this does not
        undo `decode` for boxes one cell wide or high.
        """
        # The original limits the corner to 0.99999; keeping it in the last cell is the same.
        return self._cells(
            (math.floor(self._scaled(box.x0)), math.floor(self._scaled(box.y0))),
            (math.floor(self._scaled(box.x1)), math.floor(self._scaled(box.y1))),
        )

    def _scaled(self, fraction: float) -> float:
        """Return the fraction in cells, exact on edges also where bins is no power of two."""
        edge = round(fraction * self.bins)
        return float(edge) if edge / self.bins == fraction else fraction * self.bins

    def _cells(self, upper_left: tuple[int, int], lower_right: tuple[int, int]) -> tuple[int, int]:
        last = self.bins - 1
        left, top = (min(cell, last) for cell in upper_left)
        right = max(min(lower_right[0], last), left)
        bottom = max(min(lower_right[1], last), top)
        return top * self.bins + left, bottom * self.bins + right
