"""Saved answers to named numbers, beside those of answers that need no look at the picture.

An answer's things are its boxes, each with the noun that its phrase names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from kosmos2.boxes import Box, iou
from kosmos2.evaluation.metrics import IOU, Number, Part, Thing, auroc, match, mean, share
from kosmos2.evaluation.scenes import ASK, FIND_ONE, WHOLE, Answered, Case, Kind
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.scenes.compose import COLOURS
from kosmos2.scenes.nouns import all_nouns, article

CENTRE = Box(0.25, 0.25, 0.75, 0.75)
BASELINES = {"whole_image": WHOLE, "centre_box": CENTRE}
"""Name → the one box of all answers; their words are the split's most frequent ones."""

_GOES_ON = re.compile(
    "above|and|are|at|behind|below|beside|by|from|in|inside|is|near|next|of|on|that|to|under|which|"
    "who|with"
)
"""Behind its noun, with one of these a phrase goes on about other things."""

Parts = Callable[[Answered], tuple[float, float]]
"""An answer → what it adds above and below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One answer judged."""

    right: bool
    """As a whole: each thing found, none that is not there; the noun; the answer word by word."""
    overlap: float | None
    """Of a found box, or the mean over the true boxes, those not matched as 0; None without."""
    score: float | None
    """What the model trusts its first box, or the mean over its boxes; None where it says none."""


def measure(answered: Sequence[Answered]) -> dict[str, Number]:
    """Return every number of a split; a number that no question asks for is left out."""
    by_kind: dict[Kind, list[Answered]] = {kind: [] for kind in Kind}
    for answer in answered:
        by_kind[answer.case.kind].append(answer)
    found = [answer for kind in FIND_ONE for answer in by_kind[kind]]
    shares = {
        "find": found,
        **{kind.value: by_kind[kind] for kind in FIND_ONE},
        "describe": by_kind[Kind.DESCRIBE],
        **{kind.value: by_kind[kind] for kind in ASK},
    }
    numbers = {name: _right(answers) for name, answers in shares.items() if answers}
    for name, answers, measured in (
        ("find", found, _overlaps),
        ("find_all", by_kind[Kind.FIND_ALL], _groups),
        ("caption", by_kind[Kind.CAPTION], _captions),
        ("score", found, _scores),
        ("shown", by_kind[Kind.SHOWN], _shown),
    ):
        if answers:
            numbers |= {f"{name}_{key}": number for key, number in measured(answers).items()}
    return numbers


def baseline(cases: Sequence[Case], box: Box) -> list[Answered]:
    """Return the same answer to all cases of a kind: this box, the most frequent words."""
    nouns = Counter(thing.noun for case in cases for thing in case.things)
    noun = max(nouns, key=lambda name: (nouns[name], name), default="")
    words = {
        kind: Counter(case.answer for case in cases if case.kind is kind)
        for kind in {case.kind for case in cases}
    }
    answered = []
    for case in cases:
        match case.kind:
            case Kind.CAPTION | Kind.DESCRIBE:
                text = f"{article(noun)} {noun}"
            case kind if kind in ASK:
                text = max(words[kind], key=lambda answer: (words[kind][answer], answer))
            case _:
                text = case.asked
        phrases = () if case.kind in ASK else (Phrase(start=0, end=len(text), boxes=(box,)),)
        answered.append(Answered(case=case, predicted=GroundedText(text=text, phrases=phrases)))
    return answered


def verdict(answer: Answered) -> Verdict:
    """Return one answer judged."""
    case, scores = answer.case, [s for p in answer.predicted.phrases for s in p.scores]
    if case.kind in ASK:
        right = _said(answer.predicted.text) == _said(case.answer)
        return Verdict(right=right, overlap=None, score=None)
    if case.kind is Kind.DESCRIBE:
        right = head_noun(answer.predicted.text) == case.things[0].noun
        return Verdict(right=right, overlap=None, score=None)

    if case.kind is Kind.SHOWN:
        probability = _probability(answer)
        right = (probability >= 0.5) == bool(case.things)
        return Verdict(right=right, overlap=None, score=probability)

    predicted = things_of(answer)
    if case.kind in FIND_ONE:
        overlap = iou(predicted[0].box, case.things[0].box) if predicted else 0.0
        return Verdict(right=overlap >= IOU, overlap=overlap, score=scores[0] if scores else None)
    pairs = match(predicted, case.things, at_least=IOU)
    overlaps = [pair.overlap for pair in match(predicted, case.things, at_least=0.0)]
    return Verdict(
        right=len(pairs) == len(case.things) == len(predicted),
        overlap=sum(overlaps) / len(case.things),
        score=sum(scores) / len(scores) if scores else None,
    )


def things_of(answer: Answered) -> list[Thing]:
    """Return the predicted boxes in their order, each with its noun: in a caption that of its
    phrase ("" if unknown), else the one asked for."""
    predicted = answer.predicted
    found = []
    for phrase in predicted.phrases:
        words = predicted.phrase_text(phrase)
        noun = answer.case.things[0].noun
        if answer.case.kind is Kind.CAPTION:
            noun = head_noun(words)
        found += [Thing(noun, box, _colour(words)) for box in phrase.boxes]
    return found


