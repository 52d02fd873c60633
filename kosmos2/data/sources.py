"""Where rows come from: what a source is, live scenes, and the order of finite sources.

A source is a pure function of an index, so that any worker may compute any sample.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from kosmos2 import images
from kosmos2.data.collate import Row, pack
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.order import Epochs
from kosmos2.data.patches import BACKGROUND, patch_targets
from kosmos2.model.decoder import PADDING_ID
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


class Finite(Protocol):
    """Samples by number. What is drawn for a sample is drawn from `rng` alone."""

    def __len__(self) -> int: ...

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        """Return the packed row of a sample, or why there is none."""
        ...


class Shuffled:
    """Finite samples without end: each once an epoch, each epoch in an order of its own."""

    def __init__(self, finite: Finite, *, seed: int, most_positions: int) -> None:
        self.finite = finite
        self.order = Epochs(len(finite), seed)
        self.most_positions = most_positions

    def row(self, index: int) -> Row | Rejected:
        """Return the row of draw `index`; one that is too long for the model is rejected."""
        number, epoch = self.order.place(index)
        rng = np.random.Generator(np.random.PCG64([self.order.seed, number, epoch]))
        row = self.finite.sample(number, rng)
        if isinstance(row, Rejected):
            return row
        last = max(row.positions) - PADDING_ID
        if last > self.most_positions:
            detail = f"sample {number + 1}: {last} positions, the model has {self.most_positions}"
            return Rejected("too long", detail)
        return row


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
