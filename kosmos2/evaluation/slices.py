"""Parts of a benchmark's questions: by size of the box, length of the phrase, distractors, kind."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from kosmos2.evaluation.benchmark import Problem

_SIZES = (0.01, 0.04, 0.16, 0.36)
_SIZE_NAMES = ("below 1 %", "1 – 4 %", "4 – 16 %", "16 – 36 %", "36 % and more")
_WORDS = (2, 3, 5, 8)
_WORD_NAMES = ("1", "2", "3 – 4", "5 – 7", "8 and more")

Labels = Callable[[Problem], Sequence[str]]


def _size(problem: Problem) -> Sequence[str]:
    if not problem.boxes:
        return ()
    largest = max(box.area for box in problem.boxes)
    return (_SIZE_NAMES[bisect_right(_SIZES, largest)],)


def _words(problem: Problem) -> Sequence[str]:
    said = problem.phrase or next(iter(problem.references), "")
    return (_WORD_NAMES[bisect_right(_WORDS, len(said.split()))],) if said else ()


def _distractors(problem: Problem) -> Sequence[str]:
    if problem.distractors is None:
        return ()
    return (str(problem.distractors) if problem.distractors < 3 else "3 and more",)


def _true_boxes(problem: Problem) -> Sequence[str]:
    if not problem.boxes:
        return ()
    return (str(len(problem.boxes)) if len(problem.boxes) < 3 else "3 and more",)


SLICES: Mapping[str, Labels] = {
    "kind": lambda problem: problem.categories,
    "question type": lambda problem: (problem.opening,) if problem.opening else (),
    "box, share of the picture": _size,
    "words of the expression": _words,
    "others of the same noun": _distractors,
    "true boxes": _true_boxes,
    "said again in the sentence": lambda problem: ("yes" if problem.said_again else "no",),
}
"""What questions are told apart by → the labels of one: none, one, or several kinds."""


def slices_of(problems: Sequence[Problem]) -> dict[str, dict[str, list[int]]]:
    """Return slice → label → the places of its questions; what tells nothing apart is left out."""
    slices = {}
    for name, labels in SLICES.items():
        found: dict[str, list[int]] = {}
        for place, problem in enumerate(problems):
            for label in dict.fromkeys(labels(problem)):
                found.setdefault(label, []).append(place)
        if len(found) > 1 or (name == "kind" and found):
            slices[name] = dict(sorted(found.items(), key=lambda item: _place(item[0])))
    return slices


def _place(label: str) -> tuple[int, str]:
    """Order labels by the number that they begin with, those without one by name before them."""
    number = re.match(r"[0-9]+", label)
    return (int(number[0]) if number else -1, label)
