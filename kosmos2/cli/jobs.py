"""What the commands share whose work is done in units: options, the bar, what went wrong."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import Bar, note

if TYPE_CHECKING:
    from kosmos2.shards import Done, Quarantined

SOME_FAILED = 3
"""The exit code where something of the input is not in the output."""


class Driver(StrEnum):
    LOCAL = "local"
    POOL = "pool"
    RAY = "ray"


DriverOption = Annotated[
    Driver, typer.Option("--driver", help="This process, several, or a Ray cluster.")
]
AddressOption = Annotated[str | None, typer.Option("--address", help="Of a Ray cluster at work.")]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Throw away what an earlier run left, and begin anew.")
]


class Watch:
    """Moves the bar as units are done."""

    def __init__(self, bar: Bar, what: str, total: int | None = None) -> None:
        self._bar, self._what = bar, what
        self._done, self._total = 0, total

    def begin(self, total: int) -> None:
        self._total = total

    def saw(self, done: "Done") -> None:
        self._done += len(done.unit.items)
        self._bar.reach(self._done, self._total, self._what)


def end(quarantined: "Sequence[Quarantined]") -> None:
    """Name the units that failed every time, and exit with the code that says so."""
    for each in quarantined:
        note(f"unit {each.name} failed every time: {each.reason.splitlines()[-1]}")
    if quarantined:
        raise typer.Exit(SOME_FAILED)
