"""The peer: transformers' Kosmos-2 in a plain PyTorch loop, a row for each picture and lesson.

`python -m benchmarks.training_peer FOLDER` trains it alone and prints one line of JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from transformers import Kosmos2ForConditionalGeneration

from benchmarks.training_cases import Job
from benchmarks.training_race import Clock, Taken, say_lane
from kosmos2 import images
from kosmos2.data.collate import PREFIX_LESSON, Row
from kosmos2.model.decoder import PADDING_ID
from kosmos2.training.schedule import learning_rate

IGNORED = -100
"""The label that transformers leaves out of its mean."""


@dataclass(frozen=True, slots=True)
class Example:
    """One lesson as transformers reads it: the picture's place, the prompt, the answer."""

    pixels_CYX: Tensor
    ids: list[int]
    image_mask: list[bool]
    labels: list[int]
    """Place for place with `ids`, not shifted; IGNORED where nothing is learnt."""


def examples(row: Row) -> list[Example]:
    """Return the lessons of a packed row of one picture, each behind the picture alone."""
    assert len(row.pixels_ICYX) == 1
    start = row.lesson.count(PREFIX_LESSON)
    changes = zip(row.lesson[start - 1 :], row.lesson[start:], strict=False)
    firsts = [place for place, (old, new) in enumerate(changes, start) if old != new]
    found = [
        Example(
            row.pixels_ICYX[0],
            [*row.ids[:start], *row.ids[first:stop]],
            [*row.image_mask[:start], *row.image_mask[first:stop]],
            [IGNORED] * (start + stop - first),
        )
        for first, stop in zip(firsts, [*firsts[1:], len(row)], strict=True)
    ]
    following = [*row.sources[1:], -1]
    for source, after, target in zip(row.sources, following, row.targets, strict=True):
        # The first token of every lesson is predicted from the prefix.
        number = row.lesson[source if source >= start else after] - 1
        place = start + (source - firsts[number] + 1 if source >= start else 0)
        example = found[number]
        if place == len(example.ids):  # the last token, which our rows never read
            example.ids.append(target)
            example.image_mask.append(False)
            example.labels.append(IGNORED)
        example.labels[place] = target
    return found


@dataclass(frozen=True, slots=True)
class Padded:
    """What the loop gives to the model, padded on the right to the longest row."""

    pixels_NCYX: Tensor
    ids_BT: Tensor
    keep_BT: Tensor
    image_mask_BT: Tensor
    labels_BT: Tensor

    def to(self, device: torch.device) -> Padded:
        """Return the batch on `device`."""
        return Padded(*(getattr(self, each.name).to(device) for each in fields(self)))


def padded(rows: Sequence[Example]) -> Padded:
    """Return the rows as one batch."""
    length = max(len(row.ids) for row in rows)

    def right(values: Sequence[Sequence[int]], filler: int) -> Tensor:
        return torch.tensor([[*each, *[filler] * (length - len(each))] for each in values])

    return Padded(
        torch.stack([row.pixels_CYX for row in rows]),
        right([row.ids for row in rows], PADDING_ID),
        right([[1] * len(row.ids) for row in rows], 0),
        right([row.image_mask for row in rows], 0),
        right([row.labels for row in rows], IGNORED),
    )


class Peer:
    """A model, its AdamW and a step; nothing is done here that a careful user would not do."""

    def __init__(self, job: Job, folder: Path, attention: str) -> None:
        """`folder` is where the job was written; `attention` as transformers names it."""
        self.job = job
        self.device = torch.device(job.device)
        self.model = Kosmos2ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention
        ).to(self.device)
        self.model.train()
        asked = job.recipe.optimizer
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [each for each in parameters if each.ndim >= 2]},
                {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
            ],
            lr=asked.learning_rate,
            betas=asked.betas,
            eps=asked.eps,
            weight_decay=asked.weight_decay,
            fused=True,
        )

    def step(self, number: int) -> Taken:
        """Take step 0, 1, ...; rows are cut from samples before the clock runs."""
        rows = [each for row in self.job.samples(number) for each in examples(row)]
        clock = Clock()
        batch = padded(rows).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.job.recipe.optimizer, number)
        self.optimizer.zero_grad()
        with self._precision():
            loss = self.model(
                pixel_values=images.normalise(batch.pixels_NCYX),
                input_ids=batch.ids_BT,
                attention_mask=batch.keep_BT,
                image_embeds_position_mask=batch.image_mask_BT,
                labels=batch.labels_BT,
                use_cache=False,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job.recipe.optimizer.clip)
        self.optimizer.step()
        return clock.taken(loss.item())

    def _precision(self) -> AbstractContextManager[object]:
        if self.job.case.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def main() -> None:
    folder = Path(sys.argv[1])
    job = Job.read(folder)
    torch.set_num_threads(job.threads)
    peer = Peer(job, folder, "sdpa")
    say_lane([peer.step(number) for number in range(job.case.steps)], job)


if __name__ == "__main__":
    main()
