"""What the model says of fixed held-out scenes, in one number a step and in pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kosmos2.api import Kosmos2, Settings, questions
from kosmos2.boxes import iou
from kosmos2.data.lessons import Teacher
from kosmos2.engine import Engine, Limits
from kosmos2.engine.build import from_network
from kosmos2.errors import TrainingError
from kosmos2.grounding.sheet import Tile, sheet
from kosmos2.model.network import Network
from kosmos2.scenes.maker import SceneMaker
from kosmos2.training import journal
from kosmos2.training.recipe import RunRecipe

BATCH = 32
"""Pictures and phrases at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Find-a-phrase on held-out scenes; one line of `evaluation.jsonl`."""

    step: int
    find_accuracy: float
    """Share of phrases of one box whose first found box has IoU >= 0.5 with it."""
    mean_iou: float
    phrases: int


class Examiner:
    """Asks the network, at any step, the same questions about the same scenes."""

    def __init__(self, maker: SceneMaker, run: RunRecipe, folder: Path) -> None:
        self.scenes = [maker.scene(index) for index in range(run.evaluation_scenes)]
        if not any(group.count == 1 for scene in self.scenes for group in scene.groups):
            raise TrainingError(
                f"run.evaluation_scenes ({run.evaluation_scenes}) is too small: "
                "no scene shows a thing that is alone of its kind, so there is nothing to find"
            )
        self.num_drawn = run.preview_scenes
        self.folder = folder

    def examine(self, network: Network, teacher: Teacher, step: int) -> Evaluation:
        """Return and log the accuracy, and save the drawn preview of this step."""
        model = Kosmos2(
            Engine(from_network(network), teacher.vocabulary, Limits(max_rows=BATCH)),
            teacher.tokenizer,
            "in training",
            Settings(batch_size=BATCH, max_new_tokens=96),
        )
        evaluation = self._find(model, step)
        journal.append(self.folder / journal.EVALUATIONS, evaluation)
        self._preview(model).save(self.folder / f"preview-{step:06d}.png")
        return evaluation

    def _find(self, model: Kosmos2, step: int) -> Evaluation:
        views = model.look([Image.fromarray(scene.image) for scene in self.scenes])
        asked, truths = [], []
        for view, scene in zip(views, self.scenes, strict=True):
            for group in scene.groups:
                if group.count == 1:
                    question = questions.find(group.expressions[0], model.tokenizer.vocabulary)
                    asked.append(((view,), question))
                    truths.append(group.boxes[0])
        found = model.answer(asked)
        overlaps = [
            iou(answer.boxes[0], truth) if answer.boxes else 0.0
            for answer, truth in zip(found, truths, strict=True)
        ]
        return Evaluation(
            step=step,
            find_accuracy=sum(overlap >= 0.5 for overlap in overlaps) / len(overlaps),
            mean_iou=sum(overlaps) / len(overlaps),
            phrases=len(overlaps),
        )

    def _preview(self, model: Kosmos2) -> Image.Image:
        scenes = self.scenes[: self.num_drawn]
        pictures = [Image.fromarray(scene.image) for scene in scenes]
        tiles = [
            Tile(
                image=picture,
                grounded=caption.grounded,
                true=tuple(box for group in scene.groups for box in group.boxes),
            )
            for picture, scene, caption in zip(
                pictures, scenes, model.caption(pictures), strict=True
            )
        ]
        return sheet(tiles)
