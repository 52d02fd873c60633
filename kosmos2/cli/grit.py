"""`grit`: image-text pairs into a grounded data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from kosmos2.cli.console import bar, say
from kosmos2.cli.grit_calibrate import calibrate
from kosmos2.cli.grit_download import download
from kosmos2.cli.grit_hash import write_hashes
from kosmos2.cli.grit_report import report
from kosmos2.cli.jobs import AddressOption, Driver, DriverOption, FreshOption, Watch, end
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.grit.build import Selected
    from kosmos2.grit.recipe import GritRecipe
    from kosmos2.grit.steps import Ledger

grit = typer.Typer(
    help="Captioned pictures into a grounded data set, as GRIT was made.",
    epilog="Example:  kosmos2 grit build captioned-pictures/ my-grit",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="A TOML file; without it, our own choices."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the recipe: linking.threshold=0.4. Repeatable."
    ),
]


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Captioned pictures: a folder with NAME.txt beside NAME.jpg, img2dataset's or "
        "other WebDataset tars, a table or records (.parquet, .jsonl, .csv) with columns for "
        "picture and caption, captions of COCO (.json), a folder that `datasets` saved.",
        show_default=False,
    ),
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Where paths in SOURCE start."),
]
FetchOption = Annotated[
    bool,
    typer.Option(
        "--fetch",
        help="Download pictures that SOURCE names by their url; for many see `grit download`.",
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", help="The first so many pairs.")]
ShardSizeOption = Annotated[int, typer.Option("--shard-size", min=1, help="Pairs of a unit.")]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Processes, each with parser and detector.")
]
GpusOption = Annotated[int, typer.Option("--gpus", min=0, help="GPUs that they share.")]


@grit.command(no_args_is_help=True)
def build(
    source: SourceArgument,
    out: OutArgument,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    images: ImagesOption = None,
    fetch: FetchOption = False,
    limit: LimitOption = None,
    shard_size: ShardSizeOption = 256,
    driver: DriverOption = Driver.LOCAL,
    workers: WorkersOption = 1,
    gpus: GpusOption = 0,
    address: AddressOption = None,
    fresh: FreshOption = False,
) -> None:
    """Find the things that captions speak of, and write each phrase with its boxes.

    The same command goes on where it was stopped. Other thresholds need no new run: see `select`.

    Example:  kosmos2 grit build captioned-pictures/ my-grit --set linking.threshold=0.4
    """
    from kosmos2.grit.build import Build
    from kosmos2.grit.build import build as make
    from kosmos2.shards import driver_named

    job = Build(
        source=source,
        out=out,
        recipe=_recipe(recipe, overrides),
        driver=driver_named(driver, workers=workers, gpus=gpus, address=address),
        images=images,
        limit=limit,
        unit=shard_size,
        download=fetch,
        anew=fresh,
    )
    with bar("looking", 1) as progress:
        watch = Watch(progress, "looking")
        selected = make(job, watch.saw, watch.begin)
    _show(selected, out)
    if selected.summary is not None:
        end(selected.summary.quarantined)


@grit.command(no_args_is_help=True)
def select(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder of `grit build`.")],
    recipe: RecipeOption = None,
    overrides: SetOption = None,
) -> None:
    """Choose records again by other thresholds, without looking at the pictures again.

    Example:  kosmos2 grit select my-grit --set linking.threshold=0.6 --set linking.nms_iou=0.8
    """
    from kosmos2 import config
    from kosmos2.grit.build import recipe_of
    from kosmos2.grit.build import select as choose

    wanted = (
        _recipe(recipe, overrides)
        if recipe is not None
        else config.changed(recipe_of(out), overrides or ())
    )
    _show(choose(out, wanted), out)


grit.command(no_args_is_help=True)(download)
grit.command(no_args_is_help=True)(calibrate)
grit.command("hash", no_args_is_help=True)(write_hashes)
grit.command(no_args_is_help=True)(report)


def _recipe(path: Path | None, overrides: list[str] | None) -> "GritRecipe":
    from kosmos2 import config
    from kosmos2.grit.recipe import GritRecipe

    if path is None:
        return config.changed(GritRecipe(), overrides or ())
    if not path.is_file():
        raise RequestError(f"there is no recipe at {path}; recipes/grit has two to start from")
    return config.load(GritRecipe, path, overrides or ())


def _show(selected: "Selected", out: Path) -> None:
    funnel = selected.funnel
    table = Table("", "in", "out", "dropped because")
    for name in ("pairs", "phrases", "boxes"):
        ledger: Ledger = getattr(funnel, name)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in ledger.dropped.most_common())
        table.add_row(name, f"{ledger.entered:,}", f"{ledger.left:,}", reasons)
    Console().print(table)
    say(f"written: {out / 'records.jsonl'} ({funnel.pairs.left:,} records)")
