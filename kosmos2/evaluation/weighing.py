"""Choices weighed by a model: each one's mean log-probability behind its prompt, nothing written.

The protocol of SEED-Bench's evaluation in the original repository: the mean over the tokens of a
choice, natural logarithms, the first choice at a tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from kosmos2.api import Kosmos2
from kosmos2.engine import ScoreRequest
from kosmos2.errors import RecordError
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Judged,
    Option,
    Prediction,
    Problem,
    prompt_text,
)

CHOICE_TITLES = {"accuracy": "right choices"}


@dataclass(frozen=True, slots=True)
class Weigher:
    """The model itself; it needs a benchmark with `options`."""

    model: Kosmos2 = field(repr=False)
    benchmark: Benchmark
    pictures: Mapping[str, Path]
    """Every picture that a question may show, by name."""

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        """Return a prediction for each question about each picture."""
        assert self.benchmark.options is not None and len(pictures) == len(asked)
        grid = self.model.tokenizer.grid
        problems = [problem for own in asked for problem in own]
        options = [self.benchmark.options(problem, grid) for problem in problems]
        latents = self._latents([option for own in options for option in own])
        scores = iter(
            self.model.engine.score(
                [self._request(each, latents) for own in options for each in own]
            )
        )
        weights = [tuple(next(scores).mean for _ in own) for own in options]
        predictions = iter(
            self._prediction(problem, own) for problem, own in zip(problems, weights, strict=True)
        )
        return [[next(predictions) for _ in own] for own in asked]

    def _latents(self, options: Sequence[Option]) -> dict[str, Tensor]:
        """Return latents_QD of each picture of some options, each encoded once."""
        names = list(dict.fromkeys(name for option in options for name in option.pictures))
        views = self.model.look([self.pictures[name] for name in names])
        return {name: view.latents_QD for name, view in zip(names, views, strict=True)}

    def _request(self, option: Option, latents: Mapping[str, Tensor]) -> ScoreRequest:
        tokenizer, config = self.model.tokenizer, self.model.engine.config
        prompt = tokenizer.encode(option.prompt.segments, num_latents=config.num_latents)
        return ScoreRequest(
            ids=prompt.ids,
            image_mask=prompt.image_mask,
            latents=tuple(latents[name] for name in option.pictures),
            continuation=tuple(tokenizer.encode_text(option.continuation)),
        )

    def _prediction(self, problem: Problem, logprobs: tuple[float, ...]) -> Prediction:
        chosen = logprobs.index(max(logprobs))
        prompt = self.benchmark.prompt(problem, self.model.tokenizer.grid)
        return Prediction(
            id=problem.id,
            prompt=prompt_text(prompt),
            answer=problem.choices[chosen],
            boxes=(),
            text=problem.choices[chosen],
            logprobs=logprobs,
            stop="choice",
        )


def chosen(prediction: Prediction, problem: Problem) -> int:
    """Return which choice was the most probable, the first at a tie."""
    if len(prediction.logprobs) != len(problem.choices):
        raise RecordError(
            f"question {problem.id} has {len(problem.choices)} choices, its prediction weighs "
            f"{len(prediction.logprobs)}. Was the run of other data?"
        )
    return prediction.logprobs.index(max(prediction.logprobs))


def judge_choice(problem: Problem, prediction: Prediction) -> Judged:
    """Return whether the most probable choice is the true one."""
    return {"accuracy": float(chosen(prediction, problem) == problem.correct)}
