"""Races: contestants take turns, round after round, with readings of the limits between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.limits import Limits
from benchmarks.machine import Load
from benchmarks.samples import Spread, ratios, spread
from benchmarks.work import Work


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant of a race."""

    name: str
    sample: Callable[[], float]
    """Does the thing once; returns seconds."""
    work: tuple[Work, ...]
    """The least that it costs, stage after stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What one contestant did in a race: one number a round."""

    name: str
    seconds: tuple[float, ...]
    bandwidths: tuple[float, ...]
    """Bytes a second, read right before and right after each sample (their mean)."""
    work: tuple[Work, ...]

    @property
    def spread(self) -> Spread:
        return spread(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The numbers of one race; everything that is printed follows from them."""

    lanes: tuple[Lane, ...]
    rates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Number type -> operations a second, one reading a round; empty where reading is the limit."""
    others: float
    """Share of the processors that others had meanwhile."""

    def lane(self, name: str) -> Lane | None:
        """Return a contestant's numbers, None if it did not run."""
        return next((lane for lane in self.lanes if lane.name == name), None)

    @property
    def bandwidth(self) -> Spread:
        """Return bytes a second over all readings."""
        return spread([value for lane in self.lanes for value in lane.bandwidths])

    def shares(self, lane: Lane) -> list[float]:
        """Return the least possible time over the time taken, both of the same moment."""
        return [
            self._limits(lane, number).seconds(lane.work) / seconds
            for number, seconds in enumerate(lane.seconds)
        ]

    def share(self, lane: Lane) -> Spread:
        """Return the spread of the shares."""
        return spread(self.shares(lane))

    def ratios(self, peer: str, ours: str) -> list[float]:
        """Return how many times longer the peer took in each round; none if one did not run."""
        theirs, mine = self.lane(peer), self.lane(ours)
        return ratios(theirs.seconds, mine.seconds) if theirs and mine else []

    def ratio(self, peer: str, ours: str) -> Spread | None:
        """Return the spread of the ratios, None if one of them did not run."""
        found = self.ratios(peer, ours)
        return spread(found) if found else None

    def _limits(self, lane: Lane, number: int) -> Limits:
        rates = {name: values[number] for name, values in self.rates.items()}
        return Limits(lane.bandwidths[number], rates)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Race:
        """Return what `to_dict` wrote, also after a trip through JSON."""
        lanes = tuple(
            Lane(
                name=each["name"],
                seconds=tuple(each["seconds"]),
                bandwidths=tuple(each["bandwidths"]),
                work=tuple(Work(**stage) for stage in each["work"]),
            )
            for each in data["lanes"]
        )
        rates = {name: tuple(values) for name, values in data["rates"].items()}
        return cls(lanes=lanes, rates=rates, others=data["others"])


def race(
    entries: Sequence[Entry],
    rounds: int,
    bandwidth: Callable[[], float],
    rates_now: Callable[[], Mapping[str, float]],
) -> Race:
    """Run all entries `rounds` times in turns, each round beginning with another.

    Around every sample the bandwidth is read, and in every round the rates.
    """
    seconds: dict[str, list[float]] = {entry.name: [] for entry in entries}
    bandwidths: dict[str, list[float]] = {entry.name: [] for entry in entries}
    rates: dict[str, list[float]] = {}
    with Load() as load:
        for number in range(rounds):
            for name, rate in rates_now().items():
                rates.setdefault(name, []).append(rate)
            before = bandwidth()
            for entry in rotated(entries, number):
                seconds[entry.name].append(entry.sample())
                after = bandwidth()
                bandwidths[entry.name].append((before + after) / 2)
                before = after
    lanes = tuple(
        Lane(
            name=entry.name,
            seconds=tuple(seconds[entry.name]),
            bandwidths=tuple(bandwidths[entry.name]),
            work=entry.work,
        )
        for entry in entries
    )
    kept = {name: tuple(values) for name, values in rates.items()}
    return Race(lanes=lanes, rates=kept, others=load.others)


def timed(function: Callable[[], object], times: int = 1) -> float:
    """Return seconds of one call, averaged over several calls in a row."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


def rotated(entries: Sequence[Entry], number: int) -> list[Entry]:
    """Return the entries in their order, beginning with another one each time."""
    start = number % len(entries)
    return [*entries[start:], *entries[:start]]
