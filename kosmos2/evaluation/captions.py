"""Words asked for: expressions for boxes of RefCOCOg, captions of Flickr30k and COCO."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kosmos2 import tasks
from kosmos2.evaluation import coco_captions, refcoco
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Kind,
    Problem,
    parse_continuation,
    parse_description,
)
from kosmos2.evaluation.flickr import PICTURES
from kosmos2.evaluation.karpathy import read_karpathy
from kosmos2.evaluation.words import WORD_TITLES, judge_words
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

_WITHOUT_JAVA = (
    "words are told apart by a tokenizer of ours that does to captions what Stanford's does, "
    "without Java"
)


def expression_generation() -> Benchmark:
    """Return the benchmark of referring expression generation."""
    return Benchmark(
        name="refcocog-reg",
        title="Referring expression generation, RefCOCOg",
        version=1,
        kind=Kind.WORDS,
        splits=refcoco.SIZES["refcocog"],
        read=read_expressions,
        prompt=_describe,
        parse=parse_description,
        judge=judge_words,
        titles=WORD_TITLES,
        solve=_first_said,
        protocol="prompt <grounding><phrase> It</phrase><object>BOX</object> is, "
        "answered greedily; one answer for each thing, its references are all of its expressions; "
        "with --shots, each example is a picture, this prompt and the first expression",
        differences=(
            _WITHOUT_JAVA,
            "whether the paper's prompt had <grounding>, and which split it used, is not published",
        ),
    )


def coco_captioning() -> Benchmark:
    """Return the benchmark of captioning on Karpathy's splits of COCO."""
    return replace(
        captioning(),
        name="coco-captions",
        title="Captioning, COCO (Karpathy's split)",
        version=1,
        splits=coco_captions.SPLITS,
        read=coco_captions.read,
        differences=(
            _WITHOUT_JAVA,
            "of Kosmos-2 no captions of COCO are published; prompt and beams are those of its "
            "captions of Flickr30k",
        ),
    )


def captioning() -> Benchmark:
    """Return the benchmark of captioning on Karpathy's test split of Flickr30k."""
    return Benchmark(
        name="flickr30k-captions",
        title="Captioning, Flickr30k (Karpathy's split)",
        version=1,
        kind=Kind.WORDS,
        splits={"test": 5_000},
        read=read_captions,
        prompt=_plain_caption,
        parse=parse_continuation,
        judge=judge_words,
        titles=WORD_TITLES,
        solve=_first_said,
        decoding=("beams=5", "max_new_tokens=64"),
        protocol='prompt "An image of" without <grounding>, 5 beams; what is written behind these '
        "words is compared with the captions of the picture; with --shots, each example is a "
        "picture, this prompt and its first caption",
        differences=(_WITHOUT_JAVA,),
    )


def read_expressions(path: Path, split: str) -> Data:
    """Return one question for each thing of RefCOCOg, with all that people said of it."""
    data = refcoco.read("refcocog", path, split)
    things: dict[object, list[Problem]] = {}
    for problem in data.problems:
        things.setdefault((problem.picture, problem.boxes), []).append(problem)
    problems = tuple(
        replace(
            same[0],
            id=f"thing-{same[0].id}",
            text="",
            start=0,
            end=0,
            references=tuple(each.phrase for each in same),
        )
        for same in things.values()
    )
    return replace(data, problems=problems)


def read_captions(path: Path, split: str) -> Data:
    """Return one question for each picture of a split of Karpathy's."""
    file = path / "dataset_flickr30k.json" if path.is_dir() else path
    problems = read_karpathy(file, split)
    folders = tuple(file.parent / place for place in PICTURES)
    return Data(source="Karpathy's JSON", problems=problems, folders=folders)


def _first_said(problem: Problem) -> str:
    return problem.references[0]


def _describe(problem: Problem, grid: LocationGrid) -> Prompt:
    return tasks.describe(problem.boxes[0], grid)


def _plain_caption(_problem: Problem, _grid: LocationGrid) -> Prompt:
    return tasks.plain_caption()
