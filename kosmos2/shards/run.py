"""A job from first unit to last: who does what, what is tried again, what is given up."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from kosmos2.errors import ConfigError, one_line
from kosmos2.shards.bench import (
    NO_SPACE,
    Answer,
    Crew,
    Died,
    Driver,
    Made,
    MakeWorker,
    Order,
    Raised,
    Ready,
    Stopped,
)
from kosmos2.shards.folder import JobFolder
from kosmos2.shards.local import Local
from kosmos2.shards.pool import Pool
from kosmos2.shards.ray_driver import Ray
from kosmos2.shards.unit import Done, Outcome, Quarantined, Summary, Unit

TRIES = 3
"""So often a unit is tried, and a worker that dies while it is made is made again."""

HOPELESS = 8
"""So many units in quarantine and none done: it is not the units, and the run ends."""


def run(
    units: Iterable[Unit],
    make_worker: MakeWorker,
    folder: JobFolder,
    *,
    driver: Driver,
    on_done: Callable[[Done], None],
) -> Summary:
    """Do every unit that the folder does not hold yet, and tell `on_done` of every unit.

    Units are read as they are needed. One that raises or kills its process is tried again by a
    fresh worker, and after the third time it goes to quarantine while the run goes on.
    """
    begun = time.perf_counter()
    tally = _Tally(folder, on_done)
    missing = tally.missing(units)
    first = list(islice(missing, driver.workers))
    try:
        if first:
            with driver.crew(make_worker, len(first)) as crew:
                _Dispatch(crew, len(first), chain(first, missing), tally).work()
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise ConfigError(
            f"nothing can be written to {one_line(folder.path)} ({error}): make room and start "
            f"again, what is done is kept"
        ) from error
    return tally.summary(time.perf_counter() - begun)


def driver_named(name: str, *, workers: int, gpus: int, address: str | None) -> Driver:
    """Return the driver that is called local, pool or ray.

    `workers` processes share `gpus` accelerators; `address` is that of a Ray cluster at work.
    """
    if address is not None and name != "ray":
        raise ConfigError(f"an address ({address}) is for the driver ray, and the driver is {name}")
    if workers < 1 or gpus < 0:
        raise ConfigError(f"needs 1 worker or more and no GPU or more, got {workers} and {gpus}")
    match name:
        case "local":
            if workers != 1:
                raise ConfigError(
                    f"the driver local has 1 worker, got {workers}: use the driver pool"
                )
            return Local()
        case "pool":
            return Pool(workers, gpus)
        case "ray":
            return Ray(workers, gpus, address)
        case _:
            raise ConfigError(f"no driver is called {name!r}: use local, pool or ray")


class _Tally:
    """What became of each unit: the folder is told, the caller is told, sums are kept."""

    def __init__(self, folder: JobFolder, on_done: Callable[[Done], None]) -> None:
        self.folder = folder
        self._on_done = on_done
        self._outcomes: Counter[Outcome] = Counter()
        self._counts: Counter[str] = Counter()
        self._quarantined: list[Quarantined] = []
        self._worked = self._waited = 0.0

    def missing(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """Yield the units that are not done yet; tell of those that are."""
        last = ""
        for unit in units:
            assert unit.name > last, f"unit {unit.name!r} comes after {last!r}: names must sort"
            last = unit.name
            counts = self.folder.done(unit.name)
            if counts is None:
                yield unit
            else:
                self._tell(Done(unit, Outcome.KEPT, counts, 0.0, ""))

    def made(self, order: Order, answer: Made) -> None:
        self.folder.commit(order.unit.name, order.out, answer.counts, answer.files)
        self._worked += answer.worked
        self._waited += answer.waited
        self._tell(Done(order.unit, Outcome.MADE, answer.counts, answer.worked, ""))

    def quarantined(self, unit: Unit, reason: str) -> None:
        self.folder.quarantine(unit.name, reason)
        self._quarantined.append(Quarantined(unit.name, reason))
        self._tell(Done(unit, Outcome.QUARANTINED, {}, 0.0, reason))
        if len(self._quarantined) == HOPELESS == self._outcomes.total():
            raise ConfigError(
                f"the first {HOPELESS} units all failed, so the run ends. The last, {unit.name}: "
                f"{one_line(reason.splitlines()[-1])}. The whole reason lies in "
                f"{one_line(self.folder.path / 'quarantine')}"
            )

    def _tell(self, done: Done) -> None:
        self._outcomes[done.outcome] += 1
        self._counts.update(done.counts)
        self._on_done(done)

    def summary(self, seconds: float) -> Summary:
        return Summary(
            made=self._outcomes[Outcome.MADE],
            kept=self._outcomes[Outcome.KEPT],
            quarantined=tuple(sorted(self._quarantined, key=lambda each: each.name)),
            counts=dict(self._counts),
            seconds=seconds,
            worked=self._worked,
            waited=self._waited,
        )


@dataclass(slots=True)
class _Task:
    unit: Unit
    tries: int = 0
    alone: bool = False
    """Nothing may be prepared beside it: if its process dies, it was this unit."""


class _Dispatch:
    """Hands out tasks: to each bench one, and one to prepare, and again what was lost."""

    def __init__(self, crew: Crew, benches: int, units: Iterator[Unit], tally: _Tally) -> None:
        self._crew = crew
        self._fresh = (_Task(unit) for unit in units)
        self._tally = tally
        self._again: deque[_Task] = deque()
        self._running: dict[int, tuple[_Task, Order]] = {}
        self._held: dict[int, _Task] = {}
        self._idle: set[int] = set()
        self._deaths: Counter[int] = Counter()
        self._orders = 0
        self._all_read = False
        for bench in range(benches):
            crew.start(bench)

    def work(self) -> None:
        """Go on until every unit is done or in quarantine."""
        while True:
            for bench in sorted(self._idle):
                self._give(bench)
            if not (self._running or self._again or self._held) and self._all_read:
                return
            bench, answer = self._crew.answer()
            self._take(bench, answer)

    def _give(self, bench: int) -> None:
        task = self._next(bench)
        if task is None:
            return
        ahead = None if task.alone else self._read()
        if ahead is not None:
            self._held[bench] = ahead
        self._orders += 1
        out = self._tally.folder.making(f"{task.unit.name}.{self._orders}")
        order = Order(task.unit, out, ahead.unit if ahead else None)
        self._idle.discard(bench)
        self._running[bench] = (task, order)
        self._crew.give(bench, order)

    def _next(self, bench: int) -> _Task | None:
        """Return what the bench has prepared, else what was lost, else new, else another's next."""
        if bench in self._held:
            return self._held.pop(bench)
        if self._again:
            return self._again.popleft()
        task = self._read()
        if task is None and self._held:
            return self._held.pop(min(self._held))
        return task

    def _read(self) -> _Task | None:
        task = next(self._fresh, None)
        self._all_read = task is None
        return task

    def _take(self, bench: int, answer: Answer) -> None:
        match answer:
            case Ready():
                self._deaths[bench] = 0
                self._idle.add(bench)
            case Made():
                _, order = self._running.pop(bench)
                self._tally.made(order, answer)
                self._idle.add(bench)
            case Raised(reason):
                task, _ = self._running.pop(bench)
                self._failed(task, reason)
                self._crew.start(bench)
            case Died(reason) if bench in self._running:
                self._lost(bench, reason)
                self._crew.start(bench)
            case Died(reason):
                self._unmade(bench, reason)
            case Stopped(error):
                raise error

    def _failed(self, task: _Task, reason: str) -> None:
        task.tries += 1
        if task.tries < TRIES:
            self._again.append(task)
        else:
            self._tally.quarantined(task.unit, reason)

    def _lost(self, bench: int, reason: str) -> None:
        """Ask again for what the dead process had; count it only where the blame is certain."""
        task, order = self._running.pop(bench)
        if order.ahead is None:
            task.alone = True
            self._failed(task, reason)
            return
        held = self._held.pop(bench, None)
        for suspect in (task, held):
            if suspect is not None:
                suspect.alone = True
                self._again.append(suspect)

    def _unmade(self, bench: int, reason: str) -> None:
        self._deaths[bench] += 1
        if self._deaths[bench] == TRIES:
            raise ConfigError(
                f"a worker died {TRIES} times while it was made ({one_line(reason)}): memory may "
                f"be short for so many workers, or for the model"
            )
        self._crew.start(bench)
