"""What a benchmark is: questions with their truth, a prompt, a judge, a version. Values only.

A change that can move a score (another reading of the data, another prompt, another rule of
counting) raises the version, and predictions of other versions are not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kosmos2.boxes import Box
from kosmos2.errors import RecordError, RequestError
from kosmos2.tasks import Prompt
from kosmos2.vocab.special import Tag

_SHOWN = 8
"""So many ids stand in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A phrase to find in a picture: the words [start, end) of a text, and all their boxes."""

    id: str
    picture: str
    """The name of its file, without the folder."""
    width: int
    height: int
    """Pixels of the picture as the annotations give them."""
    text: str
    start: int
    end: int
    boxes: tuple[Box, ...]
    """The truth, normalised."""
    categories: tuple[str, ...] = ()
    """What kind of thing it is, to the benchmark: a phrase may be of several."""
    distractors: int | None = None
    """Other things of the same noun in the picture; None where the annotations do not tell."""
    said_again: bool = False
    """Whether the same words stand at another place of the text."""

    @property
    def phrase(self) -> str:
        return self.text[self.start : self.end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The questions of one split as they were read."""

    source: str
    """Which format they come from, in words."""
    problems: tuple[Problem, ...]
    folders: tuple[Path, ...]
    """Where its pictures may lie, the likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """An answer as it was read, boxes normalised and in the order in which they were written."""

    id: str
    prompt: str
    answer: str
    """What the model wrote, with tags and location tokens as literals."""
    boxes: tuple[Box, ...]
    scores: tuple[float, ...] = ()
    """One for each box, 0..1; () where they are not known."""
    malformed: tuple[str, ...] = ()
    """Why parts of the answer are no boxes."""
    stop: str = ""


Judged = Mapping[str, float]
"""Metric → what one answer adds to its mean, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    name: str
    title: str
    version: int
    splits: Mapping[str, int]
    """Split → questions of the whole of it."""
    read: Callable[[Path, str], Data]
    prompt: Callable[[Problem], Prompt]
    judge: Callable[[Problem, Prediction], Judged]
    titles: Mapping[str, str]
    """Metric → its name for people; the first decides what an error is."""
    protocol: str
    differences: tuple[str, ...]
    """Where it departs from the published evaluation, whatever the settings."""

    @property
    def headline(self) -> str:
        """Return the metric that decides whether an answer is right."""
        return next(iter(self.titles))


def prompt_text(prompt: Prompt) -> str:
    """Return a prompt as its tags and words, without the picture; it may hold no boxes."""
    return "".join(
        part.value if isinstance(part, Tag) else part
        for part in prompt.segments
        if isinstance(part, str)
    )


def read_split(benchmark: Benchmark, path: Path, split: str, *, own_data: bool) -> Data:
    """Return the questions of a split; refuse what is not all of the published one.

    `own_data`: it is another set in the same format, of any size.
    """
    if split not in benchmark.splits and not own_data:
        raise RequestError(
            f"{benchmark.name} has the splits {', '.join(benchmark.splits)}, got {split!r}"
        )
    data = benchmark.read(path, split)
    found, whole = len(data.problems), benchmark.splits.get(split)
    if not found:
        raise RecordError(f"{data.source} in {path} has no question of the split {split!r}")
    if found != whole and not own_data:
        raise RecordError(
            f"{benchmark.name} {split} has {whole:,} questions, {data.source} in {path} gives "
            f"{found:,}. Is the data complete? For another set in this format say --own-data"
        )
    ids = [problem.id for problem in data.problems]
    if twice := repeated(ids):
        raise RecordError(f"{data.source} in {path} has questions twice: {shown(twice)}")
    return data


def repeated(ids: Sequence[str]) -> list[str]:
    """Return the ids that stand more than once, each once, in the order of their second time."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for id in ids:
        if id in seen:
            twice[id] = None
        seen.add(id)
    return list(twice)


def shown(ids: Sequence[str]) -> str:
    """Return ids for a message: how many, and the first of them."""
    more = ", ..." if len(ids) > _SHOWN else ""
    return f"{len(ids):,} ({', '.join(ids[:_SHOWN])}{more})"


def find_picture(name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of a picture in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
