"""GLIP's decoding by loops, one cell and one phrase at a time, from the reference's steps."""

import math
from collections.abc import Sequence
from itertools import product

from kosmos2.grit.glip.network import Seen

LevelSize = tuple[int, int]
Row = tuple[int, float, tuple[float, ...]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def decoded(shift: Sequence[float], anchor: Sequence[float]) -> tuple[float, ...]:
    """Return the box of an anchor, by the formulas of R-CNN with sides that count both ends."""
    corners = []
    for low in (0, 1):
        side = anchor[low + 2] - anchor[low] + 1
        centre = (anchor[low + 2] + anchor[low]) / 2 + shift[low] / 10 * side
        side *= math.exp(min(shift[low + 2] / 5, math.log(1000 / 16)))
        corners.append((centre - (side - 1) / 2, centre + (side - 1) / 2))
    return corners[0][0], corners[1][0], corners[0][1], corners[1][1]


def of_cell(
    level: Seen, number: int, picture: int, cell: int, phrase: Sequence[int]
) -> tuple[float, tuple[float, ...]] | None:
    """Return the score and the unclipped box of a cell for a phrase, if it is likely enough."""
    logits = [float(level.logits_BVT[picture, cell, token]) for token in phrase]
    mean = sum(map(sigmoid, logits)) / len(logits) if phrase else 0
    if mean <= 0.05:
        return None
    stride = 8 * 2**number
    y, x = divmod(cell, level.size[1])
    low = [x * stride + (stride - 1) / 2, y * stride + (stride - 1) / 2]
    half = (8 * stride - 1) / 2
    anchor = [low[0] - half, low[1] - half, low[0] + half, low[1] + half]
    score = math.sqrt(mean * sigmoid(float(level.centred_BV[picture, cell])))
    return score, decoded(level.shifts_BV4[picture, cell].tolist(), anchor)


def slow(
    levels: Sequence[Seen],
    picture: int,
    phrases: Sequence[Sequence[int]],
    size: LevelSize,
    per_level: int = 1000,
) -> list[Row]:
    """Return the rows as the reference's steps give them, one cell and one phrase at a time."""
    rows: list[Row] = []
    most = (size[1] - 1, size[0] - 1) * 2
    for number, level in enumerate(levels):
        of_level: list[Row] = []
        for cell, (n, phrase) in product(range(level.size[0] * level.size[1]), enumerate(phrases)):
            if found := of_cell(level, number, picture, cell, phrase):
                score, box = found
                inside = zip(box, most, strict=True)
                of_level.append((n, score, tuple(min(max(at, 0), top) for at, top in inside)))
        rows += sorted(of_level, key=lambda row: -row[1])[:per_level]
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: -row[1]):
        if all(row[0] != other[0] or area_shared(row[2], other[2]) <= 0.6 for other in kept):
            kept.append(row)
    return kept[:100]


def area_shared(a: Sequence[float], b: Sequence[float]) -> float:
    def area(box: Sequence[float]) -> float:
        return max(0, box[2] - box[0] + 1) * max(0, box[3] - box[1] + 1)

    both = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return both / (area(a) + area(b) - both)
