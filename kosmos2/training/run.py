"""A whole run from a recipe to a model folder.

OUT/recipe.json        the recipe, as it ran last
OUT/tokenizer.json     the vocabulary
OUT/checkpoints/       the states to resume from
OUT/log.jsonl          losses and speed
OUT/evaluation.jsonl   accuracy;  OUT/preview-*.png  captions; where there is something to ask
OUT/curve.svg          both drawn;  OUT/tensorboard/  the same for TensorBoard, where installed
OUT/samples-rank*.json how many samples were used or left out, and why
OUT/model/             the model as of the last evaluation, for `--model`
OUT/lora.safetensors   with [lora]: the low-rank layers alone, as of then
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from kosmos2.config import as_tree
from kosmos2.data.lessons import Teacher
from kosmos2.data.opening import data_cache
from kosmos2.errors import TrainingError
from kosmos2.model.network import Network
from kosmos2.scenes.gallery import Sprites
from kosmos2.training import build, checkpoint, journal, start
from kosmos2.training.curve import write_curve
from kosmos2.training.evaluate import Evaluation, Examiner, record_exams, scene_exams
from kosmos2.training.meter import Progress
from kosmos2.training.ranks import Ranks, joined
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.start import Start
from kosmos2.training.tracking import Board
from kosmos2.training.trainer import Trainer
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface

Report = Callable[[Progress | Evaluation], None]

RECIPE_FILE = "recipe.json"
STORED_DTYPE = torch.bfloat16
RANK_SEED = 7_919
"""Times a rank's number, added to the seed of its dropout."""


def run(
    recipe: TrainRecipe, out: Path, sprites: Sprites, device: torch.device, *, report: Report
) -> None:
    """Run a new training in the folder `out`; every process that torchrun started calls it."""
    with joined(recipe.parallel.kind, device) as (ranks, own):
        if checkpoint.exists(out):
            raise TrainingError(f"{out} holds a run already. Pass --resume, or another --out.")
        begun = start.begin(recipe, sprites)
        if ranks.is_first:
            out.mkdir(parents=True, exist_ok=True)
            begun.tokenizer.save(out)
            _save_recipe(begun.recipe, out)
        ranks.wait()
        trainer = _trainer(begun, out, sprites, own, ranks)
        torch.manual_seed(recipe.seed + RANK_SEED * ranks.rank)
        _train(trainer, sprites, report)


def resume(
    recipe: TrainRecipe, out: Path, sprites: Sprites, device: torch.device, *, report: Report
) -> None:
    """Go on with the run in the folder `out`, exactly as if it had not stopped."""
    checkpoint.check_present(out)
    with joined(recipe.parallel.kind, device) as (ranks, own):
        recipe = start.settled(recipe, _stored_recipe(out))
        tokenizer = Tokenizer.from_folder(out)
        network = build.network_for(recipe, tokenizer)
        begun = Start(recipe=recipe, network=network, tokenizer=tokenizer)
        trainer = _trainer(begun, out, sprites, own, ranks)
        torch.manual_seed(recipe.seed + RANK_SEED * ranks.rank)
        trainer.resume()
        if ranks.is_first:
            _save_recipe(recipe, out)
        _train(trainer, sprites, report)


def _save_recipe(recipe: TrainRecipe, out: Path) -> None:
    (out / RECIPE_FILE).write_text(json.dumps(as_tree(recipe), indent=1), encoding="utf-8")


def _stored_recipe(out: Path) -> dict[str, object]:
    try:
        stored: dict[str, object] = json.loads((out / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored


def _trainer(
    begun: Start, out: Path, sprites: Sprites, device: torch.device, ranks: Ranks
) -> Trainer:
    recipe = begun.recipe
    teacher = Teacher(begun.tokenizer, recipe.model.num_latents)
    return Trainer(
        recipe,
        out,
        begun.network.to(device),
        teacher,
        build.sources_for(recipe, teacher, sprites),
        first=begun.first,
        ranks=ranks,
    )


def _train(trainer: Trainer, sprites: Sprites, report: Report) -> None:
    recipe, folder, tokenizer = trainer.recipe, trainer.folder, trainer.teacher.tokenizer
    examiner = _examiner(recipe, sprites, folder)
    if not trainer.ranks.is_first:
        trainer.train(lambda progress: None, lambda step, network: None)
        return
    for name in (journal.LOG, journal.EVALUATIONS):
        journal.forget_after(folder / name, trainer.step)
    board = Board(folder, trainer.step)

    def tell(progress: Progress) -> None:
        board.numbers("train", progress)
        report(progress)

    def evaluate(step: int, network: Network) -> None:
        if examiner is not None:
            asked = network.to(trainer.device)
            evaluation = examiner.examine(asked, trainer.teacher, step)
            board.numbers("evaluation", evaluation)
            board.picture(folder / f"preview-{step:06d}.png", step)
            report(evaluation)
        write_curve(folder)
        huggingface.save(network, tokenizer, folder / "model", dtype=STORED_DTYPE)

    try:
        trainer.train(tell, evaluate)
    finally:
        board.close()


def _examiner(recipe: TrainRecipe, sprites: Sprites, folder: Path) -> Examiner | None:
    """Return who asks the questions; None where a recipe names nothing to ask about."""
    run = recipe.run
    if run.evaluation_records:
        return Examiner(record_exams(run, data_cache()), run, folder)
    if recipe.crowds:
        maker = build.scene_maker(recipe, recipe.crowds[0], sprites, split="iid")
        return Examiner(scene_exams(maker, run), run, folder)
    return None
