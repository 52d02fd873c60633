"""What a benchmark is: questions with their truth, a prompt, a judge, a version. Values only.

A change that can move a score (another reading of the data, another prompt, another rule of
counting) raises the version, and predictions of other versions are not scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from kosmos2 import tasks
from kosmos2.boxes import Box
from kosmos2.errors import RecordError, RequestError
from kosmos2.evaluation.metrics import Number
from kosmos2.grounding.markup import read_symbols
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.segments import Cell, ImageSlot, Symbol
from kosmos2.vocab.special import Tag

_SHOWN = 8
"""So many ids stand in a message."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A solved example that stands before a question, with a picture of its own."""

    problem: Problem
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question about a picture, and its truth.

    To find: the words [start, end) of a text; the truth is all their boxes. To say: what is in the
    only box, or in the picture; the truth is what people said of it, and in captions with boxes
    which things are there. To choose: one of several answers to the question that is the text; one
    of them is true. To answer: the question that is the text; the truth is what people answered.
    """

    id: str
    picture: str
    """The name of its file, without the folder."""
    width: int
    height: int
    """Pixels of the picture as the annotations give them."""
    text: str = ""
    start: int = 0
    end: int = 0
    boxes: tuple[Box, ...] = ()
    """Normalised."""
    references: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """What kind of thing it is, to the benchmark: a phrase may be of several."""
    distractors: int | None = None
    """Other things of the same noun in the picture; None where the annotations do not tell."""
    said_again: bool = False
    """Whether the same words stand at another place of the text."""
    choices: tuple[str, ...] = ()
    correct: int = 0
    """Which of the choices is true, from 0."""
    others: tuple[str, ...] = ()
    """Further pictures that its prompts show before its own, as names of files."""
    shots: tuple[Shot, ...] = ()
    """Solved examples before the question; their pictures are among the others, in this order."""
    named: tuple[tuple[str, ...], ...] = ()
    """For each box the phrases that people used for what is in it, one for each time; () where
    they do not tell."""
    opening: str = ""
    """How the question begins, to the benchmark: its type."""

    @property
    def phrase(self) -> str:
        return self.text[self.start : self.end]

    @property
    def sentences(self) -> int:
        """Return how many sentences of the data set it stands for: splits are counted in them."""
        return 1 if self.text else max(1, len(self.references))


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
    spans: tuple[tuple[int, int], ...] = ()
    """For each box the characters [start, end) of the text that it belongs to; () where it is not
    asked in words."""
    examples: tuple[str, ...] = ()
    """Ids of the solved examples that stood before the question, in their order."""
    text: str = ""
    """The answer in words, where words are asked for."""
    logprobs: tuple[float, ...] = ()
    """How probable each choice is, where one is chosen: the mean of its tokens' logarithms."""
    malformed: tuple[str, ...] = ()
    """Why parts of the answer are no boxes."""
    stop: str = ""


Pair = tuple[Problem, Prediction]
Judged = Mapping[str, float]
"""Metric → what one answer adds to its mean, as a share."""
Parse = Callable[
    [Prompt, Sequence[Symbol], Sequence[float | None], LocationGrid],
    GroundedText,
]
"""A prompt and what was written behind it → words, or boxes in the order of their writing."""


class Kind(StrEnum):
    """What is asked for."""

    BOXES = "boxes"
    WORDS = "words"
    """Free ones, compared with what people said."""
    ANSWER = "answer"
    """One that is right or wrong, or in part."""
    GROUNDED = "grounded"
    """Words with boxes."""


class Form(StrEnum):
    """What an answer may look like."""

    FREE = "free"
    """Whatever the model writes, to its own end: as in the paper."""
    BOXES = "boxes"
    """Boxes and nothing else, at least one."""
    ABSENT = "absent"
    """Boxes and nothing else, or none, with the probability of none."""
    CHOICE = "choice"
    """Nothing is written, each choice is weighed."""


@dataclass(frozen=True, slots=True)
class Judgement:
    each: tuple[Judged, ...]
    """One answer after the other, all with the same metrics."""
    whole: Mapping[str, float] = field(default_factory=dict)
    """Metrics that are no mean over answers → their value over all."""
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """Metrics that bring their own interval, such as a precision; slices are judged anew."""


