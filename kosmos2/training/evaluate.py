"""What the model says of fixed held-out pictures, in one number a step and in pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from kosmos2.api import Kosmos2, Settings, questions
from kosmos2.boxes import Box, iou
from kosmos2.data.album import Album
from kosmos2.data.captions import picture_of
from kosmos2.data.ledger import Ledger, Rejected
from kosmos2.data.lessons import Teacher
from kosmos2.data.lines import lines_of
from kosmos2.data.own import OwnRecord, rows_of, usable
from kosmos2.engine import Engine, Limits
from kosmos2.engine.build import from_network
from kosmos2.errors import TrainingError
from kosmos2.grounding.sheet import Tile, sheet
from kosmos2.model.network import Network
from kosmos2.records.store import root_of
from kosmos2.scenes.maker import SceneMaker
from kosmos2.training import journal
from kosmos2.training.recipe import RunRecipe

BATCH = 32
"""Pictures and phrases at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Find-a-phrase on held-out pictures; one line of `evaluation.jsonl`."""

    step: int
    find_accuracy: float
    """Share of phrases whose first found box has IoU >= 0.5 with a true one."""
    mean_iou: float
    phrases: int


@dataclass(frozen=True, slots=True)
class Exam:
    """A picture, the phrases to be found in it, and all boxes that a caption should have."""

    image: Image.Image
    phrases: tuple[tuple[str, tuple[Box, ...]], ...]
    true: tuple[Box, ...]


def scene_exams(maker: SceneMaker, run: RunRecipe) -> list[Exam]:
    """Return what is asked of scenes: the phrases of things that are alone of their kind."""
    exams = []
    for scene in (maker.scene(index) for index in range(run.evaluation_scenes)):
        phrases = [(g.expressions[0], g.boxes) for g in scene.groups if g.count == 1]
        true = tuple(box for group in scene.groups for box in group.boxes)
        exams.append(Exam(Image.fromarray(scene.image), tuple(phrases), true))
    if not any(exam.phrases for exam in exams):
        raise TrainingError(
            f"run.evaluation_scenes ({run.evaluation_scenes}) is too small: "
            "no scene shows a thing that is alone of its kind, so there is nothing to find"
        )
    return exams


def record_exams(run: RunRecipe, cache: Path) -> list[Exam]:
    """Return what is asked of the first usable records of a store: all their phrases."""
    path, ledger = Path(run.evaluation_records), Ledger()
    album = Album(root_of(path), cache)
    found = usable(rows_of(lines_of(path, cache)), album, ledger)
    exams = [_exam(record, album) for record in islice(found, run.evaluation_scenes)]
    if not any(exam.phrases for exam in exams):
        why = "; ".join(f"{count} times {reason}" for (_, reason), count in ledger.rejected.items())
        raise TrainingError(
            f"run.evaluation_records: the first {len(exams)} records of {path} that can be used "
            f"have no phrase with a box, so there is nothing to find{f' ({why})' if why else ''}"
        )
    return exams


def _exam(record: OwnRecord, album: Album) -> Exam:
    image = picture_of(record.fields, record.name, album)
    if isinstance(image, Rejected):  # it was there a moment ago
        raise TrainingError(f"run.evaluation_records: {image.detail}")
    text = record.text
    phrases = tuple((text.phrase_text(phrase), phrase.boxes) for phrase in text.phrases)
    return Exam(image, phrases, tuple(box for phrase in text.phrases for box in phrase.boxes))


class Examiner:
    """Asks the network, at any step, the same questions about the same pictures."""

    def __init__(self, exams: Sequence[Exam], run: RunRecipe, folder: Path) -> None:
        self.exams = exams
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
        views = model.look([exam.image for exam in self.exams])
        asked, truths = [], []
        for view, exam in zip(views, self.exams, strict=True):
            for phrase, boxes in exam.phrases:
                asked.append(((view,), questions.find(phrase, model.tokenizer.vocabulary)))
                truths.append(boxes)
        found = model.answer(asked)
        overlaps = [
            max(iou(answer.boxes[0], true) for true in boxes) if answer.boxes else 0.0
            for answer, boxes in zip(found, truths, strict=True)
        ]
        return Evaluation(
            step=step,
            find_accuracy=sum(overlap >= 0.5 for overlap in overlaps) / len(overlaps),
            mean_iou=sum(overlaps) / len(overlaps),
            phrases=len(overlaps),
        )

    def _preview(self, model: Kosmos2) -> Image.Image:
        exams = self.exams[: self.num_drawn]
        captions = model.caption([exam.image for exam in exams])
        tiles = [
            Tile(image=exam.image, grounded=caption.grounded, true=exam.true)
            for exam, caption in zip(exams, captions, strict=True)
        ]
        return sheet(tiles)