def head_noun(phrase: str) -> str:
    """Return the singular of the noun that a phrase is about, "" if scenes have none such.

    The last known name, the longest where several start, before the phrase goes on about other
    things: "two top hats on a red book" → "top hat".
    """
    names = _names()
    words = re.findall(r"[\w'-]+", phrase.lower())
    head, place = "", 0
    while place < len(words):
        for size in (3, 2, 1):
            known = names.get(" ".join(words[place : place + size]))
            if known is not None:
                head, place = known, place + size
                break
        else:
            if head and _GOES_ON.fullmatch(words[place]):
                break
            place += 1
    return head


@cache
def _names() -> Mapping[str, str]:
    nouns = all_nouns().values()
    return {name.lower(): noun.singular for noun in nouns for name in (noun.plural, noun.singular)}


def _colour(phrase: str) -> str:
    return next((word for word in phrase.lower().split() if word in COLOURS), "")


def _said(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def _right(answers: Sequence[Answered]) -> Number:
    return share(_parts(answers, lambda answer: (float(verdict(answer).right), 1.0)))


def _overlaps(answers: Sequence[Answered]) -> dict[str, Number]:
    return {"mean_iou": mean(_parts(answers, lambda answer: (verdict(answer).overlap or 0.0, 1.0)))}


def _groups(answers: Sequence[Answered]) -> dict[str, Number]:
    """Return the micro F1, whose n counts the true boxes, and the share without any fault."""

    def parts(answer: Answered) -> tuple[float, float]:
        predicted, true = things_of(answer), answer.case.things
        return 2.0 * len(match(predicted, true, at_least=IOU)), float(len(predicted) + len(true))

    true = sum(len(answer.case.things) for answer in answers)
    return {"f1": replace(share(_parts(answers, parts)), n=true), "exact": _right(answers)}


def _captions(answers: Sequence[Answered]) -> dict[str, Number]:
    """Return how well (noun, box) pairs and nouns alone agree; n counts pairs."""

    def pairs(answer: Answered, at_least: float) -> float:
        return float(len(match(things_of(answer), answer.case.things, at_least=at_least)))

    def predicted(answer: Answered) -> float:
        return float(len(things_of(answer)))

    def true(answer: Answered) -> float:
        return float(len(answer.case.things))

    measured: dict[str, Parts] = {
        "f1": lambda answer: (2 * pairs(answer, IOU), predicted(answer) + true(answer)),
        "precision": lambda answer: (pairs(answer, IOU), predicted(answer)),
        "recall": lambda answer: (pairs(answer, IOU), true(answer)),
        "noun_precision": lambda answer: (pairs(answer, 0.0), predicted(answer)),
        "noun_recall": lambda answer: (pairs(answer, 0.0), true(answer)),
    }
    numbers = {name: share(_parts(answers, parts)) for name, parts in measured.items()}
    named, painted = _parts(answers, _noun_overlaps), _parts(answers, _colours)
    if any(part.below for part in named):
        numbers["noun_iou"] = mean(named)
    if any(part.below for part in painted):
        numbers["colour"] = share(painted)
    return {**numbers, "exact": _right(answers)}


def _noun_overlaps(answer: Answered) -> tuple[float, float]:
    pairs = match(things_of(answer), answer.case.things, at_least=0.0)
    return sum(pair.overlap for pair in pairs), float(len(pairs))


def _colours(answer: Answered) -> tuple[float, float]:
    """Return right colours and colours, of the painted things that were found and named."""
    predicted, true = things_of(answer), answer.case.things
    painted = [
        predicted[pair.predicted].colour == true[pair.true].colour
        for pair in match(predicted, true, at_least=IOU)
        if true[pair.true].colour
    ]
    return float(sum(painted)), float(len(painted))


def _scores(answers: Sequence[Answered]) -> dict[str, Number]:
    """Return the mean score of right and of wrong boxes, and how well it tells them apart."""
    judged = [(answer.case.scene, verdict(answer)) for answer in answers]
    scored = [(scene, v.right, v.score) for scene, v in judged if v.score is not None]
    numbers = {}
    for name, wanted in (("right", True), ("wrong", False)):
        parts = [Part(scene, score, 1.0) for scene, right, score in scored if right is wanted]
        if parts:
            numbers[name] = mean(parts)
    if len(numbers) == 2:
        scenes, right, scores = zip(*scored, strict=True)
        numbers["auroc"] = auroc(scores, right, scenes)
    return numbers


def _shown(answers: Sequence[Answered]) -> dict[str, Number]:
    """Return how well the probability tells phrases of what is there from others."""
    there = [bool(answer.case.things) for answer in answers]
    if all(there) or not any(there):
        return {}
    scenes = [answer.case.scene for answer in answers]
    return {"auroc": auroc([_probability(answer) for answer in answers], there, scenes)}


def _probability(answer: Answered) -> float:
    """Return how probable it is that the phrase asked for is shown; sure where it is not said."""
    phrases = answer.predicted.phrases
    return phrases[0].scores[0] if phrases and phrases[0].scores else float(bool(phrases))


def _parts(answers: Sequence[Answered], parts: Parts) -> list[Part]:
    return [Part(answer.case.scene, *parts(answer)) for answer in answers]
