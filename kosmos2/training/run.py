"""A whole run from a recipe to a model folder.

OUT/recipe.json        the recipe, as it ran last
OUT/tokenizer.json     the vocabulary
OUT/checkpoint.pt      the state to resume from
OUT/log.jsonl          losses and speed;  OUT/evaluation.jsonl  accuracy;  OUT/preview-*.png
OUT/curve.svg          both drawn
OUT/model/             the model as of the last evaluation, for `--model`
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from kosmos2.config import as_tree
from kosmos2.data.lessons import Teacher
from kosmos2.errors import TrainingError
from kosmos2.scenes.gallery import Sprites
from kosmos2.training import build, checkpoint, journal
from kosmos2.training.curve import write_curve
from kosmos2.training.evaluate import Evaluation, Examiner
from kosmos2.training.meter import Progress
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.trainer import Trainer
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface

RECIPE_FILE = "recipe.json"
STORED_DTYPE = torch.bfloat16


def run(
    recipe: TrainRecipe,
    out: Path,
    sprites: Sprites,
    device: torch.device,
    *,
    report: Callable[[Progress | Evaluation], None],
) -> None:
    """Run a new training in the folder `out`."""
    if (out / checkpoint.FILE).exists():
        raise TrainingError(f"{out} holds a run already. Pass --resume, or another --out.")
    before = Path(recipe.start_from) if recipe.start_from else None
    tokenizer = _tokenizer_of(before, recipe) if before else build.tokenizer_for(recipe, sprites)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(out)
    _save_recipe(recipe, out)

    trainer = _trainer(recipe, out, tokenizer, sprites, device)
    if before:
        trainer.start_from(before)
    torch.manual_seed(recipe.seed)
    _train(trainer, sprites, report)


def resume(
    recipe: TrainRecipe,
    out: Path,
    sprites: Sprites,
    device: torch.device,
    *,
    report: Callable[[Progress | Evaluation], None],
) -> None:
    """Go on with the run in the folder `out`, exactly as if it had not stopped."""
    checkpoint.check_present(out)
    trainer = _trainer(recipe, out, Tokenizer.from_folder(out), sprites, device)
    trainer.resume()
    _save_recipe(recipe, out)
    _train(trainer, sprites, report)


def _tokenizer_of(before: Path, recipe: TrainRecipe) -> Tokenizer:
    """Return the vocabulary of the run whose weights are the first ones."""
    checkpoint.check_present(before)
    tokenizer = Tokenizer.from_folder(before)
    if tokenizer.grid.bins != recipe.bins:
        raise TrainingError(
            f"start_from: the run in {before} has {tokenizer.grid.bins} bins, "
            f"this recipe {recipe.bins}"
        )
    return tokenizer


def _save_recipe(recipe: TrainRecipe, out: Path) -> None:
    (out / RECIPE_FILE).write_text(json.dumps(as_tree(recipe), indent=1), encoding="utf-8")


def _trainer(
    recipe: TrainRecipe, out: Path, tokenizer: Tokenizer, sprites: Sprites, device: torch.device
) -> Trainer:
    torch.manual_seed(recipe.seed)  # the patch head's first weights are drawn from it
    network = build.network_for(recipe, tokenizer).to(device)
    teacher = Teacher(tokenizer, recipe.model.num_latents)
    return Trainer(recipe, out, network, teacher, build.sources_for(recipe, teacher, sprites))


def _train(
    trainer: Trainer, sprites: Sprites, report: Callable[[Progress | Evaluation], None]
) -> None:
    recipe, tokenizer = trainer.recipe, trainer.teacher.tokenizer
    maker = build.scene_maker(recipe, recipe.sources[0], sprites, split="iid")
    examiner = Examiner(maker, recipe.run, trainer.folder)
    for name in (journal.LOG, journal.EVALUATIONS):
        journal.forget_after(trainer.folder / name, trainer.step)

    def evaluate(step: int) -> None:
        report(examiner.examine(trainer.network, trainer.teacher, step))
        write_curve(trainer.folder)
        huggingface.save(trainer.network, tokenizer, trainer.folder / "model", dtype=STORED_DTYPE)

    trainer.train(report, evaluate)
