"""The commands. Nothing heavy is imported before a command runs, so `--help` is instant."""

import contextlib
import sys
import warnings
from typing import Annotated

import typer

import kosmos2
from kosmos2.cli.annotate import annotate
from kosmos2.cli.console import Commands, note, say
from kosmos2.cli.convert import convert
from kosmos2.cli.demo import demo
from kosmos2.cli.doctor import doctor
from kosmos2.cli.edit import edit
from kosmos2.cli.evaluate import evaluate
from kosmos2.cli.finetune import finetune
from kosmos2.cli.grit import grit
from kosmos2.cli.native import native
from kosmos2.cli.pictures import ask, caption, describe, find, ground
from kosmos2.cli.records import records
from kosmos2.cli.scenes import scenes
from kosmos2.cli.serve import serve
from kosmos2.cli.train_preview import training

__all__ = ["app", "main"]

app = typer.Typer(
    name="kosmos2",
    cls=Commands,
    help="Grounded language about pictures: captions whose phrases have boxes, boxes for phrases.",
    epilog="Example:  kosmos2 caption photo.jpg --draw photo-boxes.png",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"kosmos2 {kosmos2.__version__}")
        raise typer.Exit


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing: options of all commands stand at the commands."""


for _command in (
    caption,
    ground,
    find,
    describe,
    ask,
    annotate,
    demo,
    convert,
    doctor,
    serve,
    edit,
    finetune,
):
    app.command(_command.__name__, no_args_is_help=_command not in (demo, doctor, serve))(_command)
app.add_typer(scenes, name="scenes")
app.add_typer(evaluate, name="eval")
app.add_typer(grit, name="grit")
app.add_typer(records, name="records")
app.add_typer(training, name="train")
app.add_typer(native, name="native")


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A caption may hold letters that an old terminal has not: they are replaced, not fatal.
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    app()
