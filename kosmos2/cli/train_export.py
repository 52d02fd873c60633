"""`train export`: any checkpoint of a run as a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kosmos2.cli.console import say


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of the run.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The model folder.", show_default=False)
    ],
    step: Annotated[
        int | None,
        typer.Option("--step", help="A step that has a checkpoint.", show_default="the last"),
    ] = None,
) -> None:
    """Write a checkpoint as a model folder, for --model and for transformers.

    Example:  kosmos2 train export runs/embedded --step 2000 --out models/embedded-2000
    """
    from kosmos2.training import checkpoint
    from kosmos2.training.export import export as write

    write(run, checkpoint.last(run) if step is None else step, out)
    say(f"model: {out}")
