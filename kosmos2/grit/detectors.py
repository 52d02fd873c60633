"""What gives boxes to phrases: one protocol for all detectors, and the one that knows the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from kosmos2.boxes import Box
from kosmos2.grit.linking import Candidate
from kosmos2.records.record import GroundedRecord

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """A picture, its caption, and the phrases to look for."""

    id: str
    image: Image.Image
    """Upright RGB."""
    caption: str
    spans: tuple[Span, ...]
    """Noun chunks as characters [start, end) of the caption, none overlapping."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A pair that a detector cannot look at, and why; the reason is counted."""

    reason: str


class Detector(Protocol):
    """Looks for phrases in pictures. Lists in, lists out; the same answers in any company."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Return what its boxes depend on: name, weights, settings."""

    @property
    def score(self) -> str:
        """Return what its scores are, in a sentence: a threshold means nothing without it."""

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of each picture, normalised; `Candidate.phrase` counts its spans."""


class Oracle:
    """Gives each phrase the boxes that a record of the truth has for the same words."""

    score = "1 for every box of the truth"

    def __init__(self, truth: Mapping[str, GroundedRecord], name: str = "memory") -> None:
        self._truth = truth
        self._name = name

    @property
    def identity(self) -> Mapping[str, str]:
        return {"detector": "oracle", "model": self._name}

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of the true noun chunks that a phrase shares characters with."""
        return [
            [
                Candidate(phrase=number, box=box, score=1.0)
                for number, span in enumerate(each.spans)
                for box in self._boxes(each.id, span)
            ]
            for each in asked
        ]

    def _boxes(self, id: str, span: Span) -> list[Box]:
        truth = self._truth.get(id)
        entries = (truth.noun_chunks or ()) if truth else ()
        return [entry.box for entry in entries if entry.start < span[1] and span[0] < entry.end]
