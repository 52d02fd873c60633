"""An exam about illustrated scenes: questions whose answers are known by construction.

For each scene: a caption; for each group of things one phrase to find, the whole group where it
has several, and one box to describe; one question of each kind. Which phrase, box and question is
drawn with the scene's own id, so that everybody is asked the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from PIL import Image

from kosmos2.api import Found, Kosmos2, Question, Reply, questions
from kosmos2.boxes import Box
from kosmos2.errors import BoxError, RecordError
from kosmos2.evaluation.metrics import Thing
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.scenes import Group, Scene, SceneMaker


class Kind(StrEnum):
    """What is asked, and what it takes."""

    CAPTION = "caption"
    FIND_PLAIN = "find_plain"
    """A noun alone, of which the picture has one."""
    FIND_DETAILED = "find_detailed"
    """Words besides, which a picture with one such thing does not need."""
    FIND_DISTINGUISHING = "find_distinguishing"
    """Words that tell the thing from others of its noun in the picture."""
    FIND_ALL = "find_all"
    DESCRIBE = "describe"
    SHOWN = "shown"
    """Whether a phrase is of something in the picture; its answer is scored with how probable."""
    ASK_HOW_MANY = "ask_how_many"
    ASK_WHAT_COLOR = "ask_what_color"
    ASK_IS_THERE = "ask_is_there"


WHOLE = Box(0.0, 0.0, 1.0, 1.0)
FIND_ONE = (Kind.FIND_PLAIN, Kind.FIND_DETAILED, Kind.FIND_DISTINGUISHING)
ASK = {
    Kind.ASK_HOW_MANY: "How many ",
    Kind.ASK_WHAT_COLOR: "What color ",
    Kind.ASK_IS_THERE: "Is there ",
}
"""Kind → how its questions begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question and its truth."""

    scene: str
    kind: Kind
    asked: str = ""
    """The phrase to find or the question; a box to describe is that of the only thing."""
    things: tuple[Thing, ...] = ()
    """What is there, of all that is asked about."""
    answer: str = ""
    """In words, where words are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    case: Case
    predicted: GroundedText

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dumps` takes; `from_dict` gives the same value back."""
        things = [[thing.noun, thing.colour, *thing.box.corners] for thing in self.case.things]
        return {
            "scene": self.case.scene,
            "kind": str(self.case.kind),
            "asked": self.case.asked,
            "things": things,
            "answer": self.case.answer,
            "predicted": self.predicted.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Answered:
        """Return the value that `to_dict` wrote; other keys are not looked at."""
        try:
            case = Case(
                scene=data["scene"],
                kind=Kind(data["kind"]),
                asked=data["asked"],
                things=tuple(Thing(n, Box(*corners), c) for n, c, *corners in data["things"]),
                answer=data["answer"],
            )
            return cls(case=case, predicted=GroundedText.from_dict(data["predicted"]))
        except (KeyError, TypeError, ValueError, BoxError) as wrong:
            raise RecordError(f"no answer as `kosmos2 eval` saves them: {wrong!r}") from wrong


class Examinee(Protocol):
    def answers(
        self, pictures: Sequence[Image.Image], cases: Sequence[Sequence[Case]]
    ) -> list[list[GroundedText]]:
        """Return the answers to the cases of each picture, found boxes the surest first."""
        ...


@dataclass(frozen=True, slots=True)
class Examined:
    scene: Scene
    answers: tuple[Answered, ...]


@dataclass(frozen=True, slots=True)
class ModelExaminee:
    """The model itself: one encoding of a picture, all its questions in common batches."""

    model: Kosmos2 = field(repr=False)

    def answers(
        self, pictures: Sequence[Image.Image], cases: Sequence[Sequence[Case]]
    ) -> list[list[GroundedText]]:
        views = self.model.look(list(pictures))
        asked = [
            ((view,), self._question(case))
            for view, own in zip(views, cases, strict=True)
            for case in own
        ]
        replies = iter(self.model.answer(asked))
        return [[_told(case, next(replies)) for case in own] for own in cases]

    def _question(self, case: Case) -> Question[Reply]:
        tokenizer = self.model.tokenizer
        match case.kind:
            case Kind.CAPTION:
                return questions.caption()
            case Kind.DESCRIBE:
                return questions.describe(case.things[0].box, tokenizer.grid)
            case Kind.SHOWN:
                return questions.find_or_absent(case.asked, tokenizer.vocabulary)
            case kind if kind in ASK:
                return questions.ask(case.asked)
        return questions.find(case.asked, tokenizer.vocabulary)


def _told(case: Case, reply: Reply) -> GroundedText:
    """Return the answer. Whether a phrase is shown at all is told of the whole picture, scored."""
    if case.kind is not Kind.SHOWN:
        return reply.grounded
    assert isinstance(reply, Found) and reply.absent is not None
    shown = Phrase(start=0, end=len(case.asked), boxes=(WHOLE,), scores=(1 - reply.absent,))
    return GroundedText(text=case.asked, phrases=(shown,))


def examine(
    maker: SceneMaker, count: int, examinee: Examinee, *, at_a_time: int
) -> Iterator[Examined]:
    """Yield the first `count` scenes of a split, answered."""
    for start in range(0, count, at_a_time):
        scenes = [maker.scene(index) for index in range(start, min(start + at_a_time, count))]
        cases = [cases_of(scene) for scene in scenes]
        pictures = [Image.fromarray(scene.image) for scene in scenes]
        answers = examinee.answers(pictures, cases)
        for scene, own_cases, own_answers in zip(scenes, cases, answers, strict=True):
            pairs = zip(own_cases, own_answers, strict=True)
            yield Examined(scene, tuple(Answered(case=c, predicted=a) for c, a in pairs))


def cases_of(scene: Scene) -> list[Case]:
    """Return the questions of a scene, the caption first."""
    rng = random.Random(scene.id)
    shown = tuple(thing for group in scene.groups for thing in _things(group))
    cases = [Case(scene=scene.id, kind=Kind.CAPTION, things=shown, answer=scene.brief.text)]
    for group in scene.groups:
        cases += _finds(scene, group, rng)
        described = rng.choice(_things(group))
        cases.append(
            Case(scene=scene.id, kind=Kind.DESCRIBE, things=(described,), answer=group.noun)
        )
    return [*cases, *_asks(scene, rng), *_shown(scene, rng)]


def _things(group: Group) -> list[Thing]:
    return [Thing(group.noun, box, group.colour or "") for box in group.boxes]


def _finds(scene: Scene, group: Group, rng: random.Random) -> Iterator[Case]:
    """Yield a phrase for one thing of the group, if there is one, and the group's own."""
    things = _things(group)
    if group.count == 1:
        phrase = rng.choice(group.expressions)
        yield Case(
            scene=scene.id,
            kind=_kind_of(phrase, group, scene),
            asked=phrase,
            things=tuple(things),
        )
        return
    yield Case(scene=scene.id, kind=Kind.FIND_ALL, asked=group.expressions[0], things=tuple(things))
    singled_out = [item for item in scene.referring if item.box in group.boxes]
    if singled_out:
        chosen = rng.choice(singled_out)
        thing = things[group.boxes.index(chosen.box)]
        yield Case(
            scene=scene.id,
            kind=Kind.FIND_DISTINGUISHING,
            asked=chosen.expression,
            things=(thing,),
        )


def _shown(scene: Scene, rng: random.Random) -> Iterator[Case]:
    """Yield a phrase of something in the picture, and one of something that is not."""
    for phrase in scene.absent[:1]:
        group = rng.choice(scene.groups)
        there = tuple(_things(group))
        yield Case(scene=scene.id, kind=Kind.SHOWN, asked=group.expressions[0], things=there)
        yield Case(scene=scene.id, kind=Kind.SHOWN, asked=phrase)


def _kind_of(phrase: str, group: Group, scene: Scene) -> Kind:
    if sum(other.noun == group.noun for other in scene.groups) > 1:
        return Kind.FIND_DISTINGUISHING
    _, _, behind_article = phrase.partition(" ")
    return Kind.FIND_PLAIN if behind_article == group.noun else Kind.FIND_DETAILED


def _asks(scene: Scene, rng: random.Random) -> Iterator[Case]:
    """Yield one question of each kind. Its answer is drawn first: "no" is as frequent as "yes"."""
    for kind, beginning in ASK.items():
        fitting = [item for item in scene.questions if item.question.startswith(beginning)]
        if fitting:
            answer = rng.choice(sorted({item.answer for item in fitting}))
            chosen = rng.choice([item for item in fitting if item.answer == answer])
            yield Case(scene=scene.id, kind=kind, asked=chosen.question, answer=answer)
