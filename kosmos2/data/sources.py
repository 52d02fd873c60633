"""Where rows come from: what a source is, live scenes, and the order of finite sources.

A source is a pure function of an index, so that any worker may compute any sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from kosmos2 import images, tasks
from kosmos2.data.collate import Pictures, Row, pack_all
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.order import Epochs
from kosmos2.data.patches import BACKGROUND, PatchTargets, patch_targets
from kosmos2.data.recipe import SourceRecipe
from kosmos2.grounding.spans import GroundedText
from kosmos2.model.decoder import PADDING_ID
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.scene import Scene
from kosmos2.tasks import Demonstration, Prompt, Task, boxes_only
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import ImageSlot

_EXAMPLES = 1 << 40
"""Scenes from this number on are examples, so that none is a lesson too."""


class Source(Protocol):
    """Rows by index; the same index is the same row, on any machine."""

    def row(self, index: int) -> Row | Rejected:
        """Return the packed row of sample `index` (any index >= 0), or why there is none."""
        ...


class SceneSource:
    """Scenes made on the fly; several lessons a picture, drawn with the scene's own number."""

    def __init__(
        self, maker: SceneMaker, teacher: Teacher, recipe: SourceRecipe, *, patches_per_side: int
    ) -> None:
        self.maker = maker
        self.teacher = teacher
        self.recipe = recipe
        self.patches_per_side = patches_per_side
        self.numbers = {noun: n for n, noun in enumerate(maker.recipe.nouns, BACKGROUND + 1)}

    def row(self, index: int) -> Row:
        """Return scene `index` with its caption first, its phrases, and a draw of the rest."""
        scenes, prefix = [self.maker.scene(index)], self.teacher.prefix()
        rng = np.random.Generator(np.random.PCG64([self.maker.recipe.seed, index, 1]))
        lessons = self._lessons(scenes[0], rng) if self.recipe.max_lessons else []
        if _is_drawn(self.recipe.behind_example, rng):
            scenes.insert(0, self.maker.scene(_EXAMPLES + index))
            prefix = self.teacher.prefix_behind(_example(scenes[0], rng))
        return pack_all(self._pictures(scenes), prefix, lessons)

    def _pictures(self, scenes: Sequence[Scene]) -> Pictures:
        patches = [self._patches(scene) for scene in scenes]
        return Pictures(
            torch.stack([images.to_tensor(scene.image) for scene in scenes]),
            torch.stack([each.noun_P for each in patches]),
            torch.stack([each.sides_P4 for each in patches]),
        )

    def _patches(self, scene: Scene) -> PatchTargets:
        things = [(self.numbers[group.noun], box) for group in scene.groups for box in group.boxes]
        grid = self.teacher.tokenizer.grid
        return patch_targets(things, side=self.patches_per_side, grid=grid)

    def _lessons(self, scene: Scene, rng: np.random.Generator) -> list[Lesson]:
        most, teacher = self.recipe.max_lessons, self.teacher
        lessons = [_caption(scene, teacher, rng), *_finds(scene, teacher, rng)]
        if _is_drawn(self.recipe.absent, rng):
            lessons += [teacher.absent(phrase) for phrase in scene.absent[:1]]
        if _is_drawn(self.recipe.in_caption, rng):
            caption = scene.detailed if rng.random() < 0.5 else scene.brief
            phrase = caption.phrases[int(rng.integers(len(caption.phrases)))]
            lessons.append(teacher.find_in_caption(caption.text, phrase))
        others = _others(scene, teacher)
        free = max(0, most - len(lessons))
        lessons.extend(others[int(number)] for number in rng.permutation(len(others))[:free])
        return lessons[:most]


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


def _is_drawn(share: float, rng: np.random.Generator) -> bool:
    """Nothing is drawn for a share of 0, so that what follows stays what it was."""
    return share > 0 and rng.random() < share


def _example(scene: Scene, rng: np.random.Generator) -> Demonstration:
    """Return a solved caption, phrase or question."""
    kind = rng.random()
    if kind < 0.4:
        begun = Prompt(task=Task.MARKUP, segments=(ImageSlot(), Tag.GROUNDING))
        return Demonstration(prompt=begun, answer=scene.brief)
    if kind < 0.8 or not scene.questions:
        group = scene.groups[int(rng.integers(len(scene.groups)))]
        expression = group.expressions[int(rng.integers(len(group.expressions)))]
        return Demonstration(prompt=tasks.find(expression), answer=boxes_only(group.boxes))
    asked = scene.questions[int(rng.integers(len(scene.questions)))]
    return Demonstration(prompt=tasks.ask(asked.question), answer=GroundedText(text=asked.answer))


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
