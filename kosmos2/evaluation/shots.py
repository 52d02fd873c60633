"""Solved examples before each question of a benchmark, drawn from its training split.

Drawn for each question anew, by a hash of the seed and the question's id: the same ones whatever
part of a run asks it, in whatever order. Their ids are in every prediction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kosmos2.errors import RequestError
from kosmos2.evaluation.benchmark import Benchmark, Data, Problem, Shot, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """How many, which ones, and of which split."""

    count: int
    seed: int
    split: str


def check_solvable(benchmark: Benchmark) -> None:
    """Refuse a benchmark whose questions have no solution to show."""
    if benchmark.solve is None:
        raise RequestError(f"{benchmark.name} has no solved examples; leave --shots out")


def with_examples(benchmark: Benchmark, data: Data, solved: Data, examples: Examples) -> Data:
    """Return the questions, each behind its own examples out of the solved ones."""
    solve = benchmark.solve
    assert solve is not None, "check_solvable comes first"
    asked = {(problem.id, problem.picture) for problem in data.problems}
    if own := [each.id for each in solved.problems if (each.id, each.picture) in asked]:
        raise RequestError(
            f"the examples of the split {examples.split!r} are questions that are asked too: "
            f"{shown(own)}. Name the training split with --shots-split; where --data is a file, "
            "name the folder that has the training split's beside it"
        )
    problems = []
    for problem in data.problems:
        drawn = _drawn(problem, solved.problems, examples)
        problems.append(
            replace(
                problem,
                shots=tuple(Shot(each, solve(each)) for each in drawn),
                others=tuple(each.picture for each in drawn),
            )
        )
    folders = tuple(dict.fromkeys((*data.folders, *solved.folders)))
    return replace(data, problems=tuple(problems), folders=folders)


def _drawn(problem: Problem, solved: Sequence[Problem], examples: Examples) -> list[Problem]:
    """Return examples of pictures that are neither the question's nor each other's."""
    found: list[Problem] = []
    seen = {problem.picture}
    for turn in range(100 * examples.count):
        place = f"{examples.seed}/{problem.id}/{turn}".encode()
        number = int.from_bytes(hashlib.sha256(place).digest()[:8])
        each = solved[number % len(solved)]
        if each.picture not in seen:
            seen.add(each.picture)
            found.append(each)
        if len(found) == examples.count:
            return found
    pictures = len({each.picture for each in solved})
    raise RequestError(
        f"{examples.count} examples before a question need as many pictures of the split "
        f"{examples.split!r}, which has {pictures}; ask for fewer with --shots"
    )
