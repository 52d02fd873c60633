"""Pictures told apart by the names of classes, with and without a description of each: Kosmos-1's.

A folder of pictures for each class, as ImageNet and most others are laid out:

    DIR/SPLIT/CLASS/NAME.jpg        (or DIR/CLASS/NAME.jpg)
    DIR/classes.json                {"CLASS": {"name": "downy woodpecker", "group": "woodpecker",
                                     "description": "It has white spots on its black wings and
                                     some red on its crown."}}

Without classes.json the name of a folder is that of its class. A picture is told apart from the
classes of its own group; without groups from all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kosmos2 import tasks
from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import field, read_json
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Judged,
    Kind,
    Option,
    Prediction,
    Problem,
    one_by_one,
    parse_continuation,
)
from kosmos2.evaluation.weighing import CHOICE_TITLES, chosen
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

FILE = "classes.json"
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
PHOTO = "The photo of the"
_PAIRS = "{} % on three pairs of birds of the Kosmos-1 paper, a set that was never released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    folder: str
    name: str
    group: str
    description: str


Words = Callable[[Class, tuple[Class, ...]], str]
"""The class of a picture, which only tells its group, and all classes of that → the prompt."""


def photo(_own: Class, _group: tuple[Class, ...]) -> str:
    """Return the words before a name: of ImageNet in the Kosmos-1 paper."""
    return PHOTO


def question(own: Class, _group: tuple[Class, ...]) -> str:
    """Return the question for a name."""
    if not own.group:
        raise RecordError(f"{FILE} has no group of {own.folder!r}, such as woodpecker")
    return f"Question:what is the name of {own.group} in the picture? Answer:"


def described(own: Class, group: tuple[Class, ...]) -> str:
    """Return the descriptions of all classes of a group, and the question for a name."""
    if missing := [each.folder for each in group if not each.description]:
        raise RecordError(f"{FILE} has no description of {', '.join(missing)}")
    told = " ".join(f"{each.name}: {each.description}" for each in group)
    return f"{told} {question(own, group)}"


def classification() -> tuple[Benchmark, ...]:
    """Return the benchmarks: by name alone, asked for a name, and told of each class."""
    return (
        _benchmark("classify", "Classification", photo, {"val": 50_000}, ()),
        _benchmark(
            "classify-asked",
            "Classification, asked for the name",
            question,
            {},
            (f"published: {_PAIRS.format('61.7')}",),
        ),
        _benchmark(
            "classify-described",
            "Classification with verbal descriptions",
            described,
            {},
            (
                f"published: {_PAIRS.format('90.0')}",
                "how the paper lays out the descriptions is not fully told: here NAME: DESCRIPTION "
                "of each class, in the order of their folders, before the question",
            ),
        ),
    )


def read(words: Words, path: Path, split: str) -> Data:
    """Return one question for each picture of a folder of classes."""
    if not path.is_dir():
        raise RecordError(f"{path} is no folder with a folder for each class")
    root = path / split if (path / split).is_dir() else path
    folders = sorted(each for each in root.iterdir() if each.is_dir())
    classes = _classes(path, [each.name for each in folders])
    groups: dict[str, list[Class]] = {}
    for each in classes:
        groups.setdefault(each.group, []).append(each)
    problems = tuple(
        _problem(picture, root, own, tuple(groups[own.group]), words)
        for folder, own in zip(folders, classes, strict=True)
        for picture in sorted(folder.iterdir())
        if picture.suffix.lower() in ENDINGS
    )
    return Data(source="folders of classes", problems=problems, folders=(root,))


def _benchmark(
    name: str, title: str, words: Words, splits: Mapping[str, int], told: tuple[str, ...]
) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        version=2,
        kind=Kind.ANSWER,
        splits=splits,
        read=partial(read, words),
        prompt=prompt,
        parse=parse_continuation,
        judge=partial(one_by_one, judge_name),
        titles=CHOICE_TITLES,
        forms=(Form.CHOICE,),
        options=options,
        protocol="each name of the picture's group behind the prompt, without <grounding>; the one "
        "whose tokens have the highest mean log-probability, the first at a tie",
        differences=(
            "the paper also lets the model write any name; here it chooses among the names "
            '("constrained")',
            *told,
        ),
    )


def judge_name(problem: Problem, prediction: Prediction) -> Judged:
    """Return whether the most probable name is the true one; two classes may share it (a crane)."""
    said = problem.choices[chosen(prediction, problem)]
    return {"accuracy": float(said == problem.choices[problem.correct])}


def prompt(problem: Problem, _grid: LocationGrid) -> Prompt:
    """Return the prompt, which is the text of the question."""
    return tasks.from_markup(problem.text)


def options(problem: Problem, grid: LocationGrid) -> tuple[Option, ...]:
    """Return each name behind the prompt."""
    shown = prompt(problem, grid)
    return tuple(
        Option(prompt=shown, pictures=(problem.picture,), continuation=name)
        for name in problem.choices
    )


def _classes(path: Path, folders: list[str]) -> list[Class]:
    file = path / FILE
    if not file.is_file():
        plain = [
            Class(folder=f, name=f.replace("_", " "), group="", description="") for f in folders
        ]
        return plain
    told = read_json(file)
    classes = []
    for folder in folders:
        own = field(told, folder, str(file))
        classes.append(
            Class(
                folder=folder,
                name=str(field(own, "name", f"{file}, {folder}")),
                group=str(own.get("group", "")),
                description=str(own.get("description", "")),
            )
        )
    return classes


def _problem(
    picture: Path, root: Path, own: Class, group: tuple[Class, ...], words: Words
) -> Problem:
    if len(group) < 2:
        raise RecordError(f"{own.folder!r} is the only class of its group: nothing to choose from")
    text = words(own, group)
    name = picture.relative_to(root).as_posix()
    return Problem(
        id=name,
        picture=name,
        width=0,
        height=0,
        text=text,
        end=len(text),
        choices=tuple(each.name for each in group),
        correct=group.index(own),
        categories=(own.name,),
    )
