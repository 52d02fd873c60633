"""What the model answers: values that know their text, boxes, scores and the picture's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kosmos2.boxes import Box
from kosmos2.engine import StopReason
from kosmos2.grounding.spans import GroundedText, Phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """How an answer came about."""

    width: int
    height: int
    """Pixels of the picture where it came from, upright."""
    mean_logprob: float
    """Natural logarithm of a token's probability, averaged over what the model wrote."""
    stop: StopReason
    markup: str
    """What the model wrote, with tags and location tokens as literals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Plain text whose phrases have boxes, as fractions of the picture, and scores."""

    grounded: GroundedText
    trace: Trace

    @property
    def text(self) -> str:
        return self.grounded.text

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        return self.grounded.phrases

    @property
    def mean_logprob(self) -> float:
        return self.trace.mean_logprob

    @property
    def stop(self) -> StopReason:
        return self.trace.stop

    def in_pixels(self, box: Box) -> tuple[float, float, float, float]:
        """Return (x0, y0, x1, y1) of a box in pixels of the original picture, not rounded."""
        return box.to_pixels(width=self.trace.width, height=self.trace.height)

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes: boxes normalised, and in pixels under `pixels`."""
        grounded = self.grounded.to_dict()
        for phrase, entry in zip(self.phrases, grounded["phrases"], strict=True):
            entry["pixels"] = [list(self.in_pixels(box)) for box in phrase.boxes]
        return {
            **grounded,
            "mean_logprob": self.mean_logprob,
            "stop": str(self.stop),
            "markup": self.trace.markup,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """How probable it is to the model that a phrase, characters [start, end), is not shown."""

    start: int
    end: int
    absent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption(Reply):
    """A sentence or a paragraph about a picture."""

    doubts: tuple[Doubt, ...] = ()
    """Of each given phrase, in order, where phrases were allowed to be absent."""

    def to_dict(self) -> dict[str, Any]:
        if not self.doubts:
            return Reply.to_dict(self)
        doubts = [
            {
                "start": it.start,
                "end": it.end,
                "text": self.text[it.start : it.end],
                "absent": it.absent,
            }
            for it in self.doubts
        ]
        return {**Reply.to_dict(self), "doubts": doubts}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Reply):
    """Where a phrase is; the text is the phrase itself."""

    phrase: str
    absent: float | None = None
    """How probable it is to the model that the picture does not show it; None: not asked for."""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Return the boxes, the surest first."""
        return tuple(box for phrase in self.phrases for box in phrase.boxes)

    @property
    def scores(self) -> tuple[float, ...]:
        """Return one score in 0..1 for each box."""
        return tuple(score for phrase in self.phrases for score in phrase.scores)

    def to_dict(self) -> dict[str, Any]:
        asked = {} if self.absent is None else {"absent": self.absent}
        return {"phrase": self.phrase, **asked, **Reply.to_dict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description(Reply):
    """An expression for what is inside a box; its only phrase is all of it."""

    box: Box

    def to_dict(self) -> dict[str, Any]:
        return {"box": list(self.box.corners), **Reply.to_dict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Reply):
    """The answer to a question."""

    question: str

    def to_dict(self) -> dict[str, Any]:
        return {"question": self.question, **Reply.to_dict(self)}