def one_by_one(judge: Callable[[Problem, Prediction], Judged], pairs: Sequence[Pair]) -> Judgement:
    """Return answers judged, none of which depends on the others."""
    return Judgement(tuple(judge(problem, prediction) for problem, prediction in pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One of several texts behind a prompt, to be weighed: the most probable one is the answer."""

    prompt: Prompt
    pictures: tuple[str, ...]
    """Names of the files that fill the places of the prompt, in their order."""
    continuation: str


Options = Callable[[Problem, LocationGrid], tuple[Option, ...]]
"""A question → one option for each of its choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    name: str
    title: str
    version: int
    kind: Kind
    splits: Mapping[str, int]
    """Split → sentences of the whole of it."""
    read: Callable[[Path, str], Data]
    prompt: Callable[[Problem, LocationGrid], Prompt]
    parse: Parse
    judge: Callable[[Sequence[Pair]], Judgement]
    titles: Mapping[str, str]
    """Metric → its name for people; by the first one the worst answers are told."""
    decoding: tuple[str, ...] = ()
    """How the published answers were made, as `--set` says it, where that is not greedily."""
    forms: tuple[Form, ...] = (Form.FREE,)
    """What answers may look like, that of the published ones first."""
    options: Options | None = None
    """What is weighed where choices are: each by its mean log-probability."""
    solve: Callable[[Problem], str] | None = None
    """What a solved example says; None: there are none."""
    then: Benchmark | None = None
    """What is asked of the words that are answered: its boxes are the boxes of the answer."""
    submit: Callable[[Sequence[Pair]], object] | None = None
    """What a server that keeps the truth wants in `result.json`."""
    protocol: str
    differences: tuple[str, ...]
    """Where it departs from the published evaluation, whatever the settings."""

    @property
    def headline(self) -> str:
        """Return the metric by which the worst answers are told."""
        return next(iter(self.titles))


def prompt_text(prompt: Prompt) -> str:
    """Return a prompt as tags, location tokens and words; of pictures, the first is left out."""
    text, words_before = "", False
    for place, part in enumerate(prompt.segments):
        is_words = isinstance(part, str) and not isinstance(part, Tag)
        if isinstance(part, Cell):
            text += f"<patch_index_{part.index:04d}>"
        elif isinstance(part, ImageSlot):
            text += "<image>" if place else ""
        else:
            text += f" {part}" if is_words and words_before else str(part)
        words_before = is_words
    return text


def prompt_of(benchmark: Benchmark, problem: Problem, grid: LocationGrid) -> Prompt:
    """Return what a model is given for a question: solved examples, if any, and its prompt."""
    query = benchmark.prompt(problem, grid)
    if not problem.shots:
        return query
    examples = [
        tasks.Demonstration(
            prompt=benchmark.prompt(shot.problem, grid), answer=GroundedText(text=shot.answer)
        )
        for shot in problem.shots
    ]
    return tasks.few_shot(examples, query, grid)


def parse_found(
    prompt: Prompt, symbols: Sequence[Symbol], scores: Sequence[float | None], grid: LocationGrid
) -> GroundedText:
    """Return the phrase with its boxes in the order in which they were written."""
    found = tasks.read_found(prompt, symbols, scores, grid)
    phrases: tuple[Phrase, ...] = ()
    if found.boxes:
        end = len(found.phrase)
        phrases = (Phrase(start=0, end=end, boxes=found.boxes, scores=found.scores),)
    return GroundedText(text=found.phrase, phrases=phrases, malformed=found.malformed)


def parse_description(
    prompt: Prompt, symbols: Sequence[Symbol], scores: Sequence[float | None], grid: LocationGrid
) -> GroundedText:
    """Return an expression alone, without the prompt's "It is"."""
    return GroundedText(text=tasks.read_description(prompt, symbols, scores, grid))


def parse_continuation(
    prompt: Prompt, symbols: Sequence[Symbol], scores: Sequence[float | None], grid: LocationGrid
) -> GroundedText:
    """Return what was written behind the prompt, without its words."""
    return GroundedText(text=read_symbols(symbols, grid, scores).text.strip())


def read_split(benchmark: Benchmark, path: Path, split: str, *, own_data: bool) -> Data:
    """Return the questions of a split; refuse what is not all of the published one.

    `own_data`: it is another set in the same format, of any size; where no set was published
    there are no others.
    """
    own_data = own_data or not benchmark.splits
    if split not in benchmark.splits and not own_data:
        raise RequestError(
            f"{benchmark.name} has the splits {', '.join(benchmark.splits)}, got {split!r}"
        )
    data = benchmark.read(path, split)
    found = sum(problem.sentences for problem in data.problems)
    whole = benchmark.splits.get(split)
    if not found:
        raise RecordError(f"{data.source} in {path} has no question of the split {split!r}")
    if found != whole and not own_data:
        raise RecordError(
            f"{benchmark.name} {split} has {whole:,} sentences, {data.source} in {path} gives "
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
