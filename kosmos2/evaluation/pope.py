"""POPE: whether a model says that things are there which are not, asked for yes or no.

Its files are JSON lines, `coco_pope_random.json`, `..._popular.json`, `..._adversarial.json`:

    {"question_id": 1, "image": "COCO_val2014_000000310196.jpg",
     "text": "Is there a snowboard in the image?", "label": "yes"}

`absent` asks the same files with `find` instead: is the score of the best box of "a snowboard" of
any use to tell things that are there from those that are not?
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import field
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Judgement,
    Kind,
    Pair,
    Problem,
    parse_continuation,
)
from kosmos2.evaluation.metrics import Part, share
from kosmos2.evaluation.seedbench import ask

SPLITS = {"random": 3_000, "popular": 3_000, "adversarial": 3_000}
PICTURES = ("val2014", "images/val2014", "coco/val2014", "images", ".")
THING = re.compile(
    r"^Is there (?P<phrase>(?P<article>an?) (?P<noun>.+)) in the (?:image|imange|picture)\?$"
)
"""Some of POPE's own questions say "imange"."""
POPE_TITLES = {
    "accuracy": "right answers",
    "precision": "precision of yes",
    "recall": "recall of yes",
    "f1": "F1 of yes",
    "yes": "answered yes",
    "clear": "answers that begin with yes or no",
}


def pope() -> Benchmark:
    """Return the benchmark of yes and no."""
    return Benchmark(
        name="pope",
        title="POPE: is there such a thing? Yes or no",
        version=1,
        kind=Kind.ANSWER,
        splits=SPLITS,
        read=read,
        prompt=ask,
        parse=parse_continuation,
        judge=judge_yes,
        titles=POPE_TITLES,
        forms=(Form.FREE,),
        decoding=("max_new_tokens=16",),
        protocol="prompt Question: QUESTION Answer: without <grounding>; as POPE's evaluate.py "
        "counts: the first sentence is a no where one of its words is no, No or not, else a yes",
        differences=(
            "POPE's own runs ask the question alone; Kosmos-2 was taught Question: ... Answer:",
        ),
    )


def read(path: Path, split: str) -> Data:
    """Return the questions of a file, or of `*pope_SPLIT.json` in a folder."""
    file = _file(path, split)
    problems = tuple(
        _problem(line, f"{file}:{number}")
        for number, line in enumerate(_text(file).splitlines(), start=1)
        if line.strip()
    )
    folders = [root / place for root in (file.parent, file.parent.parent) for place in PICTURES]
    return Data(source="POPE's JSON lines", problems=problems, folders=tuple(folders))


def says_yes(answer: str) -> bool:
    """Return how POPE's evaluate.py reads an answer; one without words is a yes to it."""
    words = answer.split(".")[0].replace(",", "").split(" ")
    return not {"No", "not", "no"} & set(words)


def judge_yes(pairs: Sequence[Pair]) -> Judgement:
    """Return accuracy, precision, recall and F1 of yes, and how often it is said."""
    said = [says_yes(answer.text) for _, answer in pairs]
    true = [is_there(problem) for problem, _ in pairs]
    each = tuple(
        {
            "accuracy": float(yes == label),
            "yes": float(yes),
            "clear": float(answer.text.lower().startswith(("yes", "no"))),
        }
        for yes, label, (_, answer) in zip(said, true, pairs, strict=True)
    )
    parts = [
        (problem.picture, float(yes and label), float(yes), float(label))
        for (problem, _), yes, label in zip(pairs, said, true, strict=True)
    ]
    numbers = {
        "precision": share([Part(name, hit, yes) for name, hit, yes, _ in parts]),
        "recall": share([Part(name, hit, label) for name, hit, _, label in parts]),
        "f1": share([Part(name, 2 * hit, yes + label) for name, hit, yes, label in parts]),
    }
    return Judgement(each, numbers=numbers)


def is_there(problem: Problem) -> bool:
    """Return the truth."""
    return problem.references == ("yes",)


def _file(path: Path, split: str) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob(f"*pope_{split}.json")) + sorted(path.glob(f"*/*pope_{split}.json"))
    if len(found) != 1:
        raise RecordError(
            f"{path} has {len(found) or 'no'} files *pope_{split}.json; say with --data which "
            "file to read"
        )
    return found[0]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {file}: {error}") from error


def _problem(line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where} is no JSON: {error}") from error
    question, label = str(field(row, "text", where)).strip(), field(row, "label", where)
    if label not in ("yes", "no"):
        raise RecordError(f"{where}: the label is yes or no, got {label!r}")
    thing = THING.match(question)
    return Problem(
        id=str(field(row, "question_id", where)),
        picture=str(field(row, "image", where)),
        width=0,
        height=0,
        text=question,
        end=len(question),
        references=(label,),
        categories=(thing["noun"],) if thing else (),
    )
