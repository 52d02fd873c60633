"""Passages behind pictures as one packed row, rows as one padded batch.

Letters of `model`, I pictures (of a row or a batch, in reading order), and L targets: every target
is predicted from the hidden state at its *source* position, which for the first token of a lesson
is the `</image>` of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Passage
from kosmos2.data.patches import PatchTargets
from kosmos2.model.decoder import PADDING_ID

PADDING_LESSON = -1
NO_SAMPLE = -1
"""In a row that holds nothing."""
PREFIX_LESSON = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B rows padded to T positions, with the I pictures of all of them."""

    pixels_ICYX: Tensor
    """uint8, square, in the order in which they are read; the trainer normalises on the device."""
    ids_BT: Tensor
    image_mask_BT: Tensor
    lesson_BT: Tensor
    """0 in the prefix, 1, 2, ... in the lessons, -1 at padding."""
    sample_BT: Tensor
    """0, 1, ... in a row of several samples, of which none sees another; padding is of the last."""
    positions_BT: Tensor
    source_L: Tensor
    """Where a target is predicted from, as an index into the flattened B * T positions."""
    target_L: Tensor
    noun_IP: Tensor
    """What each patch (without the class token) shows; see `data.patches`."""
    sides_IP4: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(**{each.name: getattr(self, each.name).to(device) for each in fields(self)})

    def attention_mask(self) -> Tensor:
        """Return mask_BTT, True where a position may look: back in its sample, at its lesson and
        the prefix."""
        lesson_BT1, lesson_B1T = self.lesson_BT[:, :, None], self.lesson_BT[:, None, :]
        length = self.ids_BT.shape[1]
        causal_TT = torch.ones(length, length, dtype=torch.bool, device=self.ids_BT.device).tril()
        lesson_BTT = (lesson_B1T == PREFIX_LESSON) | (lesson_B1T == lesson_BT1)
        return causal_TT & lesson_BTT & (self.sample_BT[:, None, :] == self.sample_BT[:, :, None])

    @property
    def num_samples(self) -> int:
        """Return of how many samples the rows are."""
        return int((self.sample_BT.amax(1) + 1).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one sample teaches, packed: a prefix, and passages that see it and themselves."""

    pixels_ICYX: Tensor
    """The row's pictures in reading order, uint8; a row of text alone has none, (0, 3, Y, X)."""
    noun_IP: Tensor
    sides_IP4: Tensor
    ids: list[int]
    image_mask: list[bool]
    lesson: list[int]
    sample: list[int]
    positions: list[int]
    sources: list[int]
    targets: list[int]
    left_out: tuple[Rejected, ...] = ()
    """Boxes, pictures or lessons of the sample that could not be used."""

    def __len__(self) -> int:
        return len(self.ids)


def pack(
    pixels_CYX: Tensor,
    patches: PatchTargets,
    prefix: tuple[Sequence[int], Sequence[bool]],
    lessons: Sequence[Lesson | Passage],
) -> Row:
    """Return the row of one picture, which stands in the prefix."""
    pictures = Pictures(pixels_CYX[None], patches.noun_P[None], patches.sides_P4[None])
    return pack_all(pictures, prefix, lessons)


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one row, and what their patches show."""

    pixels_ICYX: Tensor
    noun_IP: Tensor
    sides_IP4: Tensor


def pack_all(
    pictures: Pictures,
    prefix: tuple[Sequence[int], Sequence[bool]],
    lessons: Sequence[Lesson | Passage],
) -> Row:
    """Return the row of any pictures, in the prefix or in passages, in the order they are read.

    Positions go on from the prefix in every passage, so each is as if alone.
    """
    ids, image_mask = list(prefix[0]), list(prefix[1])
    start = len(ids)
    row = Row(
        pixels_ICYX=pictures.pixels_ICYX,
        noun_IP=pictures.noun_IP,
        sides_IP4=pictures.sides_IP4,
        ids=ids,
        image_mask=image_mask,
        lesson=[PREFIX_LESSON] * start,
        sample=[0] * start,
        positions=[place + 1 + PADDING_ID for place in range(start)],
        sources=[],
        targets=[],
    )
    for number, lesson in enumerate(lessons, 1):
        _append(row, lesson.passage(), number, start)
    return row


def _append(row: Row, passage: Passage, number: int, start: int) -> None:
    source = start - 1
    for offset, token in enumerate(passage.ids):
        if passage.learnt[offset]:
            row.sources.append(source)
            row.targets.append(token)
        if offset == len(passage.ids) - 1:
            break  # the last token is predicted and never read
        source = len(row.ids)
        row.ids.append(token)
        row.image_mask.append(passage.image_mask[offset])
        row.lesson.append(number)
        row.sample.append(0)
        row.positions.append(start + offset + 1 + PADDING_ID)


def joined(rows: Sequence[Row]) -> Row:
    """Return samples one after the other as one row, in which none sees another."""
    if len(rows) == 1:
        return rows[0]
    starts = list(accumulate((len(row) for row in rows), initial=0))
    numbered = list(zip(starts, rows, strict=False))
    return Row(
        pixels_ICYX=torch.cat([row.pixels_ICYX for row in rows]),
        noun_IP=torch.cat([row.noun_IP for row in rows]),
        sides_IP4=torch.cat([row.sides_IP4 for row in rows]),
        ids=[each for row in rows for each in row.ids],
        image_mask=[each for row in rows for each in row.image_mask],
        lesson=[each for row in rows for each in row.lesson],
        sample=[number for number, row in enumerate(rows) for _ in row.ids],
        positions=[each for row in rows for each in row.positions],
        sources=[start + source for start, row in numbered for source in row.sources],
        targets=[each for row in rows for each in row.targets],
    )


def collate(rows: Sequence[Row], *, multiple: int) -> Batch:
    """Return rows padded on the right to the next multiple of positions."""
    length = max(len(row.ids) for row in rows)
    length += -length % multiple

    def padded(values: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([value + [filler] * (length - len(value)) for value in values])

    return Batch(
        pixels_ICYX=torch.cat([row.pixels_ICYX for row in rows]),
        ids_BT=padded([row.ids for row in rows], PADDING_ID),
        image_mask_BT=padded([[int(m) for m in row.image_mask] for row in rows], 0).bool(),
        lesson_BT=padded([row.lesson for row in rows], PADDING_LESSON),
        sample_BT=torch.tensor([_to(length, row.sample) for row in rows]),
        positions_BT=padded([row.positions for row in rows], PADDING_ID),
        source_L=torch.tensor(
            [n * length + source for n, row in enumerate(rows) for source in row.sources],
            dtype=torch.long,
        ),
        target_L=torch.tensor([target for row in rows for target in row.targets], dtype=torch.long),
        noun_IP=torch.cat([row.noun_IP for row in rows]),
        sides_IP4=torch.cat([row.sides_IP4 for row in rows]),
    )


def _to(length: int, values: list[int]) -> list[int]:
    """Return the values, the last repeated."""
    return values + values[-1:] * (length - len(values))
