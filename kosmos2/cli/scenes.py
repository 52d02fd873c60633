"""`scenes`: the illustrated scenes that the embedded model learns from."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import bar, note, say
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.scenes import SceneMaker

scenes = typer.Typer(
    help="The illustrated scenes that the embedded model learns from.", no_args_is_help=True
)


class Split(StrEnum):
    TRAIN = "train"
    IID = "iid"
    COMBO = "combo"
    BACKGROUND = "background"
    STYLE = "style"


class HeldOut(StrEnum):
    IID = "iid"
    COMBO = "combo"
    BACKGROUND = "background"
    STYLE = "style"


class SetForm(StrEnum):
    REFCOCO = "refcoco"
    REFCOCO_PLUS = "refcoco+"
    REFCOCOG = "refcocog"
    FLICKR30K = "flickr30k"
    SEED_BENCH = "seed-bench"
    POPE = "pope"
    COCO_CAPTIONS = "coco-captions"
    FLICKR30K_CAPTIONS = "flickr30k-captions"
    VQAV2 = "vqav2"


class Nouns(StrEnum):
    STARTER = "starter"
    CORE = "core"
    ALL = "all"


CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of the artwork; without it, the user's cache.",
        metavar="DIR",
        show_default=False,
    ),
]


@scenes.command()
def prepare(cache: CacheOption = None) -> None:
    """Fetch the artwork packages and draw every sprite once, into the cache.

    Example:  kosmos2 scenes prepare
    """
    from kosmos2.scenes import default_cache
    from kosmos2.scenes.sprites import prepare as build

    build(cache or default_cache(), progress=note)


@scenes.command(no_args_is_help=True)
def sample(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many scenes.")] = 8,
    split: Annotated[Split, typer.Option("--split", help="What they may show.")] = Split.TRAIN,
    nouns: Annotated[Nouns, typer.Option("--nouns", help="Which things.")] = Nouns.CORE,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", metavar="FILE", help="Take the nouns of this training recipe instead."
        ),
    ] = None,
    size: Annotated[int, typer.Option("--size", min=16, help="Pixels at each side.")] = 224,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Other scenes.")] = 0,
    cache: CacheOption = None,
) -> None:
    """Make scenes: pictures, records.jsonl, and previews with every box drawn.

    Example:  kosmos2 scenes sample some-scenes --count 20 --split combo
    """
    from PIL import Image

    from kosmos2.grounding.render import draw

    maker = _maker(split, _nouns(nouns, recipe), size, seed, cache)
    (out / "previews").mkdir(parents=True, exist_ok=True)
    with (
        (out / "records.jsonl").open("w", encoding="utf-8") as records,
        bar("scenes", count) as it,
    ):
        for index in range(count):
            scene = maker.scene(index)
            name = f"{split}-{seed}-{index:05d}.png"
            image = Image.fromarray(scene.image)
            image.save(out / name)
            draw(image, scene.brief).save(out / "previews" / name)
            record = {**scene.record().to_dict(), "image": name}
            records.write(json.dumps(record) + "\n")
            it.reach(index + 1, count, "scenes")
    say(f"{count} scenes in {out}")


@scenes.command(no_args_is_help=True)
def write(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write.", show_default=False)
    ],
    form: Annotated[SetForm, typer.Option("--as", help="Whose files to write.")],
    recipe: Annotated[
        Path,
        typer.Option(
            "--recipe",
            metavar="TOML",
            help="Training recipe: the scenes are like those of its first source, but others.",
            show_default=False,
        ),
    ],
    split: Annotated[HeldOut, typer.Option("--split", help="What they may show.")] = HeldOut.IID,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many scenes.")] = 200,
    examples: Annotated[
        int,
        typer.Option("--examples", min=0, help="So many scenes of training beside, for --shots."),
    ] = 0,
) -> None:
    """Write scenes that training never saw as the files of a benchmark, for `kosmos2 eval`.

    Example:  kosmos2 scenes write scene-refs --as refcoco --recipe recipes/train/embedded.toml
    """
    from kosmos2 import config
    from kosmos2.cli.evaluate import makers
    from kosmos2.evaluation.scene_sets import FORMATS, WITH_EXAMPLES, check_empty
    from kosmos2.training.recipe import TrainRecipe

    check_empty(out)
    if examples and form not in WITH_EXAMPLES:
        raise RequestError(f"--examples are for --as {', '.join(WITH_EXAMPLES)}; got {form}")
    counts = {str(split): count, "train": examples} if examples else {str(split): count}
    found = makers(config.load(TrainRecipe, recipe), list(counts))
    made = (found[name].scene(index) for name in counts for index in range(counts[name]))
    with bar("scenes", count + examples) as it:
        for number, _ in enumerate(FORMATS[form](out, made, str(split)), start=1):
            it.reach(number, count + examples, "scenes")
    say(
        f"{count} scenes in {out}; run: kosmos2 eval {form} --data {out} --split {split} --own-data"
    )


def _nouns(nouns: Nouns, recipe: Path | None) -> tuple[str, ...]:
    from kosmos2 import config
    from kosmos2.scenes import noun_set
    from kosmos2.training.recipe import TrainRecipe

    return config.load(TrainRecipe, recipe).scenes.nouns if recipe else noun_set(nouns)


def _maker(
    split: Split, nouns: tuple[str, ...], size: int, seed: int, cache: Path | None
) -> "SceneMaker":
    from kosmos2 import scenes as artwork

    is_style = split is Split.STYLE
    styles = artwork.HELD_OUT_STYLES if is_style else artwork.TRAINING_STYLES
    recipe = artwork.SceneRecipe(size=size, nouns=nouns, styles=styles, seed=seed, split=split)
    sprites = artwork.Sprites.load(
        cache or artwork.default_cache(), styles=styles, nouns=nouns, side=256
    )
    return artwork.SceneMaker(recipe, sprites)
