"""`eval`: how good a model is, in numbers that anybody can compute again."""

import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kosmos2.cli import evaluate_benchmarks, evaluate_scores
from kosmos2.cli.console import bar, say
from kosmos2.cli.evaluate_language import language
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption
from kosmos2.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from kosmos2.api import Kosmos2
    from kosmos2.evaluation.scenes import Examinee
    from kosmos2.scenes import SceneMaker
    from kosmos2.training.recipe import TrainRecipe

SPLITS = ("iid", "combo", "background", "style")
MAX_NEW_TOKENS = 128
"""No caption of a scene needs half of it; one that goes on for ever is cut there."""

ScoreOption = Annotated[
    Path | None,
    typer.Option(
        "--score",
        help="Compute the numbers of this folder again, from its saved answers alone.",
        metavar="FOLDER",
        show_default=False,
    ),
]

evaluate = typer.Typer(
    help="How good a model is, in numbers that anybody can compute again.", no_args_is_help=True
)


@evaluate.command(no_args_is_help=True)
def scenes(
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            help="Training recipe: the scenes are like those of its first source.",
            metavar="TOML",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write.", metavar="FOLDER", show_default=False),
    ] = None,
    model: ModelOption = "embedded",
    splits: Annotated[
        str, typer.Option("--splits", help="What the scenes may show.", metavar="A,B,...")
    ] = ",".join(SPLITS),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Scenes a split.")] = 500,
    figure: Annotated[
        int,
        typer.Option("--figure", min=0, help="Scenes to draw: the first, the right, the wrong."),
    ] = 12,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: a.b=value.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    score: ScoreOption = None,
) -> None:
    """Ask about illustrated scenes that training never saw: find, caption, describe, ask.

    Example:  kosmos2 eval scenes --recipe recipes/train/embedded.toml --out results/scenes
    """
    from kosmos2.evaluation import report

    if score is None:
        if recipe is None or out is None:
            raise RequestError("name the scenes with --recipe and the folder to write with --out")
        run = _Evaluation(recipe, settings or [], _chosen(splits), count, figure)
        run.answer(_load(model, device, dtype, batch_size), out, at_a_time=batch_size)
    folder = score or out
    assert folder is not None
    _show(report.write_results(folder))
    say(f"written: {folder / 'results.json'}, {folder / 'results.md'}")


class _Evaluation:
    """The scenes of some splits, put to a model."""

    def __init__(
        self, recipe: Path, settings: list[str], splits: list[str], count: int, figure: int
    ) -> None:
        from kosmos2 import config
        from kosmos2.training.recipe import TrainRecipe

        self.name = " ".join([str(recipe), *settings])
        self.recipe = config.load(TrainRecipe, recipe, settings)
        self.splits = splits
        self.count = count
        self.figure = figure

    def answer(self, model: "Kosmos2", folder: Path, *, at_a_time: int) -> None:
        """Write the answers of every split, its picture, and what was run."""
        from kosmos2.evaluation import report
        from kosmos2.evaluation.scenes import ModelExaminee
        from kosmos2.weights.pretrained import open_checkpoint, resolve
        from kosmos2.weights.tensors import sha256

        of_split = makers(self.recipe, self.splits)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = {}
        for split, maker in of_split.items():
            start = time.monotonic()
            self._split(split, maker, ModelExaminee(model), folder, at_a_time=at_a_time)
            seconds[split] = round(time.monotonic() - start, 1)
        run = report.Run(
            command=shlex.join(["kosmos2", *sys.argv[1:]]),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            code=report.code_now(),
            machine=report.machine_now(model.engine.runner.device),
            model=model.name,
            weights={
                file.name: sha256(file) for file in open_checkpoint(resolve(model.name)).files
            },
            recipe=self.name,
            count=self.count,
            seed=next(iter(of_split.values())).recipe.seed,
            seconds=seconds,
        )
        report.save_run(folder, run)

    def _split(
        self, split: str, maker: "SceneMaker", examinee: "Examinee", folder: Path, *, at_a_time: int
    ) -> None:
        from PIL import Image

        from kosmos2.evaluation import report
        from kosmos2.evaluation.scenes import Answered, Kind, examine
        from kosmos2.evaluation.scores import verdict
        from kosmos2.grounding.sheet import Tile, sheet

        answered: list[Answered] = []
        tiles: list[Tile] = []
        hits: list[Tile] = []
        misses: list[Tile] = []
        with bar(split, self.count) as progress:
            done = examine(maker, self.count, examinee, at_a_time=at_a_time)
            for number, examined in enumerate(done, start=1):
                answered += examined.answers
                progress.reach(number, self.count, split)
                caption = next(a for a in examined.answers if a.case.kind is Kind.CAPTION)
                true = tuple(thing.box for thing in caption.case.things)
                image = Image.fromarray(examined.scene.image)
                tiles.append(Tile(image=image, grounded=caption.predicted, true=true))
                (hits if verdict(caption).right else misses).append(tiles[-1])
                tiles, hits, misses = (each[: self.figure] for each in (tiles, hits, misses))
        report.save_answers(folder / f"{split}.jsonl", answered)
        for name, drawn in (("", tiles), ("-hits", hits), ("-misses", misses)):
            if drawn:
                sheet(drawn).save(folder / f"{split}{name}.png")


def _chosen(splits: str) -> list[str]:
    chosen = list(dict.fromkeys(part.strip() for part in splits.split(",") if part.strip()))
    unknown = [part for part in chosen if part not in SPLITS]
    if unknown or not chosen:
        raise RequestError(f"--splits takes some of {','.join(SPLITS)}, got {splits!r}")
    return chosen


def _load(name: str, device: Device, dtype: Dtype, batch_size: int) -> "Kosmos2":
    from kosmos2.api import Kosmos2, Settings

    settings = Settings(batch_size=batch_size, max_new_tokens=MAX_NEW_TOKENS)
    return Kosmos2.load(name, device=device, dtype=dtype, settings=settings)


def makers(recipe: "TrainRecipe", splits: list[str]) -> "dict[str, SceneMaker]":
    """Return a maker for each split, of scenes like the first source's but never trained."""
    from kosmos2.scenes import HELD_OUT_STYLES, Sprites, default_cache
    from kosmos2.training.build import scene_maker

    source = recipe.sources[0]
    if source.kind != "scenes":
        raise ConfigError(f"the first source of the recipe must be scenes, it is {source.kind}")
    styles = tuple(dict.fromkeys([*recipe.scenes.styles, *HELD_OUT_STYLES]))
    sprites = Sprites.load(default_cache(), styles=styles, nouns=recipe.scenes.nouns)
    return {split: scene_maker(recipe, source, sprites, split=split) for split in splits}


def _show(results: dict[str, Any]) -> None:
    """Print the numbers of all splits beside each other; intervals are in the files."""
    from kosmos2.evaluation.report import TITLES, shown

    splits = results["splits"]
    table = Table("", *splits)
    for name, title in TITLES.items():
        found = [part["numbers"].get(name) for part in splits.values()]
        if any(found):
            table.add_row(title, *("–" if n is None else shown(name, n["value"]) for n in found))
    Console().print(table)


evaluate_benchmarks.add_to(evaluate)
evaluate_scores.add_to(evaluate)
evaluate.command("language")(language)
