"""GroundedText: plain text, the phrases in it as character spans, and the boxes of each phrase.

As JSON (`to_dict`), every number with its name, boxes as fractions of the whole picture:

    {"text": "a snowman by a fire",
     "phrases": [{"start": 0, "end": 9, "text": "a snowman",
                  "boxes": [{"x0": 0.39, "y0": 0.05, "x1": 0.98, "y1": 0.83}], "scores": [0.91]}],
     "malformed": [{"reason": "inverted_box", "detail": "cells 863, 44 at token 17"}]}
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from kosmos2.boxes import Box
from kosmos2.errors import RecordError


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """The characters [start, end) of a text and their boxes; start == end: boxes without words."""

    start: int
    end: int
    boxes: tuple[Box, ...]
    scores: tuple[float, ...] = ()
    """How sure the model is of each box, 0..1; empty where nobody measured it."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise RecordError(f"Phrase needs 0 <= start <= end, got [{self.start}, {self.end})")
        if not self.boxes:
            raise RecordError(
                f"Phrase [{self.start}, {self.end}) has no box; leave it out of `phrases`"
            )
        if self.scores and len(self.scores) != len(self.boxes):
            raise RecordError(
                f"Phrase [{self.start}, {self.end}) has {len(self.boxes)} boxes but "
                f"{len(self.scores)} scores; give one score per box, or () if none are known"
            )
        for score in self.scores:
            if not (math.isfinite(score) and 0 <= score <= 1):
                raise RecordError(f"score of a box must lie in 0..1, got {score}")

    @property
    def is_anonymous(self) -> bool:
        """Whether boxes stand here without words."""
        return self.start == self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """Something in the markup that was repaired or left out. Nothing is dropped any other way."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedText:
    """Plain text without any tags, its phrases sorted by place, and what was wrong in its source.

    Phrases may nest or overlap here (noun chunks and referring expressions of one caption do);
    the markup, which cannot say that, refuses them when written.
    """

    text: str
    phrases: tuple[Phrase, ...] = ()
    malformed: tuple[Malformed, ...] = ()

    def __post_init__(self) -> None:
        for phrase in self.phrases:
            if phrase.end > len(self.text):
                raise RecordError(
                    f"phrase [{phrase.start}, {phrase.end}) leaves the text, "
                    f"which has {len(self.text)} characters: {self.text[:80]!r}"
                )
        in_order = sorted(self.phrases, key=lambda phrase: (phrase.start, phrase.end))
        object.__setattr__(self, "phrases", tuple(in_order))

    def phrase_text(self, phrase: Phrase) -> str:
        """Return the words of a phrase, "" for boxes without words."""
        return self.text[phrase.start : phrase.end]

    def trimmed(self) -> "GroundedText":
        """Return the same without blanks around the text and around the words of each phrase."""
        lead = len(self.text) - len(self.text.lstrip())
        text = self.text.strip()
        phrases = []
        for phrase in self.phrases:
            words = self.phrase_text(phrase)
            start = phrase.start + len(words) - len(words.lstrip())
            end = phrase.start + len(words.rstrip())
            if start > end:  # nothing but blanks
                start = end
            start, end = (min(max(place - lead, 0), len(text)) for place in (start, end))
            phrases.append(replace(phrase, start=start, end=end))
        return replace(self, text=text, phrases=tuple(phrases))

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes; `from_dict` gives the same value back."""
        return {
            "text": self.text,
            "phrases": [
                {
                    "start": phrase.start,
                    "end": phrase.end,
                    "text": self.phrase_text(phrase),
                    "boxes": [_box_to_dict(box) for box in phrase.boxes],
                    "scores": list(phrase.scores),
                }
                for phrase in self.phrases
            ],
            "malformed": [
                {"reason": item.reason, "detail": item.detail} for item in self.malformed
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the value that `to_dict` wrote; RecordError names the field that does not fit."""
        try:
            grounded = cls(
                text=_text(data["text"]),
                phrases=tuple(_phrase_from_dict(item) for item in data.get("phrases", ())),
                malformed=tuple(
                    Malformed(reason=_text(item["reason"]), detail=_text(item["detail"]))
                    for item in data.get("malformed", ())
                ),
            )
        except KeyError as missing:
            raise RecordError(f"grounded text lacks the key {missing}") from missing
        except (TypeError, AttributeError) as wrong:
            raise RecordError(f"grounded text has a field of the wrong kind: {wrong}") from wrong
        for phrase, item in zip(
            grounded.phrases, sorted(data.get("phrases", ()), key=_place), strict=True
        ):
            words = item.get("text", grounded.phrase_text(phrase))
            if words != grounded.phrase_text(phrase):
                raise RecordError(
                    f"phrase [{phrase.start}, {phrase.end}) is {grounded.phrase_text(phrase)!r} "
                    f"in the text, but its own `text` says {words!r}; one of them was edited"
                )
        return grounded


def mark(text: str, words: str, boxes: Sequence[Box]) -> GroundedText:
    """Return `text` with the first occurrence of `words` tied to `boxes`."""
    start = text.find(words)
    if start < 0 or not words.strip():
        raise RecordError(f"{words!r} does not occur in {text!r}; copy the words from the text")
    phrase = Phrase(start=start, end=start + len(words), boxes=tuple(boxes))
    return GroundedText(text=text, phrases=(phrase,))


def _box_to_dict(box: Box) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), box.corners, strict=True))


def _phrase_from_dict(data: Mapping[str, Any]) -> Phrase:
    return Phrase(
        start=_whole(data["start"]),
        end=_whole(data["end"]),
        boxes=tuple(
            Box(*(_number(item[key]) for key in ("x0", "y0", "x1", "y1"))) for item in data["boxes"]
        ),
        scores=tuple(_number(score) for score in data.get("scores", ())),
    )


def _place(data: Mapping[str, Any]) -> tuple[int, int]:
    return (data["start"], data["end"])


def _text(value: Any) -> str:  # noqa: ANN401  (JSON is whatever somebody wrote)
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def _whole(value: Any) -> int:  # noqa: ANN401
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _number(value: Any) -> float:  # noqa: ANN401
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"expected a number, got {value!r}")
    return float(value)
