"""What the last steps were like, and where their time went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.data.collate import PADDING_LESSON, Batch
from kosmos2.training.loss import Losses
from kosmos2.training.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the last steps were like, on all ranks; one line of `log.jsonl`.

    Losses are in nats per target.
    """

    step: int
    pictures: int
    """Samples since the first step; those of text alone count too."""
    text_loss: float
    location_loss: float
    patch_loss: float
    learning_rate: float
    gradient_norm: float
    pictures_per_second: float
    """Samples."""
    tokens_per_second: float
    """Positions of the decoder that are no padding."""
    waiting_share: float
    """Share of the time in which the step waited for data."""
    mfu: float | None
    """Share of the devices' peak that the network's own arithmetic used; None: peak not known."""


class Meter:
    """Sums over the steps since the last line of the log.

    Checkpoints and evaluations are neither work nor waiting.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.waited = self.worked = 0.0
        self.steps = self.samples = self.tokens = 0
        self.flops = 0.0
        self.sums = [torch.zeros(()) for _ in range(5)]
        self._since = time.perf_counter()

    def start_waiting(self) -> None:
        """Say that the next batches are asked for."""
        self._lap()

    def data_arrived(self, batches: Sequence[Batch], flops: float) -> None:
        """Count what comes in and what it will cost this rank, in floating-point operations."""
        self.waited += self._lap()
        self.steps += 1
        self.flops += flops
        for batch in batches:
            self.samples += batch.num_samples
            self.tokens += int((batch.lesson_BT != PADDING_LESSON).sum())

    def step_done(self) -> None:
        """Say that the weights have changed."""
        self.worked += self._lap()

    def count(self, losses: Losses) -> None:
        """Add the losses of one batch."""
        parts = losses[1:]  # all but the objective
        # They stay on the device: reading them here would make it wait.
        self.sums = [total + part for total, part in zip(self.sums, parts, strict=True)]

    def progress(
        self, *, step: int, samples: int, rate: float, norm: Tensor, peak: float | None
    ) -> Progress:
        """Return the line of the log; every rank calls it. `peak`: one device's flops a second."""
        elapsed = self.waited + self.worked
        sums = self.ranks.sum(torch.stack([each.float() for each in self.sums])).tolist()
        text, text_count, location, location_count, patch = sums
        amounts = torch.tensor([self.samples, self.tokens, self.flops], dtype=torch.float64)
        done, tokens, flops = self.ranks.sum(amounts.to(norm.device)).tolist()
        return Progress(
            step=step,
            pictures=samples,
            text_loss=text / max(1, text_count),
            location_loss=location / max(1, location_count),
            patch_loss=patch / self.steps,
            learning_rate=rate,
            gradient_norm=norm.item(),
            pictures_per_second=done / elapsed,
            tokens_per_second=tokens / elapsed,
            waiting_share=self.waited / elapsed,
            mfu=None if peak is None else flops / elapsed / (peak * self.ranks.size),
        )

    def _lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before
