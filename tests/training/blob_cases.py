"""A run of white squares on black whose phrase is a box: two seconds of training, no artwork."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import run_cases
import torch

from kosmos2.data.collate import Row, pack
from kosmos2.data.lessons import Teacher
from kosmos2.data.patches import patch_targets
from kosmos2.data.sources import Source
from kosmos2.model import ModelConfig
from kosmos2.training import build
from kosmos2.training.ranks import ALONE, Ranks
from kosmos2.training.recipe import (
    LossRecipe,
    OptimizerRecipe,
    RunRecipe,
    ScenesRecipe,
    SourceRecipe,
    TrainRecipe,
)
from kosmos2.training.trainer import Trainer
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.tokenizer import Tokenizer

RECIPE = dataclasses.replace(
    run_cases.RECIPE,
    model=ModelConfig(
        text=dataclasses.replace(run_cases.RECIPE.model.text, num_layers=2),
        vision=dataclasses.replace(run_cases.RECIPE.model.vision, image_size=16, patch_size=4),
        num_latents=4,
    ),
    scenes=ScenesRecipe(nouns=("dog",)),
    sources=(SourceRecipe(kind="scenes"),),
    loss=LossRecipe(location_spread=0.5),
    optimizer=OptimizerRecipe(
        steps=12, learning_rate=3e-3, warmup_steps=2, batch_size=4, accumulation=2
    ),
    run=RunRecipe(precision="fp32", workers=0, log_every=1, checkpoint_every=5, evaluate_every=100),
)
NO_DROPOUT = run_cases.changed(
    RECIPE,
    "model",
    text=dataclasses.replace(RECIPE.model.text, dropout=0.0, attention_dropout=0.0),
)


class Blobs:
    """A white square at a cell of the grid, and the phrase whose box it is."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def row(self, index: int) -> Row:
        cell = index * 7 % 36
        y, x = divmod(cell, 6)
        pixels_CYX = torch.zeros(3, 16, 16, dtype=torch.uint8)
        pixels_CYX[:, 2 * y : 2 * y + 6, 2 * x : 2 * x + 6] = 255
        box = LocationGrid(8).decode(y * 8 + x, (y + 2) * 8 + x + 2)
        lessons = [self.teacher.find("a dog", [box]), self.teacher.plain_caption("a dog")]
        if index % 3 == 0:  # so that rows differ in length
            lessons.append(self.teacher.plain_caption("two happy dogs and a sleepy cat"))
        patches = patch_targets([(1, box)], side=4, grid=LocationGrid(8))
        return pack(pixels_CYX, patches, self.teacher.prefix(), lessons)


def trainer(
    recipe: TrainRecipe, folder: Path, tokenizer: Tokenizer, ranks: Ranks = ALONE
) -> Trainer:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    teacher = Teacher(tokenizer, recipe.model.num_latents)
    sources: list[Source] = [Blobs(teacher)]
    network = build.network_for(recipe, tokenizer)
    return Trainer(recipe, folder, network, teacher, sources, ranks=ranks)
