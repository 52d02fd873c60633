"""A finished scene: the picture and everything that is true about it."""

from dataclasses import dataclass

from kosmos2.boxes import Box
from kosmos2.grounding.spans import GroundedText
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.scenes.gallery import Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Things of one noun that are spoken of together."""

    noun: str
    plural: str
    count: int
    colour: str | None
    size: str | None
    """"small", "large", or None when it is neither."""
    boxes: tuple[Box, ...]
    """From left to right."""
    expressions: tuple[str, ...]
    """Phrases that mean exactly this group; the first is the one of the captions."""


@dataclass(frozen=True, slots=True)
class Referring:
    """An expression that is true of one thing of the scene alone."""

    expression: str
    box: Box


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    id: str
    """`scene:SPLIT:SEED:INDEX`, enough to make it again with the same recipe."""
    image: Pixels
    brief: GroundedText
    """A sentence that starts with "An image of"."""
    detailed: GroundedText
    expression_ends: tuple[int, ...]
    """For each phrase of `brief`, where its whole referring expression ends in the text."""
    groups: tuple[Group, ...]
    """Largest total area first."""
    referring: tuple[Referring, ...]
    questions: tuple[Question, ...]
    absent: tuple[str, ...]
    """Phrases of things that the picture does not show."""

    def record(self) -> GroundedRecord:
        """Return the scene in GRIT form: one entry per box, spans of chunks and expressions."""
        height, width = self.image.shape[:2]
        chunks, expressions = [], []
        for phrase, end in zip(self.brief.phrases, self.expression_ends, strict=True):
            for box in phrase.boxes:
                chunks.append(Grounded(phrase.start, phrase.end, *box.corners, 1.0))
                expressions.append(Grounded(phrase.start, end, *box.corners, 1.0))
        return GroundedRecord(
            id=self.id,
            image=self.id,
            width=width,
            height=height,
            caption=self.brief.text,
            noun_chunks=tuple(chunks),
            ref_exps=tuple(expressions),
        )
