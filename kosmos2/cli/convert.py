"""`convert`: one checkpoint format into the other."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import bar, say

if TYPE_CHECKING:
    from kosmos2.weights.convert import Step


class To(StrEnum):
    HUGGINGFACE = "huggingface"
    ORIGINAL = "original"


class NewDtype(StrEnum):
    KEEP = "keep"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="'embedded', a model folder, a kosmos-2.pt or a hub name.",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="A new folder for huggingface, a new .pt file for original.",
            show_default=False,
        ),
    ],
    to: Annotated[To, typer.Option("--to", help="What to write.", show_default=False)],
    dtype: Annotated[
        NewDtype, typer.Option("--dtype", help="Number type to write; keep: as it is.")
    ] = NewDtype.KEEP,
) -> None:
    """Write a model in another format; print the sha256 of what was written.

    Example:  kosmos2 convert kosmos-2.pt kosmos-2-folder --to huggingface --dtype bfloat16
    """
    from kosmos2.api.model import DTYPES
    from kosmos2.weights.convert import Format
    from kosmos2.weights.convert import convert as write

    with bar("converting", 1) as progress:

        def report(step: "Step") -> None:
            progress.reach(step.done, step.total, step.tensor[-40:])

        written = write(
            source,
            target,
            to=Format(to),
            dtype=None if dtype is NewDtype.KEEP else DTYPES[dtype],
            progress=report,
        )
    for file in written:
        say(str(file))
