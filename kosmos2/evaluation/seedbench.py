"""SEED-Bench: questions about pictures with four answers, of which the most probable is taken.

One JSON file, as it is published; only questions of `data_type` "image" are asked:

    {"questions": [{"answer": "A", "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
                    "choice_d": "Four", "data_id": "1454426_2591111986", "data_type": "image",
                    "question": "How many towels are in the image?", "question_id": "101669",
                    "question_type_id": 5}],
     "question_type": {"Instances Counting": 5, ...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kosmos2 import tasks
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
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

LETTERS = "abcd"
FILE = "SEED-Bench.json"
PICTURES = ("SEED-Bench-image", "images", ".")
"""Where the pictures are looked for beside the file; their names have no ending."""


def seed_bench() -> Benchmark:
    """Return the benchmark, image questions only."""
    return Benchmark(
        name="seed-bench",
        title="SEED-Bench, questions about pictures",
        version=1,
        kind=Kind.ANSWER,
        splits={"image": 14_233},
        read=read,
        prompt=ask,
        parse=parse_continuation,
        judge=partial(one_by_one, judge_choice),
        titles=CHOICE_TITLES,
        forms=(Form.CHOICE,),
        options=options,
        protocol="prompt Question: QUESTION Answer: without <grounding>; of the four choices the "
        "one whose tokens have the highest mean log-probability, the first at a tie",
        differences=(
            "a question that itself says “Answer:” is no exception here; the original's script "
            "begins to average at the first of them",
        ),
    )


def read(path: Path, split: str) -> Data:
    """Return the questions about pictures; `split` is the data_type."""
    file = path / FILE if path.is_dir() else path
    rows = read_json(file)
    where = str(file)
    types = field(rows, "question_type", where)
    names = {number: str(name) for name, number in types.items()}
    problems = tuple(
        _problem(row, names, f"{file}, question {number}")
        for number, row in enumerate(field(rows, "questions", where))
        if field(row, "data_type", f"{file}, question {number}") == split
    )
    folders = tuple(file.parent / place for place in PICTURES)
    return Data(source="SEED-Bench's JSON", problems=problems, folders=folders)


def ask(problem: Problem, _grid: LocationGrid) -> Prompt:
    """Return the prompt of a question."""
    return tasks.ask(problem.text)


def options(problem: Problem, grid: LocationGrid) -> tuple[Option, ...]:
    """Return each choice behind the question."""
    prompt = ask(problem, grid)
    return tuple(
        Option(prompt=prompt, pictures=(problem.picture,), continuation=choice)
        for choice in problem.choices
    )


def _problem(row: Mapping[str, Any], names: Mapping[object, str], where: str) -> Problem:
    question = _line(field(row, "question", where), where)
    answer = str(field(row, "answer", where)).lower()
    if answer not in LETTERS or len(answer) != 1:
        raise RecordError(f"{where}: the answer is one of A, B, C and D, got {row['answer']!r}")
    kind = field(row, "question_type_id", where)
    if kind not in names:
        raise RecordError(f"{where}: question_type has no number {kind!r}")
    return Problem(
        id=str(field(row, "question_id", where)),
        picture=str(field(row, "data_id", where)),
        width=0,
        height=0,
        text=question,
        end=len(question),
        choices=tuple(_line(field(row, f"choice_{letter}", where), where) for letter in LETTERS),
        correct=LETTERS.index(answer),
        categories=(names[kind],),
    )


def _line(text: object, where: str) -> str:
    """Return a text as one line; some choices are numbers."""
    line = str(text).replace("\n", " ").strip()
    if not line:
        raise RecordError(f"{where}: a question or choice has no words")
    return line
