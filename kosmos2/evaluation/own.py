"""Grounded records that nobody trained on, put to a model: find, describe, caption.

One line a record, enough to count again without the model:

    {"record": "7", "picture": "9f2c...", "true": {"text": "a dog by a fire", "phrases": [...]},
     "caption": {...}, "found": [[[0.1, 0.2, 0.5, 0.9]]], "described": ["a dog"]}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2.api import Kosmos2, questions
from kosmos2.boxes import Box
from kosmos2.data.album import Album
from kosmos2.data.captions import picture_of
from kosmos2.data.ledger import Rejected
from kosmos2.data.own import OwnRecord
from kosmos2.errors import BoxError, RecordError
from kosmos2.evaluation.bootstrap import Bootstrap
from kosmos2.evaluation.localisation import best_overlap
from kosmos2.evaluation.metrics import IOU, Number, Thing, match
from kosmos2.grounding.spans import GroundedText

TITLES = {
    "find": "find a phrase: first box right at IoU 0.5",
    "find_iou": "– mean IoU of the first box",
    "describe": "describe a box: right head word",
    "caption_f1": "caption: F1 of (head word, box), IoU 0.5",
    "caption_precision": "– precision",
    "caption_recall": "– recall",
}
"""Metric → its name for people, the headline first."""
NOT_A_SHARE = ("find_iou",)
PAIRED = ("find", "find_iou", "describe", "caption_recall")
"""Before and after these ask about the same things, so that the change has an interval."""

_GOES_ON = (
    "above and are at behind below beside between by from has holding in inside into is near next "
    "on onto over that to under wearing which who with"
)
"""With one of these a phrase goes on about other things than its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a model said of one record."""

    record: str
    picture: str
    """A hash of its pixels."""
    true: GroundedText
    caption: GroundedText
    found: tuple[tuple[Box, ...], ...]
    """For each true phrase the boxes found, the surest first."""
    described: tuple[str | None, ...]
    """For each true phrase what was said of its box; None where it has several."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes; `from_dict` gives the same value back."""
        return {
            "record": self.record,
            "picture": self.picture,
            "true": self.true.to_dict(),
            "caption": self.caption.to_dict(),
            "found": [[list(box.corners) for box in boxes] for boxes in self.found],
            "described": list(self.described),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Answered:
        """Return the value that `to_dict` wrote."""
        try:
            return cls(
                record=data["record"],
                picture=data["picture"],
                true=GroundedText.from_dict(data["true"]),
                caption=GroundedText.from_dict(data["caption"]),
                found=tuple(tuple(Box(*each) for each in boxes) for boxes in data["found"]),
                described=tuple(data["described"]),
            )
        except (KeyError, TypeError, ValueError, BoxError) as wrong:
            raise RecordError(f"no answer about a record: {wrong!r}") from wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One number before and after; the change where both are about the same things."""

    before: Number
    after: Number
    change: Number | None


def answers(
    model: Kosmos2, records: Sequence[OwnRecord], album: Album, *, at_a_time: int
) -> Iterator[Answered]:
    """Yield what the model says of each record, in their order."""
    for start in range(0, len(records), at_a_time):
        some = records[start : start + at_a_time]
        views = model.look([opened(record, album) for record in some])
        captions = model.answer([((view,), questions.caption()) for view in views])
        vocabulary, grid = model.tokenizer.vocabulary, model.tokenizer.grid
        pairs = [
            (view, record.text.phrase_text(phrase), phrase)
            for view, record in zip(views, some, strict=True)
            for phrase in record.text.phrases
        ]
        found = iter(
            model.answer([((view,), questions.find(words, vocabulary)) for view, words, _ in pairs])
        )
        single = [(view, phrase.boxes[0]) for view, _, phrase in pairs if len(phrase.boxes) == 1]
        said = iter(
            model.answer([((view,), questions.describe(box, grid)) for view, box in single])
        )
        for record, caption in zip(some, captions, strict=True):
            phrases = record.text.phrases
            yield Answered(
                record=record.name,
                picture=record.content,
                true=record.text,
                caption=caption.grounded,
                found=tuple(next(found).boxes for _ in phrases),
                described=tuple(next(said).text if len(p.boxes) == 1 else None for p in phrases),
            )


def save(path: Path, answered: Iterable[Answered]) -> None:
    """Write answers as JSON lines; the file appears whole."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(each.to_dict()) + "\n" for each in answered)
    os.replace(partial, path)


def read(path: Path) -> list[Answered]:
    """Return what `save` wrote."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Answered.from_dict(json.loads(line)) for line in lines]
    except (OSError, ValueError, RecordError) as error:
        raise RecordError(f"cannot read the answers in {path}: {error}") from error


def compare(before: Sequence[Answered], after: Sequence[Answered]) -> dict[str, Compared]:
    """Return every number that the records ask for, by the names of TITLES."""
    one, two = _units(before), _units(after)
    return {
        name: Compared(
            before=_mean(one[name]),
            after=_mean(two[name]),
            change=_change(one[name], two[name]) if name in PAIRED else None,
        )
        for name in TITLES
        if one[name] or two[name]
    }


def head_word(phrase: str) -> str:
    """Return the word that a phrase is about, roughly: "two small red cars on a book" → "car".

    The last word before one with which phrases go on about other things, in lower case, without
    the s of a plural. Only equality matters, and truth and answers are cut alike.
    """
    words = re.findall(r"[\w'-]+", phrase.lower())
    ends = [place for place, word in enumerate(words) if word in _GOES_ON.split() and place]
    head = words[: ends[0] if ends else None][-1:]
    word = head[0] if head else ""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def found_right(answered: Answered) -> list[float]:
    """Return the IoU of the first box of each phrase with the true one that it fits best."""
    phrases = answered.true.phrases
    return [
        best_overlap(boxes[:1], phrase.boxes)
        for phrase, boxes in zip(phrases, answered.found, strict=True)
    ]


Unit = tuple[str, float]
"""A picture, and one thing that counts as so much."""


def _units(answered: Sequence[Answered]) -> dict[str, list[Unit]]:
    units: dict[str, list[Unit]] = {name: [] for name in TITLES}
    for each in answered:
        picture, phrases = each.picture, each.true.phrases
        overlaps = found_right(each)
        units["find"] += [(picture, float(overlap >= IOU)) for overlap in overlaps]
        units["find_iou"] += [(picture, overlap) for overlap in overlaps]
        for phrase, said in zip(phrases, each.described, strict=True):
            if said is not None:
                right = head_word(said) == head_word(each.true.phrase_text(phrase))
                units["describe"].append((picture, float(right)))
        predicted, true = _things(each.caption), _things(each.true)
        pairs = match(predicted, true, at_least=IOU)
        precision = _hit(len(predicted), {pair.predicted for pair in pairs})
        recall = _hit(len(true), {pair.true for pair in pairs})
        units["caption_precision"] += [(picture, hit) for hit in precision]
        units["caption_recall"] += [(picture, hit) for hit in recall]
        # The mean over all boxes of both sides is 2 pairs / (predicted + true).
        units["caption_f1"] += [(picture, hit) for hit in (*precision, *recall)]
    return units


def _things(text: GroundedText) -> list[Thing]:
    return [
        Thing(head_word(text.phrase_text(phrase)), box)
        for phrase in text.phrases
        for box in phrase.boxes
    ]


def _hit(count: int, hits: set[int]) -> list[float]:
    return [float(number in hits) for number in range(count)]


def _change(before: Sequence[Unit], after: Sequence[Unit]) -> Number:
    assert [picture for picture, _ in before] == [picture for picture, _ in after]
    return _mean([(p, new - old) for (p, old), (_, new) in zip(before, after, strict=True)])


def _mean(units: Sequence[Unit]) -> Number:
    if not units:  # no caption had a box
        return Number(value=0.0, n=0, low=0.0, high=1.0)
    pictures, values = zip(*units, strict=True)
    return Bootstrap(pictures).means({"it": values}, range(len(values)))["it"]


def opened(record: OwnRecord, album: Album) -> Image.Image:
    """Return the upright picture of a record that was looked at before."""
    image = picture_of(record.fields, record.name, album)
    if isinstance(image, Rejected):  # it was there a moment ago
        raise RecordError(f"record {record.name}: {image.detail}")
    return image
