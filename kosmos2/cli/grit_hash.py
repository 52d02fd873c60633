"""`grit hash`: perceptual hashes of pictures that a data set must not have."""

from pathlib import Path
from typing import Annotated

import typer

from kosmos2.cli.console import bar, note, say
from kosmos2.cli.jobs import SOME_FAILED
from kosmos2.errors import RequestError, one_line

PicturesArgument = Annotated[
    str,
    typer.Argument(
        metavar="PICTURES",
        help="A folder, a glob, a list of paths (.txt), records or a table (.jsonl, .parquet, "
        ".csv), tars.",
        show_default=False,
    ),
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The text file to write.")]
ImagesOption = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="Where paths in PICTURES start.")
]


def write_hashes(
    pictures: PicturesArgument, file: FileArgument, images: ImagesOption = None
) -> None:
    """Write a line with the perceptual hash of each picture, for `filters.excluded` of a recipe.

    Pictures that cannot be read are named and left out; the exit code is then 3.

    Example:  kosmos2 grit hash refcoco-pictures/ refcoco.hashes
    """
    from kosmos2.grit.hashing import hash_pictures

    if not file.parent.is_dir():
        raise RequestError(f"there is no folder {one_line(file.parent)} to write the file in")
    with bar("hashing", None) as progress:
        hashed = hash_pictures(
            pictures, file, images, lambda done: progress.reach(done, None, "hashing")
        )
    for name, why in hashed.first_bad:
        note(f"{name}: {why}")
    if hashed.bad > len(hashed.first_bad):
        note(f"... and {hashed.bad - len(hashed.first_bad):,} more")
    said = f", {hashed.bad:,} could not be read" if hashed.bad else ""
    say(f"written: {file} ({hashed.good:,} pictures{said})")
    if hashed.bad:
        raise typer.Exit(SOME_FAILED)
