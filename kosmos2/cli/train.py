"""`train`: a recipe in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import bar, note, say

if TYPE_CHECKING:
    from kosmos2.scenes import Sprites
    from kosmos2.training.evaluate import Evaluation
    from kosmos2.training.meter import Progress
    from kosmos2.training.recipe import TrainRecipe


def train(
    recipe_path: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML of recipes/train.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the run.", show_default=False)
    ],
    go_on: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Folder of the scenes' artwork."),
    ] = None,
) -> None:
    """Train a model; a stopped run goes on with --resume as if it had not stopped.

    Example:  kosmos2 train recipes/train/embedded.toml --out runs/embedded

    Several GPUs:  torchrun --nproc-per-node 8 -m kosmos2 train RECIPE --out DIR
    """
    import os

    from kosmos2 import config
    from kosmos2.api.loading import choose_device
    from kosmos2.training import run
    from kosmos2.training.recipe import TrainRecipe

    recipe = config.load(TrainRecipe, recipe_path, overrides or [])
    sprites = artwork(recipe, cache)
    start = run.resume if go_on else run.run
    if os.environ.get("RANK", "0") != "0":  # torchrun's first process speaks for all
        start(recipe, out, sprites, choose_device(device), report=lambda news: None)
        return
    with bar("training", recipe.optimizer.steps) as it:

        def report(news: Progress | Evaluation) -> None:
            note(line_of(news))
            it.reach(news.step, recipe.optimizer.steps, "training")

        start(recipe, out, sprites, choose_device(device), report=report)
    say(f"trained: {out / 'model'}")


def artwork(recipe: TrainRecipe, cache: Path | None) -> Sprites:
    """Return the artwork of the recipe's scenes; a recipe without scenes needs none."""
    from kosmos2.scenes import Sprites, default_cache

    if not recipe.crowds:
        return Sprites({})
    return Sprites.load(
        cache or default_cache(), styles=recipe.scenes.styles, nouns=recipe.scenes.nouns
    )


def line_of(news: Progress | Evaluation) -> str:
    """Return what is told of a step, in one line."""
    from kosmos2.training.evaluate import Evaluation

    if isinstance(news, Evaluation):
        return (
            f"step {news.step}: find {news.find_accuracy:.1%} at IoU 0.5, mean IoU "
            f"{news.mean_iou:.3f} ({news.phrases} held-out phrases)"
        )
    return (
        f"step {news.step}: text {news.text_loss:.3f}  location {news.location_loss:.3f}  "
        f"patch {news.patch_loss:.3f}  {news.pictures_per_second:.1f} pictures/s  "
        f"{news.tokens_per_second:.0f} tokens/s  waiting {news.waiting_share:.0%}"
        f"{'' if news.mfu is None else f'  MFU {news.mfu:.0%}'}"
    )
