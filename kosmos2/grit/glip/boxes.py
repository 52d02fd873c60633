"""From what the network saw in a picture to boxes of phrases (rpn/inference.py, ATSSPostProcessor).

Boxes are (left, top, right, bottom) in pixels of the scaled picture; right and bottom are the last
pixels inside, so that a box has a width of right - left + 1 (TO_REMOVE in the reference).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.grit.glip.network import Seen

STRIDES = (8, 16, 32, 64, 128)
"""Pixels between the cells of each level; an anchor has sides of eight of them."""
ANCHORS = tuple(8 * stride for stride in STRIDES)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LONGEST_STEP = math.log(1000 / 16)
"""Of the logarithm of a side, from anchor to box."""

LEAST = 0.05
"""Of a phrase's mean probability, before centredness is counted (ATSS.INFERENCE_TH)."""
PER_LEVEL = 1000
"""Rows of a level that go on, of all phrases together (ATSS.PRE_NMS_TOP_N)."""
OVERLAP = 0.6
"""Of two boxes of one phrase: more, and the surer one stays (ATSS.NMS_TH)."""
PER_PICTURE = 100
"""Rows that remain, of all phrases together (ATSS.DETECTIONS_PER_IMG)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Boxes with the phrase that each is of."""

    phrase_R: Tensor
    score_R: Tensor
    box_R4: Tensor
    """Pixels."""

    def pick(self, index: Tensor) -> Rows:
        """Return the rows at these places."""
        return Rows(self.phrase_R[index], self.score_R[index], self.box_R4[index])


def find(seen: Sequence[Seen], picture: int, share_NT: Tensor, size: tuple[int, int]) -> Rows:
    """Return at most 100 boxes of one picture of the batch, the surest first, on the CPU.

    `share_NT` is 1 / n for each of a phrase's n tokens; `size` the rows and columns of pixels that
    are no padding.
    """
    levels = [_of_level(n, level, picture, share_NT, size) for n, level in enumerate(seen)]
    rows = Rows(
        torch.cat([each.phrase_R for each in levels]).cpu(),
        torch.cat([each.score_R for each in levels]).cpu(),
        torch.cat([each.box_R4 for each in levels]).cpu(),
    )
    kept = [
        of_phrase[suppress(rows.box_R4[of_phrase], rows.score_R[of_phrase])]
        for number in sorted(set(rows.phrase_R.tolist()))
        for of_phrase in [(rows.phrase_R == number).nonzero()[:, 0]]
    ]
    if not kept:
        return rows
    rows = rows.pick(torch.cat(kept))
    return rows.pick(rows.score_R.argsort(descending=True, stable=True)[:PER_PICTURE])


def suppress(box_R4: Tensor, score_R: Tensor) -> Tensor:
    """Return which boxes overlap no surer one that stays too much; at most 100 do."""
    waiting_R = score_R.argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    while len(waiting_R) and len(kept) < PER_PICTURE:
        kept.append(waiting_R[0])
        waiting_R = waiting_R[1:]
        waiting_R = waiting_R[overlap(box_R4[kept[-1]], box_R4[waiting_R]) <= OVERLAP]
    return torch.stack(kept) if kept else waiting_R


def overlap(box_4: Tensor, box_R4: Tensor) -> Tensor:
    """Return overlap_R of one box with others: intersection over union of whole pixels."""
    sides_R2 = torch.minimum(box_4[2:], box_R4[:, 2:]) - torch.maximum(box_4[:2], box_R4[:, :2])
    shared_R = (sides_R2 + 1).clamp(min=0).prod(-1)
    return shared_R / (_area(box_4) + _area(box_R4) - shared_R)


def anchors(level: int, rows: int, columns: int) -> Tensor:
    """Return anchor_V4 of the cells of a level, row by row: squares around the cells' centres."""
    middle = (STRIDES[level] - 1) / 2
    y_V, x_V = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).unbind(-1)
    centre_V2 = torch.stack([x_V, y_V], dim=-1) * STRIDES[level] + middle
    half = (ANCHORS[level] - 1) / 2
    return torch.cat([centre_V2 - half, centre_V2 + half], dim=-1)


def decode(shift_R4: Tensor, anchor_R4: Tensor) -> Tensor:
    """Return box_R4: anchors moved by parts of their sides, and scaled (BoxCoder.decode)."""
    shift_R4 = shift_R4 / shift_R4.new_tensor(WEIGHTS)
    side_R2 = anchor_R4[:, 2:] - anchor_R4[:, :2] + 1
    centre_R2 = (anchor_R4[:, :2] + anchor_R4[:, 2:]) / 2 + shift_R4[:, :2] * side_R2
    side_R2 = shift_R4[:, 2:].clamp(max=LONGEST_STEP).exp() * side_R2
    return torch.cat([centre_R2 - (side_R2 - 1) / 2, centre_R2 + (side_R2 - 1) / 2], dim=-1)


def _of_level(
    number: int, seen: Seen, picture: int, share_NT: Tensor, size: tuple[int, int]
) -> Rows:
    probability_VN = seen.logits_BVT[picture].sigmoid() @ share_NT.T
    cell_R, phrase_R = (probability_VN > LEAST).nonzero().unbind(-1)
    certainty_R = probability_VN[cell_R, phrase_R] * seen.centred_BV[picture].sigmoid()[cell_R]
    first_R = certainty_R.argsort(descending=True, stable=True)[:PER_LEVEL]
    cell_R = cell_R[first_R]

    anchor_V4 = anchors(number, *seen.size).to(cell_R.device)
    box_R4 = decode(seen.shifts_BV4[picture][cell_R], anchor_V4[cell_R])
    last_4 = box_R4.new_tensor([size[1] - 1, size[0] - 1]).repeat(2)
    box_R4 = torch.minimum(box_R4.clamp(min=0), last_4)
    return Rows(phrase_R[first_R], certainty_R[first_R].sqrt(), box_R4)


def _area(box: Tensor) -> Tensor:
    return (box[..., 2:] - box[..., :2] + 1).prod(-1)
