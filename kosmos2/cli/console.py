"""What the terminal shows: plain lines, tables, progress, and every error as one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text
from typer.core import TyperGroup

from kosmos2.errors import Kosmos2Error, one_line

FAILED = 2
"""The exit code whenever something asked for could not be done."""


class Commands(TyperGroup):
    """Turns errors that are a user's to mend into one line and the exit code 2."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except Kosmos2Error as error:
            complain(error)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone: no fault
                raise
            complain(error)
        raise typer.Exit(FAILED)


def say(line: str = "") -> None:
    """Print one line, as it is, on standard output."""
    Console().print(Text(line), soft_wrap=True)


def complain(error: object) -> None:
    """Print one line on standard error."""
    line = one_line(error) or type(error).__name__
    console = Console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)


def note(line: str) -> None:
    """Print one line on standard error that is no error."""
    Console(stderr=True).print(Text(line, style="dim"), soft_wrap=True)


class Bar:
    """One line that fills while something long is done; invisible where nobody looks."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def reach(self, done: int, total: int | None, what: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=what)


@contextmanager
def bar(what: str, total: int | None, *, done: int = 0) -> Iterator[Bar]:
    """Show a progress bar on standard error while the block runs; print nothing meanwhile.

    A total of None is one that nobody knows: the bar moves, and its count goes up.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as progress:
        yield Bar(progress, progress.add_task(what, completed=done, total=total))
