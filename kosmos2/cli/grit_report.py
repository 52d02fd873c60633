"""`grit report`: what a data set holds, what was dropped and why, as one page and a data card."""

from pathlib import Path
from typing import Annotated

import typer

from kosmos2.cli.console import bar, note, say
from kosmos2.cli.jobs import SOME_FAILED

OutArgument = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="A folder of `grit build`.", show_default=False),
]
ExamplesOption = Annotated[
    int, typer.Option("--examples", min=1, max=50, help="Pictures for each reason.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Another one shows other examples.")]


def report(out: OutArgument, examples: ExamplesOption = 4, seed: SeedOption = 0) -> None:
    """Write OUT/report.html, which loads nothing from anywhere, and OUT/README.md, a data card.

    The exit code is 3 where the funnel does not balance or is not what the files hold.

    Example:  kosmos2 grit report my-grit --examples 8
    """
    from kosmos2.grit.reporting import write
    from kosmos2.grit.survey import Wish

    with bar("units", None) as progress:
        written = write(
            out,
            Wish(examples=examples, seed=seed),
            lambda done, total: progress.reach(done, total, "units"),
        )
    for path in written.files:
        say(f"written: {path}")
    for fault in written.faults:
        note(f"the funnel does not balance: {fault}")
    if written.faults:
        raise typer.Exit(SOME_FAILED)
