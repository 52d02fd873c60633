"""What every patch of a picture shows, where that is known: a teacher for the vision tower alone.

The released model starts from a CLIP tower. A tower that starts from nothing learns what and where
far sooner from one answer for every patch than from the few words of a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.boxes import Box
from kosmos2.vocab.locations import LocationGrid

UNKNOWN = -100
"""Not a target; the value that PyTorch's cross-entropy ignores."""
BACKGROUND = 0


@dataclass(frozen=True, slots=True)
class PatchTargets:
    """For each of the P - 1 patches: a noun's number, and the cells of its box's four sides."""

    noun_P: Tensor
    """0 is background, 1 the first noun, ..."""
    sides_P4: Tensor
    """Column, row of the first and of the last cell; unknown at the background."""


def unknown(side: int) -> PatchTargets:
    """Return the targets of a picture of which nothing is known, for side x side patches."""
    return PatchTargets(torch.full((side**2,), UNKNOWN), torch.full((side**2, 4), UNKNOWN))


def patch_targets(
    things: Sequence[tuple[int, Box]], *, side: int, grid: LocationGrid
) -> PatchTargets:
    """Return the targets: a patch shows the smallest thing whose box holds the patch's centre."""
    noun_YX = torch.full((side, side), BACKGROUND)
    sides_YX4 = torch.full((side, side, 4), UNKNOWN)
    centre = (torch.arange(side) + 0.5) / side
    for noun, box in sorted(things, key=lambda thing: -thing[1].area):
        inside_X = (centre >= box.x0) & (centre <= box.x1)
        inside_Y = (centre >= box.y0) & (centre <= box.y1)
        inside_YX = inside_Y[:, None] & inside_X
        first, last = grid.encode(box)
        noun_YX[inside_YX] = noun
        sides_YX4[inside_YX] = torch.tensor(
            [first % grid.bins, first // grid.bins, last % grid.bins, last // grid.bins]
        )
    return PatchTargets(noun_YX.flatten(), sides_YX4.flatten(0, 1))
