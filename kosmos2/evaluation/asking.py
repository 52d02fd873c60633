"""Questions of a benchmark put to a model: each picture encoded once for all of its questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kosmos2.api import Kosmos2, Question, Reply, View, questions
from kosmos2.api.questions import Heard
from kosmos2.api.replies import Found
from kosmos2.engine import BoxConstraint
from kosmos2.errors import RecordError, RequestError
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Prediction,
    Problem,
    find_picture,
    prompt_of,
    prompt_text,
    shown,
)
from kosmos2.tasks import Prompt

AT_A_TIME = 4
"""Batches of pictures whose questions are answered together and then written."""

_LEAST = 1e-300
"""In place of a probability of 0, whose logarithm no file can hold."""

Share = tuple[int, int]
"""(i, n): the i-th of n parts, from 1."""


class Answerer(Protocol):
    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        """Return a prediction for each question about each picture."""
        ...


@dataclass(frozen=True, slots=True)
class ModelAnswerer:
    """The model itself."""

    model: Kosmos2 = field(repr=False)
    benchmark: Benchmark
    form: Form
    pictures: Mapping[str, Path] = field(default_factory=dict)
    """The further pictures that prompts may show, by name."""

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        return self.answered(self.model.look(list(pictures)), asked)

    def answered(
        self, views: Sequence[View], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        """Return a prediction for each question about each picture that was looked at."""
        grid = self.model.tokenizer.grid
        prompts = [[prompt_of(self.benchmark, each, grid) for each in own] for own in asked]
        others = self._others(asked)
        replies = iter(
            self.model.answer(
                [
                    ((*(others[name] for name in each.others), view), self._question(prompt))
                    for view, own, own_prompts in zip(views, asked, prompts, strict=True)
                    for each, prompt in zip(own, own_prompts, strict=True)
                ]
            )
        )
        return [
            [
                _prediction(problem, prompt, next(replies))
                for problem, prompt in zip(own, own_prompts, strict=True)
            ]
            for own, own_prompts in zip(asked, prompts, strict=True)
        ]

    def _others(self, asked: Sequence[Sequence[Problem]]) -> dict[str, View]:
        """Return the further pictures of some questions, each encoded once."""
        names = list(dict.fromkeys(name for own in asked for each in own for name in each.others))
        views = self.model.look([self.pictures[name] for name in names]) if names else []
        return dict(zip(names, views, strict=True))

    def _question(self, prompt: Prompt) -> Question[Reply]:
        if self.form is Form.ABSENT:
            return questions.find_or_absent(prompt.subject, self.model.tokenizer.vocabulary)
        form = None
        if self.form is Form.BOXES:
            form = BoxConstraint(vocabulary=self.model.tokenizer.vocabulary)

        def read(heard: Heard) -> Reply:
            grounded = self.benchmark.parse(prompt, heard.symbols, heard.scores, heard.grid)
            return Reply(grounded=grounded, trace=heard.trace)

        return Question(prompt=prompt, form=form, read=read)


def pictures_of(data: Data, problems: Sequence[Problem]) -> dict[str, Path]:
    """Return the file of every picture that is asked about; all of them must be there."""
    names = dict.fromkeys(
        name for problem in problems for name in (*problem.others, problem.picture)
    )
    found = {name: find_picture(name, data.folders) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        raise RecordError(
            f"of {len(names):,} pictures these were not found: {shown(missing)}; looked in "
            f"{', '.join(str(folder) for folder in data.folders if folder.is_dir())}. "
            "Say with --images where they lie"
        )
    return {name: path for name, path in found.items() if path is not None}


def part_of(problems: Sequence[Problem], share: Share) -> list[Problem]:
    """Return the questions about every n-th picture, so that each picture has one reader."""
    part, parts = share
    if not 1 <= part <= parts:
        raise RequestError(f"a part is one of 1/{parts} to {parts}/{parts}, got {part}/{parts}")
    numbers = {name: n for n, name in enumerate(dict.fromkeys(p.picture for p in problems))}
    return [problem for problem in problems if numbers[problem.picture] % parts == part - 1]


def ask(
    problems: Sequence[Problem],
    pictures: dict[str, Path],
    answerer: Callable[[], Answerer],
    *,
    at_a_time: int,
) -> Iterator[list[Prediction]]:
    """Yield the answers to the questions about some pictures after the other.

    The model is not loaded where nothing is left to ask.
    """
    by_picture: dict[str, list[Problem]] = {}
    for problem in problems:
        by_picture.setdefault(problem.picture, []).append(problem)
    names = list(by_picture)
    ready = answerer() if names else None
    for start in range(0, len(names), at_a_time):
        assert ready is not None
        chosen = names[start : start + at_a_time]
        answers = ready.answers(
            [pictures[name] for name in chosen], [by_picture[name] for name in chosen]
        )
        yield [answer for own in answers for answer in own]


def _prediction(problem: Problem, prompt: Prompt, reply: Reply) -> Prediction:
    return Prediction(
        id=problem.id,
        prompt=prompt_text(prompt),
        answer=reply.trace.markup,
        boxes=tuple(box for phrase in reply.phrases for box in phrase.boxes),
        scores=tuple(score for phrase in reply.phrases for score in phrase.scores),
        spans=tuple((phrase.start, phrase.end) for phrase in reply.phrases for _ in phrase.boxes),
        examples=tuple(shot.problem.id for shot in problem.shots),
        text=reply.text,
        logprobs=_presence(reply),
        malformed=tuple(fault.reason for fault in reply.grounded.malformed),
        stop=str(reply.stop),
    )


def _presence(reply: Reply) -> tuple[float, ...]:
    """Return how probable it is that what is looked for is there, and that it is not, if asked."""
    absent = reply.absent if isinstance(reply, Found) else None
    if absent is None:
        return ()
    return math.log(max(1 - absent, _LEAST)), math.log(max(absent, _LEAST))
