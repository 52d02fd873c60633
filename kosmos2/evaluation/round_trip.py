"""The round trip: describe a box, then find the words again. Does the box come back?

No people are needed to judge it: an expression is good where it leads back to its box, and to no
other. Whoever says too little finds another thing; whoever finds badly fails with good words too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kosmos2.api import Kosmos2
from kosmos2.evaluation import captions, refcoco
from kosmos2.evaluation.asking import ModelAnswerer
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Form,
    Judged,
    Kind,
    Prediction,
    Problem,
    one_by_one,
)
from kosmos2.evaluation.localisation import REC_TITLES, judge_rec

ROUND_TITLES = {
    **REC_TITLES,
    "accuracy": "found again: first box right at IoU 0.5",
    "described": "boxes described with words",
}


def round_trip() -> Benchmark:
    """Return the benchmark of describing and finding again, on the things of RefCOCOg."""
    return replace(
        captions.expression_generation(),
        name="refcocog-round-trip",
        title="Describe and find again, RefCOCOg",
        version=1,
        kind=Kind.BOXES,
        judge=partial(one_by_one, judge_round),
        titles=ROUND_TITLES,
        forms=(Form.FREE, Form.BOXES),
        then=refcoco.rec("refcocog"),
        protocol="prompt <grounding><phrase> It</phrase><object>BOX</object> is, answered "
        "greedily; the answer is asked for with <grounding><phrase> ANSWER</phrase>, and the first "
        "box compared with the one that was described. One question for each thing; no words or no "
        "box is a miss",
        differences=("there is no published evaluation of this",),
    )


def judge_round(problem: Problem, prediction: Prediction) -> Judged:
    """Return how well the box came back, and whether anything was said."""
    return {**judge_rec(problem, prediction), "described": float(bool(prediction.text))}


@dataclass(frozen=True, slots=True)
class RoundTripper:
    """The model itself, asked twice; it needs a benchmark with `then`."""

    model: Kosmos2 = field(repr=False)
    benchmark: Benchmark
    form: Form
    """Of the boxes that are found again."""
    pictures: dict[str, Path] = field(default_factory=dict)
    """The further pictures that prompts may show, by name."""

    def answers(
        self, pictures: Sequence[Path], asked: Sequence[Sequence[Problem]]
    ) -> list[list[Prediction]]:
        """Return for each question the words, and the boxes that they lead to."""
        assert self.benchmark.then is not None
        describing = ModelAnswerer(self.model, self.benchmark, Form.FREE, self.pictures)
        finding = ModelAnswerer(self.model, self.benchmark.then, self.form)
        views = self.model.look(list(pictures))
        described = describing.answered(views, asked)
        found = finding.answered(
            views,
            [
                [_sought(*pair) for pair in zip(own, said, strict=True) if pair[1].text]
                for own, said in zip(asked, described, strict=True)
            ],
        )
        return [_joined(*both) for both in zip(described, found, strict=True)]


def _sought(problem: Problem, said: Prediction) -> Problem:
    words = said.text
    return replace(problem, text=words, start=0, end=len(words), shots=(), others=())


def _joined(described: Sequence[Prediction], found: Sequence[Prediction]) -> list[Prediction]:
    """Return the descriptions with the boxes found for them; `answer` has a line for each."""
    by_id = {each.id: each for each in found}
    joined = []
    for said in described:
        again = by_id.get(said.id)
        if again is None:
            joined.append(replace(said, boxes=(), scores=(), spans=()))
            continue
        joined.append(
            replace(
                said,
                answer=f"{said.answer}\n{again.answer}",
                boxes=again.boxes,
                scores=again.scores,
                spans=(),
                malformed=(*said.malformed, *again.malformed),
                stop=again.stop,
            )
        )
    return joined
