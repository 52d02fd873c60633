"""Lessons behind one picture as one packed row, rows as one padded batch.

Letters of `model`, and L targets: every target is predicted from the hidden state at its *source*
position, which for the first token of a lesson is the `</image>` of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from kosmos2.data.lessons import Lesson
from kosmos2.data.patches import PatchTargets
from kosmos2.model.decoder import PADDING_ID

PADDING_LESSON = -1
PREFIX_LESSON = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B pictures with their lessons, padded to T positions."""

    pixels_BCYX: Tensor
    """uint8, square; the trainer normalises on the device."""
    ids_BT: Tensor
    image_mask_BT: Tensor
    lesson_BT: Tensor
    """0 in the prefix, 1, 2, ... in the lessons, -1 at padding."""
    positions_BT: Tensor
    source_L: Tensor
    """Where a target is predicted from, as an index into the flattened B * T positions."""
    target_L: Tensor
    noun_BP: Tensor
    """What each patch (without the class token) shows; see `data.patches`."""
    sides_BP4: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(**{each.name: getattr(self, each.name).to(device) for each in fields(self)})

    def attention_mask(self) -> Tensor:
        """Return mask_BTT, True where a position may look: back, in its lesson or the prefix."""
        lesson_BT1, lesson_B1T = self.lesson_BT[:, :, None], self.lesson_BT[:, None, :]
        length = self.ids_BT.shape[1]
        causal_TT = torch.ones(length, length, dtype=torch.bool, device=self.ids_BT.device).tril()
        return causal_TT & ((lesson_B1T == PREFIX_LESSON) | (lesson_B1T == lesson_BT1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture and its lessons, packed."""

    pixels_CYX: Tensor
    patches: PatchTargets
    ids: list[int]
    image_mask: list[bool]
    lesson: list[int]
    positions: list[int]
    sources: list[int]
    targets: list[int]


def pack(
    pixels_CYX: Tensor,
    patches: PatchTargets,
    prefix: tuple[Sequence[int], Sequence[bool]],
    lessons: Sequence[Lesson],
) -> Row:
    """Return the row; positions go on from the prefix in every lesson, so each is as if alone."""
    ids, image_mask = list(prefix[0]), list(prefix[1])
    start = len(ids)
    row = Row(
        pixels_CYX=pixels_CYX,
        patches=patches,
        ids=ids,
        image_mask=image_mask,
        lesson=[PREFIX_LESSON] * start,
        positions=[place + 1 + PADDING_ID for place in range(start)],
        sources=[],
        targets=[],
    )
    for number, lesson in enumerate(lessons, 1):
        source = start - 1
        for offset, token in enumerate((*lesson.prompt, *lesson.answer)):
            if offset >= len(lesson.prompt):
                row.sources.append(source)
                row.targets.append(token)
            if offset == len(lesson) - 1:
                break  # the last token is predicted and never read
            source = len(row.ids)
            row.ids.append(token)
            row.image_mask.append(False)
            row.lesson.append(number)
            row.positions.append(start + offset + 1 + PADDING_ID)
    return row


def collate(rows: Sequence[Row], *, multiple: int) -> Batch:
    """Return rows padded on the right to the next multiple of positions."""
    length = max(len(row.ids) for row in rows)
    length += -length % multiple

    def padded(values: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([value + [filler] * (length - len(value)) for value in values])

    return Batch(
        pixels_BCYX=torch.stack([row.pixels_CYX for row in rows]),
        ids_BT=padded([row.ids for row in rows], PADDING_ID),
        image_mask_BT=padded([[int(m) for m in row.image_mask] for row in rows], 0).bool(),
        lesson_BT=padded([row.lesson for row in rows], PADDING_LESSON),
        positions_BT=padded([row.positions for row in rows], PADDING_ID),
        source_L=torch.tensor(
            [n * length + source for n, row in enumerate(rows) for source in row.sources],
            dtype=torch.long,
        ),
        target_L=torch.tensor([target for row in rows for target in row.targets], dtype=torch.long),
        noun_BP=torch.stack([row.patches.noun_P for row in rows]),
        sides_BP4=torch.stack([row.patches.sides_P4 for row in rows]),
    )
