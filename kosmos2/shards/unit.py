"""What a job is made of: units of work, those who do them, and what is told about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

Counts = Mapping[str, int]
"""What a worker counted in a unit, by name; a summary adds them up."""

Prepared = TypeVar("Prepared")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Unit:
    """Work that is done whole or not at all.

    Names sort in the order of the input, as "000012" does. Items travel to other processes: best
    they say where things lie (a path, an offset) and `Worker.prepare` reads them.
    """

    name: str
    items: tuple[Any, ...]

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), f"{self.name!r} cannot name a file on every system"


class Worker(Protocol[Prepared]):
    """Does one unit after the other. There is one in a process, and it holds the model.

    The files of a unit depend on the unit alone: not on the units before, the process or the time.
    Faults of single items are the worker's to note in its files. What it raises is a fault of the
    unit, which is tried again by a fresh worker.
    """

    def prepare(self, unit: Unit) -> Prepared:
        """Return what `run` needs and can be had ahead (open pictures).

        Called in a thread of its own while `run` is at work on the unit before.
        """
        ...

    def run(self, unit: Unit, prepared: Prepared, out: Path) -> Counts:
        """Write all files of the unit into the empty folder `out` and return what to count."""
        ...


class Outcome(StrEnum):
    """How a unit ended in this run."""

    MADE = "made"
    KEPT = "kept"
    """An earlier run had done it."""
    QUARANTINED = "quarantined"
    """It failed every time it was tried. The next run tries again."""


@dataclass(frozen=True, slots=True)
class Done:
    """Told once of every unit in every run, in no order."""

    unit: Unit
    outcome: Outcome
    counts: Counts
    seconds: float
    """How long the worker was at it; 0 where it was not this run's."""
    reason: str
    """Why it is in quarantine, else empty."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A unit that failed every time, and how it did the last time."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run ended with."""

    made: int
    kept: int
    quarantined: tuple[Quarantined, ...]
    counts: Counts
    """Sums over all units that are done, also those of earlier runs."""
    seconds: float
    """From start to end, by the clock."""
    worked: float
    """Seconds in `Worker.run`, all workers together."""
    waited: float
    """Seconds in which a worker had a unit and waited for it to be prepared, all together."""

    @property
    def waiting_share(self) -> float:
        """Return which part of their time the workers waited for `prepare`, from 0 to 1."""
        return self.waited / (self.worked + self.waited) if self.worked + self.waited else 0.0
