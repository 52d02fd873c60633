"""What `kosmos2 finetune` decides: a whole recipe from where the records are and how many.

recipes/train/finetune.toml is the same for 50 records, to be read and changed; a test holds the
two equal.
"""

from __future__ import annotations

from pathlib import Path

from kosmos2.data.recipe import SourceRecipe
from kosmos2.training.recipe import (
    CheckpointsRecipe,
    LoraRecipe,
    LossRecipe,
    OptimizerRecipe,
    RunRecipe,
    TrainRecipe,
)

LEAST, MOST = 10, 10_000
"""Records that this is made for; more are trained with `kosmos2 train`."""
BATCH = 16
EPOCHS = 60
"""How often each record is seen, where that is neither too few steps nor too many."""
LEAST_STEPS, MOST_STEPS = 200, 4000
TARGETS = ("decoder.blocks.*", "vision.blocks.*")


def steps_for(records: int) -> int:
    """Return how many steps so many records are learnt in."""
    return min(MOST_STEPS, max(LEAST_STEPS, records * EPOCHS // BATCH))


def recipe_for(
    records: Path, images: Path, model: str, *, steps: int, flip: float = 0.0
) -> TrainRecipe:
    """Return the recipe that fine-tunes a model on a store, whose pictures start from `images`.

    `flip` is how often a picture is mirrored, 0 to 1.
    """
    source = SourceRecipe(kind="records", path=str(records), images=str(images), flip=flip)
    return TrainRecipe(
        seed=1,
        start_from=model,
        sources=(source,),
        loss=LossRecipe(location_spread=0.7),
        optimizer=OptimizerRecipe(
            steps=steps,
            learning_rate=1e-3,
            warmup_steps=steps // 10,
            weight_decay=0.0,
            clip=1.0,
            batch_size=BATCH,
        ),
        lora=LoraRecipe(rank=16, alpha=16.0, targets=TARGETS),
        checkpoints=CheckpointsRecipe(keep=1),
        run=RunRecipe(
            workers=0, max_tokens=-1, log_every=20, checkpoint_every=100, evaluate_every=100_000
        ),
    )
