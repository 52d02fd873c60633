"""Captions with boxes, judged as pairs of phrase and box against Flickr30k Entities.

A thing of a picture is a box with every phrase that its five sentences use for it. A pair is right
where its phrase has the same head noun as one of these and its box overlaps the thing's with an IoU
of at least 0.5; each thing is found once, the largest overlaps first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kosmos2 import tasks
from kosmos2.boxes import Box, iou
from kosmos2.evaluation import flickr
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Judged,
    Judgement,
    Kind,
    Pair,
    Prediction,
    Problem,
)
from kosmos2.evaluation.heads import head
from kosmos2.evaluation.metrics import IOU, Match, Number, Part, one_to_one, share
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

SPLITS = {"val": 5_000, "test": 5_000}
"""Sentences: five of each of 1,000 pictures."""
GROUNDED_TITLES = {
    "f1": "F1 of pairs (noun, box), IoU 0.5",
    "precision": "– precision",
    "recall": "– recall, of all things that any sentence names",
    "common_recall": "– recall, of things that half of the sentences name",
    "noun_precision": "– precision of nouns, boxes aside",
    "answered": "answers with a box",
}


@dataclass(frozen=True, slots=True)
class _Counted:
    """What one answer adds."""

    picture: str
    right: int
    said: int
    true: int
    common_right: int
    common: int
    nouns_right: int

    def each(self) -> Judged:
        both = self.said + self.true
        return {"f1": 2 * self.right / both if both else 0.0, "answered": float(self.said > 0)}


def grounded_captioning() -> Benchmark:
    """Return the benchmark of captions with boxes."""
    return Benchmark(
        name="flickr30k-grounded",
        title="Grounded captioning, Flickr30k Entities",
        version=1,
        kind=Kind.GROUNDED,
        splits=SPLITS,
        read=read,
        prompt=_caption,
        parse=tasks.read_text,
        judge=judge_pairs,
        titles=GROUNDED_TITLES,
        protocol="prompt <grounding>An image of, answered greedily; each box that is written is a "
        "pair with the head noun of its phrase. The truth: every box of a picture with the head "
        "nouns of all phrases that its sentences use for it. A pair is right at an equal noun and "
        "an IoU of at least 0.5, each box found at most once; shares are over all pictures "
        "together. A thing is common where it is named at least half as often as there are "
        "sentences",
        differences=(
            "there is no published evaluation of Kosmos-2 by these rules, which are ours; the "
            "F1_all of arXiv 1812.06587 is a mean over 480 classes of objects instead",
            "head nouns are told by words alone: another word for the same thing is an error "
            "unless one of the sentences uses it",
        ),
    )


def read(path: Path, split: str) -> Data:
    """Return one question for each picture of Entities, with all things that it names."""
    entities, folders = flickr.places(path)
    problems = tuple(_problem(entities, id) for id in flickr.ids_of(entities, split))
    return Data(source="the files of Entities", problems=problems, folders=folders)


def judge_pairs(pairs: Sequence[Pair]) -> Judgement:
    """Return precision, recall and F1 over all answers."""
    counted = [_counted(*pair) for pair in pairs]
    return Judgement(tuple(each.each() for each in counted), numbers=_numbers(counted))


def _numbers(counted: Sequence[_Counted]) -> dict[str, Number]:
    def of(above: str, *below: str, times: int = 1) -> Number:
        return share(
            [
                Part(
                    each.picture,
                    float(times * getattr(each, above)),
                    float(sum(getattr(each, name) for name in below)),
                )
                for each in counted
            ]
        )

    return {
        "f1": of("right", "said", "true", times=2),
        "precision": of("right", "said"),
        "recall": of("right", "true"),
        "common_recall": of("common_right", "common"),
        "noun_precision": of("nouns_right", "said"),
    }


def _counted(problem: Problem, prediction: Prediction) -> _Counted:
    said = [
        (head(prediction.text[start:end]), box)
        for (start, end), box in zip(prediction.spans, prediction.boxes, strict=True)
    ]
    true = [
        (frozenset(map(head, phrases)), box)
        for phrases, box in zip(problem.named, problem.boxes, strict=True)
    ]
    found = {pair.true for pair in _matched(said, true)}
    half = problem.sentences / 2
    common = {place for place, phrases in enumerate(problem.named) if len(phrases) >= half}
    nouns = frozenset[str]().union(*(heads for heads, _ in true))
    return _Counted(
        picture=problem.picture,
        right=len(found),
        said=len(said),
        true=len(true),
        common_right=len(found & common),
        common=len(common),
        nouns_right=sum(noun in nouns for noun, _ in said),
    )


def _matched(
    said: Sequence[tuple[str, Box]], true: Sequence[tuple[frozenset[str], Box]]
) -> tuple[Match, ...]:
    return one_to_one(
        Match(i, j, overlap)
        for i, (noun, box) in enumerate(said)
        for j, (nouns, other) in enumerate(true)
        if noun in nouns and (overlap := iou(box, other)) >= IOU
    )


def _problem(folder: Path, id: str) -> Problem:
    shown = flickr.read_entities(folder / "Annotations" / f"{id}.xml")
    sentences = flickr.read_sentences(folder / "Sentences" / f"{id}.txt")
    named: dict[Box, list[str]] = {}
    for sentence in sentences:
        for mention in sentence.mentions:
            for box in shown.boxes.get(mention.entity, ()):
                named.setdefault(box, []).append(sentence.text[mention.start : mention.end])
    return Problem(
        id=id,
        picture=shown.picture,
        width=shown.width,
        height=shown.height,
        boxes=tuple(named),
        named=tuple(map(tuple, named.values())),
        references=tuple(sentence.text for sentence in sentences),
    )


def _caption(_problem: Problem, _grid: LocationGrid) -> Prompt:
    return tasks.caption()
