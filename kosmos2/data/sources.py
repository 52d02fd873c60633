"""Where pictures and their lessons come from: live scenes, or grounded records with image files.

A source is a pure function of an index, so that any worker may compute any sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from kosmos2 import images
from kosmos2.data.collate import Row, pack
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.patches import BACKGROUND, patch_targets, unknown
from kosmos2.errors import RecordError
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.model.config import VisionConfig
from kosmos2.records.record import GroundedRecord
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.scene import Scene


class Source(Protocol):
    """Rows by index; the same index is the same row, on any machine."""

    def row(self, index: int) -> Row | Rejected:
        """Return the packed row of sample `index` (any index >= 0), or why there is none."""
        ...


class SceneSource:
    """Scenes made on the fly; several lessons a picture, drawn with the scene's own number."""

    def __init__(
        self, maker: SceneMaker, teacher: Teacher, *, max_lessons: int, patches_per_side: int
    ) -> None:
        self.maker = maker
        self.teacher = teacher
        self.max_lessons = max_lessons
        self.patches_per_side = patches_per_side
        self.numbers = {noun: n for n, noun in enumerate(maker.recipe.nouns, BACKGROUND + 1)}

    def row(self, index: int) -> Row:
        """Return scene `index` with its caption first, its phrases, and a draw of the rest."""
        scene = self.maker.scene(index)
        lessons = self._lessons(scene, index) if self.max_lessons else []
        things = [(self.numbers[group.noun], box) for group in scene.groups for box in group.boxes]
        grid = self.teacher.tokenizer.grid
        patches = patch_targets(things, side=self.patches_per_side, grid=grid)
        return pack(images.to_tensor(scene.image), patches, self.teacher.prefix(), lessons)

    def _lessons(self, scene: Scene, index: int) -> list[Lesson]:
        rng = np.random.Generator(np.random.PCG64([self.maker.recipe.seed, index, 1]))
        lessons = [_caption(scene, self.teacher, rng), *_finds(scene, self.teacher, rng)]
        others = _others(scene, self.teacher)
        free = max(0, self.max_lessons - len(lessons))
        lessons.extend(others[int(number)] for number in rng.permutation(len(others))[:free])
        return lessons[: self.max_lessons]


class RecordSource:
    """Grounded records whose pictures are files below one folder."""

    def __init__(
        self,
        records: Sequence[GroundedRecord],
        folder: Path,
        teacher: Teacher,
        config: VisionConfig,
    ) -> None:
        if not records:
            raise RecordError("no records to train on")
        for record in records:
            _check_trainable(record)
        self.records = records
        self.folder = folder
        self.teacher = teacher
        self.config = config

    def row(self, index: int) -> Row:
        """Return record `index` (they repeat): its caption, its expressions found and described."""
        record = self.records[index % len(self.records)]
        assert record.image is not None
        image = images.load(self.folder / record.image)
        square = images.to_square(image, self.config.image_size)
        grounded = roots(record.grounded("ref_exps"))
        if not grounded.phrases:  # as published: without boxes no <grounding> either
            lessons = [self.teacher.plain_caption(grounded.text)]
        else:
            lessons = [self.teacher.grounded_caption(grounded)]
        for phrase in grounded.phrases:
            lessons.append(self.teacher.find(grounded.phrase_text(phrase), phrase.boxes))
            lessons.append(self.teacher.describe(phrase.boxes[0], grounded.phrase_text(phrase)))
        patches = unknown(self.config.patches_per_side)
        return pack(images.to_tensor(np.asarray(square)), patches, self.teacher.prefix(), lessons)


def roots(grounded: GroundedText) -> GroundedText:
    """Return the caption with only the phrases that lie in no other phrase (B.3 of the spec)."""
    phrases = grounded.phrases

    def inside_another(phrase: Phrase) -> bool:
        return any(
            other.start <= phrase.start
            and phrase.end <= other.end
            and (other.start, other.end) != (phrase.start, phrase.end)
            for other in phrases
        )

    kept = tuple(phrase for phrase in phrases if not inside_another(phrase))
    return GroundedText(text=grounded.text, phrases=kept)


def _check_trainable(record: GroundedRecord) -> None:
    """Refuse at the start of a run what would end it in the middle."""
    where = f"record {record.id}"
    if record.image is None:
        raise RecordError(f"{where}: no image path, so it cannot be trained on")
    grounded = roots(record.grounded("ref_exps"))
    for before, phrase in pairwise(grounded.phrases):
        if phrase.start < before.end:
            raise RecordError(
                f"{where}: the expressions {grounded.phrase_text(before)!r} and "
                f"{grounded.phrase_text(phrase)!r} overlap, and markup cannot say that; "
                "leave one of them out"
            )


def _caption(scene: Scene, teacher: Teacher, rng: np.random.Generator) -> Lesson:
    kind = rng.random()
    if kind < 0.7:
        return teacher.grounded_caption(scene.brief)
    if kind < 0.9:
        return teacher.detailed_caption(scene.detailed)
    return teacher.plain_caption(scene.brief.text)


def _finds(scene: Scene, teacher: Teacher, rng: np.random.Generator) -> list[Lesson]:
    """Return one phrase to find for every group of the scene, in any wording."""
    return [
        teacher.find(group.expressions[int(rng.integers(len(group.expressions)))], group.boxes)
        for group in scene.groups
    ]


def _others(scene: Scene, teacher: Teacher) -> list[Lesson]:
    lessons = []
    for referring in scene.referring:
        lessons.append(teacher.find(referring.expression, (referring.box,)))
        lessons.append(teacher.describe(referring.box, referring.expression))
    lessons.extend(teacher.ask(each.question, each.answer) for each in scene.questions)
    return lessons
