"""Our side of the races, through the public `Runner` and `Engine`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.prompts import Prompts, vocabulary
from kosmos2.engine import Engine, NoRepeat, Request, Rules, Runner
from kosmos2.engine.cache import RowCache
from kosmos2.engine.runner import FIRST_POSITION
from kosmos2.engine.scheduler import Limits

GREEDY = Rules(no_repeat=NoRepeat.OFF)


@dataclass
class OurRows:
    """Rows in the middle of their answers."""

    cache: RowCache
    next_ids: list[int]


class Ours:
    """Our engine behind the calls that the tables make."""

    def __init__(self, runner: Runner, name: str) -> None:
        self.runner = runner
        self.precision = str(runner.precision)
        self.name = name
        self._words = vocabulary(runner.config)
        # Prompts are known by the tensor of their picture, which each repetition encodes anew.
        self._engine = Engine(runner, self._words)

    @torch.inference_mode()
    def encode(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD."""
        return self.runner.encode_images(pixels_NCYX)

    @torch.inference_mode()
    def prefill(self, prompts: Prompts, latents_NQD: Tensor) -> OurRows:
        """Read the prompts; return the rows with their first new tokens."""
        rows, length = prompts.ids_BT.shape
        cache = self.runner.new_cache(rows, length + 64)
        hidden_BD = self._read(cache, prompts, latents_NQD, only_last=True)
        return OurRows(cache, self.runner.logits(hidden_BD).argmax(dim=-1).tolist())

    @torch.inference_mode()
    def filled(self, rows: int, past: int) -> OurRows:
        """Return rows with a random past, to time steps far into a text."""
        cache = self.runner.new_cache(rows, past + 64)
        cache.memory[:, :, :past].normal_()
        cache.lengths = [past] * rows
        return OurRows(cache, [*range(100, 100 + rows)])

    def rewind(self, rows: OurRows, past: int) -> None:
        """Forget the tokens behind the first `past` of each row."""
        rows.cache.lengths = [past] * rows.cache.num_rows

    def first_rows(self, rows: OurRows, count: int, past: int) -> OurRows:
        """Return the first rows alone, in the same memory, rewound."""
        self.rewind(rows, past)
        return OurRows(rows.cache, rows.next_ids[:count])

    @torch.inference_mode()
    def step(self, rows: OurRows) -> None:
        """Read the newest tokens, choose the next ones greedily."""
        count = len(rows.next_ids)
        positions = [length + FIRST_POSITION for length in rows.cache.lengths[:count]]
        x_ND = self.runner.enter(rows.next_ids, positions, [False] * count, None)
        hidden_ND = self.runner.extend(rows.cache, 0, x_ND, [1] * count, range(count))
        rows.next_ids = self.runner.logits(hidden_ND).argmax(dim=-1).tolist()

    def caption(self, pixels_NCYX: Tensor, prompts: Prompts, count: int) -> list[list[int]]:
        """Return the new tokens of each picture, by `Engine.generate`."""
        latents_NQD = self._engine.encode_images(pixels_NCYX)
        return self._generate(self._engine, prompts, list(latents_NQD), count)

    def answer(self, prompts: Prompts, latents_QD: Tensor, count: int) -> list[list[int]]:
        """Return the new tokens of several prompts about one picture, which is read once."""
        engine = Engine(self.runner, self._words, Limits(max_rows=32))
        return self._generate(engine, prompts, [latents_QD] * len(prompts.ids_BT), count)

    @torch.inference_mode()
    def score(self, prompts: Prompts, latents_NQD: Tensor) -> Tensor:
        """Return float32 logits_BTV of whole texts."""
        cache = self.runner.new_cache(*prompts.ids_BT.shape)
        hidden_ND = self._read(cache, prompts, latents_NQD, only_last=False)
        return self.runner.logits(hidden_ND).view(*prompts.ids_BT.shape, -1)

    def _read(
        self, cache: RowCache, prompts: Prompts, latents_NQD: Tensor, *, only_last: bool
    ) -> Tensor:
        rows, length = prompts.ids_BT.shape
        positions = [*range(FIRST_POSITION, FIRST_POSITION + length)] * rows
        x_ND = self.runner.enter(
            prompts.ids_BT.flatten().tolist(),
            positions,
            prompts.image_mask_BT.flatten().tolist(),
            latents_NQD.flatten(0, 1),
        )
        wanted = range(length - 1, rows * length, length) if only_last else range(rows * length)
        return self.runner.extend(cache, 0, x_ND, [length] * rows, wanted)

    def _generate(
        self, engine: Engine, prompts: Prompts, latents: list[Tensor], count: int
    ) -> list[list[int]]:
        requests = []
        for number, latents_QD in enumerate(latents):
            ids, image_mask = prompts.row(number)
            requests.append(
                Request(
                    ids=ids,
                    image_mask=image_mask,
                    latents=(latents_QD,),
                    max_new_tokens=count,
                    rules=GREEDY,
                )
            )
        return [list(answer.ids) for answer in engine.generate(requests)]
