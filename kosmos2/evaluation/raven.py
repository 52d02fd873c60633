"""Raven's matrices: which picture goes on a row of pictures, told by the probability of "Yes".

The set of the Kosmos-1 paper, IQ50, can no longer be had; a folder like it has

    DIR/raven.json      [{"id": "1", "images": ["1/a.png", "1/b.png", "1/c.png"],
                          "candidates": ["1/1.png", ..., "1/6.png"], "answer": 2}]

and the pictures. `answer` counts from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import field, read_json
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Kind,
    Option,
    Problem,
    one_by_one,
    parse_continuation,
)
from kosmos2.evaluation.weighing import CHOICE_TITLES, judge_choice
from kosmos2.scenes.nouns import NUMBER_WORDS
from kosmos2.tasks import Prompt, Task
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.segments import ImageSlot

FILE = "raven.json"
YES = "Yes"


def raven() -> Benchmark:
    """Return the benchmark."""
    return Benchmark(
        name="raven",
        title="Which picture goes on the row",
        version=1,
        kind=Kind.ANSWER,
        splits={"test": 50},
        read=read,
        prompt=prompt,
        parse=parse_continuation,
        judge=partial(one_by_one, judge_choice),
        titles=CHOICE_TITLES,
        forms=(Form.CHOICE,),
        options=options,
        protocol="for each candidate: Here are N images: PICTURES The following image is: "
        "CANDIDATE Is it correct? The candidate with the highest log-probability of Yes (the mean "
        "over its tokens, where it has several), the first at a tie",
        differences=("the data of the paper, IQ50, is not to be had; its format here is our own",),
    )


def read(path: Path, split: str) -> Data:
    """Return the questions; there is one file, whatever the split is called."""
    file = path / FILE if path.is_dir() else path
    rows = read_json(file)
    if not isinstance(rows, list):
        raise RecordError(f"{file} holds no list of questions but a {type(rows).__name__}")
    problems = tuple(_problem(row, f"{file}, question {n}") for n, row in enumerate(rows))
    return Data(source="rows of pictures", problems=problems, folders=(file.parent,))


def prompt(problem: Problem, _grid: LocationGrid) -> Prompt:
    """Return the prompt, in which the last picture is a candidate."""
    shown = 1 + len(problem.others) - len(problem.choices)
    number = NUMBER_WORDS[shown] if shown < len(NUMBER_WORDS) else str(shown)
    return Prompt(
        task=Task.MARKUP,
        segments=(
            f"Here are {number} images:",
            *(ImageSlot() for _ in range(shown)),
            "The following image is:",
            ImageSlot(),
            "Is it correct?",
        ),
    )


def options(problem: Problem, grid: LocationGrid) -> tuple[Option, ...]:
    """Return the prompt once for each candidate."""
    row = (problem.picture, *problem.others[: -len(problem.choices)])
    return tuple(
        Option(prompt=prompt(problem, grid), pictures=(*row, candidate), continuation=YES)
        for candidate in problem.choices
    )


def _problem(row: Mapping[str, Any], where: str) -> Problem:
    images = [str(name) for name in field(row, "images", where)]
    candidates = tuple(str(name) for name in field(row, "candidates", where))
    answer = field(row, "answer", where)
    if not images or len(candidates) < 2:
        raise RecordError(f"{where} needs an image at least and two candidates")
    if len(set(candidates)) != len(candidates):
        raise RecordError(f"{where} has the same candidate twice")
    if not isinstance(answer, int) or not 0 <= answer < len(candidates):
        raise RecordError(
            f"{where}: the answer is one of 0 to {len(candidates) - 1}, got {answer!r}"
        )
    return Problem(
        id=str(field(row, "id", where)),
        picture=images[0],
        width=0,
        height=0,
        choices=candidates,
        correct=answer,
        others=(*images[1:], *candidates),
    )
