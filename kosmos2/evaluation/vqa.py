"""VQAv2: questions about pictures of COCO, each answered by ten people.

Two files of a split, as they are published (that of the answers is secret for the tests):

    v2_OpenEnded_mscoco_val2014_questions.json
    {"data_subtype": "val2014", "questions": [
      {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000}]}

    v2_mscoco_val2014_annotations.json
    {"annotations": [{"question_id": 262148000, "image_id": 262148, "answer_type": "other",
      "question_type": "none of the above", "multiple_choice_answer": "down",
      "answers": [{"answer": "down", "answer_confidence": "yes", "answer_id": 1}, ...]}]}

The picture of image 262148 is COCO_val2014_000000262148.jpg.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import field, read_json
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Judged,
    Kind,
    Pair,
    Prediction,
    Problem,
    one_by_one,
    parse_continuation,
)
from kosmos2.evaluation.seedbench import ask
from kosmos2.evaluation.vqa_answers import PEOPLE, accuracy

SPLITS = {"val": 214_354, "test-dev": 107_394, "test": 447_793}
_FILES = {
    "train": "train2014",
    "val": "val2014",
    "test-dev": "test-dev2015",
    "test": "test2015",
}
"""Split → how its files call it; another set's files bear its own name."""
_SECRET = frozenset({"test-dev", "test"})
_PICTURES = ("train2014", "val2014", "test2015")
PICTURES = (*_PICTURES, *(f"images/{name}" for name in _PICTURES), "images", ".")
VQA_TITLES = {
    "accuracy": "accuracy, as ten people agree",
    "answered": "answers with words",
}


def vqa() -> Benchmark:
    """Return the benchmark of open questions."""
    return Benchmark(
        name="vqav2",
        title="VQAv2: open questions about pictures",
        version=1,
        kind=Kind.ANSWER,
        splits=SPLITS,
        read=read,
        prompt=ask,
        parse=parse_continuation,
        judge=partial(one_by_one, judge_vqa),
        titles=VQA_TITLES,
        decoding=("max_new_tokens=32",),
        solve=most_said,
        submit=submission,
        protocol="prompt Question: QUESTION Answer: without <grounding>, answered greedily; an "
        "answer, normalised as in the official vqaEval.py, counts min(n / 3, 1) where n of nine "
        "people give it, the mean over the ten choices of nine; kind = the answer's type; with "
        "--shots, an example's answer is what most of its ten people say",
        differences=(
            "published numbers are those of the evaluation server on test-dev, whose answers are "
            "not public",
        ),
    )


def read(path: Path, split: str) -> Data:
    """Return the questions of a split from the folder of its two files."""
    if not path.is_dir():
        raise RecordError(f"{path} is a file; VQAv2 is read from the folder of its files")
    names = (split, _FILES.get(split, split))  # another set may call its files as it likes
    files = {name: path / f"v2_OpenEnded_mscoco_{name}_questions.json" for name in names}
    name = next((each for each, file in files.items() if file.is_file()), names[-1])
    asked = files[name]
    answered = path / f"v2_mscoco_{name}_annotations.json"
    content = read_json(asked)
    rows = field(content, "questions", str(asked))
    truth: dict[object, Mapping[str, Any]] | None = None
    if split not in _SECRET or answered.is_file():
        annotations = field(read_json(answered), "annotations", str(answered))
        truth = {
            field(row, "question_id", f"{answered}, annotation {number}"): row
            for number, row in enumerate(annotations)
        }
    subtype = str(field(content, "data_subtype", str(asked))).replace("test-dev", "test")
    problems = tuple(
        _problem(row, subtype, truth, f"{asked}, question {number}")
        for number, row in enumerate(rows)
    )
    if truth is not None and len(truth) != len(problems):
        raise RecordError(f"{asked} has {len(problems)} questions, {answered} answers {len(truth)}")
    folders = tuple(root / place for root in (path, path.parent) for place in PICTURES)
    return Data(source="VQAv2's JSON", problems=problems, folders=folders)


def judge_vqa(problem: Problem, prediction: Prediction) -> Judged:
    """Return how far people agree with an answer."""
    return {
        "accuracy": accuracy(prediction.text, problem.references),
        "answered": float(bool(prediction.text)),
    }


def most_said(problem: Problem) -> str:
    """Return what most people answered, the first of several as frequent."""
    return Counter(problem.references).most_common(1)[0][0]


def submission(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return what the evaluation server takes: every question's number and answer."""
    return [
        {"question_id": int(problem.id), "answer": prediction.text} for problem, prediction in pairs
    ]


def _problem(
    row: Mapping[str, Any],
    subtype: str,
    truth: Mapping[object, Mapping[str, Any]] | None,
    where: str,
) -> Problem:
    id, image = field(row, "question_id", where), field(row, "image_id", where)
    if type(id) is not int or type(image) is not int:
        raise RecordError(f"{where}: ids are whole numbers, got {id!r} and image {image!r}")
    question = " ".join(str(field(row, "question", where)).split())
    if not question:
        raise RecordError(f"{where} has no words")
    known: dict[str, Any] = {}
    if truth is not None:
        if id not in truth:
            raise RecordError(f"{where}: nobody answered question {id}")
        known = _known(truth[id], image, f"the annotation of question {id}")
    return Problem(
        id=str(id),
        picture=f"COCO_{subtype}_{image:012d}.jpg",
        width=0,
        height=0,
        text=question,
        end=len(question),
        **known,
    )


def _known(row: Mapping[str, Any], image: int, where: str) -> dict[str, Any]:
    """Return the fields that tell what people answered."""
    if (of := field(row, "image_id", where)) != image:
        raise RecordError(f"{where} is of image {of}, the question of image {image}")
    people = tuple(str(field(each, "answer", where)) for each in field(row, "answers", where))
    if len(people) != PEOPLE:
        raise RecordError(f"{where} has {len(people)} answers, there are {PEOPLE}")
    return {
        "references": people,
        "categories": (str(field(row, "answer_type", where)),),
        "opening": str(field(row, "question_type", where)),
    }
