"""Words for where things are, said only when nobody would disagree."""

from collections.abc import Sequence

from kosmos2.boxes import Box

DOMINANCE = 1.3
"""How much larger than the other one the deciding distance must be."""
_CLEAR_OF_THIRDS = 0.03
_NEAR = 0.08

_ROWS = ("top", "", "bottom")
_COLUMNS = ("left", "", "right")


def relation(first: Sequence[Box], second: Sequence[Box]) -> str | None:
    """Return how the first group stands to the second: "to the left of", "above", ...; or None."""
    a, b = _hull(first), _hull(second)
    dx, dy = b[0] + b[2] - a[0] - a[2], b[1] + b[3] - a[1] - a[3]
    if abs(dx) >= DOMINANCE * abs(dy):
        return _apart(first, second, 0, ("to the left of", "to the right of"))
    if abs(dy) >= DOMINANCE * abs(dx):
        return _apart(first, second, 1, ("above", "below"))
    return None


def is_next_to(first: Box, second: Box) -> bool:
    """Return whether two things stand side by side with little between them."""
    gap = max(second.x0 - first.x1, first.x0 - second.x1)
    shared = min(first.y1, second.y1) - max(first.y0, second.y0)
    return -0.02 <= gap <= _NEAR and shared >= 0.5 * min(first.height, second.height)


def zone(boxes: Sequence[Box]) -> str | None:
    """Return the words for the ninth, row or column of the picture that holds all centres."""
    cells = [(_third((b.x0 + b.x1) / 2), _third((b.y0 + b.y1) / 2)) for b in boxes]
    columns, rows = {column for column, _ in cells}, {row for _, row in cells}
    column = columns.pop() if len(columns) == 1 else None
    row = rows.pop() if len(rows) == 1 else None
    if column is not None and row is not None:
        return _cell_words(column, row)
    if row in (0, 2):
        return f"at the {_ROWS[row]}"
    if column in (0, 2):
        return f"on the {_COLUMNS[column]}"
    return None


def _cell_words(column: int, row: int) -> str:
    if column == 1:
        return "in the middle" if row == 1 else f"at the {_ROWS[row]}"
    if row == 1:
        return f"on the {_COLUMNS[column]}"
    return f"in the {_ROWS[row]} {_COLUMNS[column]} corner"


def _third(value: float) -> int | None:
    if min(abs(value - 1 / 3), abs(value - 2 / 3)) < _CLEAR_OF_THIRDS:
        return None
    return min(2, int(value * 3))


def _hull(boxes: Sequence[Box]) -> tuple[float, float, float, float]:
    return (
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )


def _apart(
    first: Sequence[Box], second: Sequence[Box], axis: int, words: tuple[str, str]
) -> str | None:
    """Return the first word if all the first centres come before all the second ones."""
    a = [box.corners[axis] + box.corners[axis + 2] for box in first]
    b = [box.corners[axis] + box.corners[axis + 2] for box in second]
    if max(a) < min(b):
        return words[0]
    return words[1] if max(b) < min(a) else None
