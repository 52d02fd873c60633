"""`find` asked for things that may not be there: is a score of any use to tell them apart?

The questions are POPE's, "Is there a snowboard in the image?", asked as "find a snowboard". The
score is that of the surest box, or, where the model may answer that a thing is absent, the
probability that it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kosmos2 import tasks
from kosmos2.errors import RecordError
from kosmos2.evaluation import pope
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Judgement,
    Kind,
    Pair,
    Prediction,
    Problem,
    parse_found,
)
from kosmos2.evaluation.bootstrap import Bootstrap
from kosmos2.evaluation.metrics import Number, Part, auroc, share
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

EVEN = 0.5
"""A score from which a thing counts as there, where nobody has chosen one."""
RECALLS = (0.99, 0.95, 0.9, 0.8)
Floats = NDArray[np.float64]


def _titles() -> dict[str, str]:
    titles = {
        "accuracy": f"told apart at a score of {EVEN}",
        "auroc": "score of what is there above that of what is not (AUROC, all pairs)",
    }
    for recall in RECALLS:
        titles[f"threshold_{recall}"] = f"threshold that keeps {recall:.0%} of what is there"
        titles[f"refused_{recall}"] = "– refuses of what is not there"
    return titles


def absent_phrases() -> Benchmark:
    """Return the benchmark of phrases that may be absent."""
    return Benchmark(
        name="absent",
        title="Is what is looked for there? Told by the score",
        version=1,
        kind=Kind.ANSWER,
        splits=pope.SPLITS,
        read=read,
        prompt=find,
        parse=parse_found,
        judge=judge_scores,
        titles=_titles(),
        forms=(Form.BOXES, Form.ABSENT),
        protocol="prompt <grounding><phrase> THING</phrase>, answered by boxes alone; a thing "
        "counts as there from a threshold on the score of its surest box (--answer boxes), or on "
        "the probability that it has boxes at all (--answer absent)",
        differences=(
            "there is no published evaluation of this: the questions and their truth are POPE's",
            "a threshold is chosen and judged on the same answers; to judge one that was chosen on "
            "others use `kosmos2 eval threshold --at`",
        ),
    )


def read(path: Path, split: str) -> Data:
    """Return the questions of a POPE file, each as the phrase to find."""
    data = pope.read(path, split)
    return replace(data, problems=tuple(map(as_phrase, data.problems)))


def as_phrase(problem: Problem) -> Problem:
    """Return a question about a thing with the thing as the phrase to find: "a snowboard"."""
    match = pope.THING.match(problem.text)
    if match is None:
        raise RecordError(
            f"question {problem.id} asks {problem.text!r}; the thing to find is read from "
            '"Is there a THING in the image?"'
        )
    phrase = match["phrase"]
    return replace(problem, text=phrase, end=len(phrase))


def find(problem: Problem, _grid: LocationGrid) -> Prompt:
    """Return the prompt that looks for the thing."""
    return tasks.find(problem.phrase)


def presence(prediction: Prediction) -> float:
    """Return a score in 0..1, the higher the likelier the thing is there."""
    if prediction.logprobs:
        return math.exp(prediction.logprobs[0])
    return max(prediction.scores, default=0.0)


def judge_scores(pairs: Sequence[Pair]) -> Judgement:
    """Return how well scores tell what is there from what is not."""
    scores = [presence(prediction) for _, prediction in pairs]
    there = [pope.is_there(problem) for problem, _ in pairs]
    each = tuple(
        {"accuracy": float((score >= EVEN) == label)}
        for score, label in zip(scores, there, strict=True)
    )
    if all(there) or not any(there):
        return Judgement(each)
    pictures = [problem.picture for problem, _ in pairs]
    numbers = {"auroc": auroc(scores, there, pictures)}
    choices = thresholds(scores, there, pictures, RECALLS)
    for recall, (threshold, refused) in zip(RECALLS, choices, strict=True):
        numbers |= {f"threshold_{recall}": threshold, f"refused_{recall}": refused}
    return Judgement(each, numbers=numbers)


def thresholds(
    scores: Sequence[float],
    there: Sequence[bool],
    pictures: Sequence[str],
    recalls: Sequence[float],
) -> list[tuple[Number, Number]]:
    """Return for each recall the highest threshold that has it, and the share refused below it.

    A score at the threshold counts as there. Needs some of each kind. Intervals: the threshold is
    chosen anew in each resample.
    """
    values, is_there = np.asarray(scores, dtype=np.float64), np.asarray(there)
    drawn = Bootstrap(pictures).of_questions()
    drawn = np.vstack([np.ones(len(values)), drawn])
    drawn = drawn[(drawn[:, is_there].sum(1) > 0) & (drawn[:, ~is_there].sum(1) > 0)]
    falling = np.flatnonzero(is_there)[np.argsort(-values[is_there], kind="stable")]
    rising = np.flatnonzero(~is_there)[np.argsort(values[~is_there], kind="stable")]
    kept, lost = drawn[:, falling].cumsum(1), drawn[:, rising].cumsum(1)
    chosen = []
    for recall in recalls:
        enough = kept >= recall * kept[:, -1:] - 1e-9
        levels = values[falling][enough.argmax(1)]
        below = np.searchsorted(values[rising], levels, side="left")
        refused = np.where(below, lost[np.arange(len(lost)), below - 1], 0.0) / lost[:, -1]
        chosen.append((_number(levels, len(falling)), _number(refused, len(rising))))
    return chosen


def _number(drawn: Floats, n: int) -> Number:
    """Return the first value, that of all questions, with the interval of the others."""
    low, high = np.percentile(drawn[1:] if len(drawn) > 1 else drawn, [2.5, 97.5]).tolist()
    value = float(drawn[0])
    return Number(value=value, n=n, low=min(low, value), high=max(high, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a threshold does on some answers."""

    threshold: float
    recall: Number
    """Of what is there, kept."""
    refused: Number
    """Of what is not there, refused."""
    precision: Number
    """Of what is kept, there."""


def decide(pairs: Sequence[Pair], threshold: float) -> Decided:
    """Return what happens where a score from the threshold on counts as there."""
    parts = [
        (problem.picture, presence(prediction) >= threshold, pope.is_there(problem))
        for problem, prediction in pairs
    ]
    return Decided(
        threshold=threshold,
        recall=share([Part(name, kept and there, there) for name, kept, there in parts]),
        refused=share([Part(name, not (kept or there), not there) for name, kept, there in parts]),
        precision=share([Part(name, kept and there, kept) for name, kept, there in parts]),
    )
