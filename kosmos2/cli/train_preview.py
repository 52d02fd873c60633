"""`train preview`: the first batches of a recipe as a page, before any of them is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import Commands, say
from kosmos2.cli.train import artwork, train
from kosmos2.cli.train_export import export

if TYPE_CHECKING:
    from kosmos2.data.collate import Batch
    from kosmos2.data.ledger import Ledger
    from kosmos2.scenes.gallery import Sprites
    from kosmos2.training.recipe import TrainRecipe
    from kosmos2.vocab.tokenizer import Tokenizer

RUN = "run"


class _Training(Commands):
    """`train RECIPE` trains; only the name of another command says otherwise."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, list(args) if named else [RUN, *args])


training = typer.Typer(
    cls=_Training,
    help="Train a model by a recipe: `train RECIPE`. `train preview RECIPE` shows what it learns.",
)
training.command(RUN, no_args_is_help=True)(train)
training.command("export", no_args_is_help=True)(export)


@training.command(no_args_is_help=True)
def preview(
    recipe_path: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML of recipes/train.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The page.", show_default=False)
    ],
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to make.")] = 2,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Samples to draw.")] = 24,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", help="Folder of the scenes' artwork."),
    ] = None,
) -> None:
    """Show what a recipe would teach: pictures with boxes, tokens with mask and weight, padding.

    Example:  kosmos2 train preview recipes/train/embedded.toml --out preview.html
    """
    from kosmos2 import config
    from kosmos2.data import preview as pages
    from kosmos2.data.ledger import Ledger
    from kosmos2.training.recipe import TrainRecipe

    recipe = config.load(TrainRecipe, recipe_path, overrides or [])
    sprites = artwork(recipe, cache)
    recipe, tokenizer = _vocabulary(recipe, sprites)
    ledger = Ledger()
    shown = pages.Preview(
        title=f"{recipe_path.name}: what is learnt",
        steps=_batches(recipe, tokenizer, sprites, steps, ledger),
        sources=[f"{n}: {each.kind} {each.path}" for n, each in enumerate(recipe.sources)],
        ledger=ledger,
        location_weight=recipe.loss.location_weight,
    )
    html = pages.page(shown, tokenizer, recipe.model.num_latents, most_samples=samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8")
    batches = [batch for step in shown.steps for batch in step]
    counts = f"{len(batches)} batches, {pages.padding_share(batches):.1%} padding"
    say(f"written: {out} ({counts}, {ledger.rejected.total()} left out)")


def _vocabulary(recipe: TrainRecipe, sprites: Sprites) -> tuple[TrainRecipe, Tokenizer]:
    """Return the recipe with the sizes that its run would have, and the vocabulary."""
    from kosmos2.training import build, checkpoint, start
    from kosmos2.vocab.tokenizer import Tokenizer

    before = Path(recipe.start_from)
    if not recipe.start_from:
        return recipe, build.tokenizer_for(recipe, sprites)
    if checkpoint.exists(before):
        return recipe, Tokenizer.from_folder(before)
    begun = start.begin(recipe, sprites)
    return begun.recipe, begun.tokenizer


def _batches(
    recipe: TrainRecipe, tokenizer: Tokenizer, sprites: Sprites, count: int, ledger: Ledger
) -> list[list[Batch]]:
    """Return the batches of the first steps, those of one rank alone."""
    from kosmos2.data.lessons import Teacher
    from kosmos2.data.loader import Loading, steps
    from kosmos2.data.mixture import Mixture
    from kosmos2.training import build

    sources = build.sources_for(recipe, Teacher(tokenizer, recipe.model.num_latents), sprites)
    mixture = Mixture(
        [source.weight for source in recipe.sources],
        batch_size=recipe.optimizer.batch_size,
        seed=recipe.seed,
        first=0,
        stop=count * recipe.optimizer.accumulation,
    )
    run = recipe.run
    loading = Loading(workers=0, multiple=run.pad_multiple, max_tokens=run.max_tokens)
    return list(steps(sources, mixture, loading, ledger))
