"""A run that is small enough for a test: drawn shapes, a tiny network, three steps."""

import dataclasses

from scene_shapes import NOUNS

from kosmos2.model import ModelConfig, TextConfig, VisionConfig
from kosmos2.scenes.sprites import TRAINING_STYLES
from kosmos2.training.recipe import (
    LossRecipe,
    OptimizerRecipe,
    RunRecipe,
    ScenesRecipe,
    SourceRecipe,
    TrainRecipe,
)

RECIPE = TrainRecipe(
    seed=5,
    num_pieces=300,
    bins=8,
    model=ModelConfig(
        text=TextConfig(width=16, feedforward_width=32, num_layers=1, num_heads=2, dropout=0.1),
        vision=VisionConfig(
            width=16, feedforward_width=32, num_layers=1, num_heads=2, image_size=32, patch_size=8
        ),
        num_latents=4,
    ),
    scenes=ScenesRecipe(nouns=NOUNS, styles=TRAINING_STYLES[:2]),
    sources=(
        SourceRecipe(kind="scenes", weight=0.5),
        SourceRecipe(kind="scenes", weight=0.5, max_groups=1, max_instances=1, max_lessons=2),
    ),
    loss=LossRecipe(location_spread=0.5, patch_weight=1.0),
    optimizer=OptimizerRecipe(steps=3, learning_rate=3e-3, warmup_steps=1, batch_size=2),
    run=RunRecipe(
        precision="bf16",
        workers=0,
        log_every=1,
        checkpoint_every=2,
        evaluate_every=2,
        evaluation_scenes=2,
        preview_scenes=1,
    ),
)


def changed(recipe: TrainRecipe, table: str, **fields: object) -> TrainRecipe:
    """Return the recipe with fields of one of its tables changed."""
    old = getattr(recipe, table)
    return dataclasses.replace(recipe, **{table: dataclasses.replace(old, **fields)})
