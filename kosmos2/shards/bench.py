"""Where a worker works, what it is given and what it answers; what a driver must offer.

A driver puts a `Bench` into each of its processes; `run` tells the benches, through a `Crew`, what
to do, and is the only one that decides and commits. So drivers stay small and cannot differ.
"""

from __future__ import annotations

import errno
import os
import pickle
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kosmos2.shards.folder import Files, seal
from kosmos2.shards.unit import Counts, Unit, Worker

MakeWorker = Callable[[], Worker[Any]]
"""Called once in each process. Travels there by pickle: a function of a module, a `partial`."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the disk, not of a unit."""


@dataclass(frozen=True, slots=True)
class Order:
    """A unit to do, into the folder `out` that is yet to be made, and one to prepare meanwhile."""

    unit: Unit
    out: Path
    ahead: Unit | None


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is made."""


@dataclass(frozen=True, slots=True)
class Made:
    """The unit's files lie in the folder of the order, sealed."""

    counts: Counts
    files: Files
    worked: float
    waited: float
    """Seconds in `run`, and seconds until `prepare` had ended."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The unit raised an error; what it was, with its traceback."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process of the worker is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """No unit can be done, and why: the worker cannot be made, the disk is full."""

    error: Exception


Answer = Ready | Made | Raised | Died | Stopped


class Crew(Protocol):
    """Benches by number. Each answers once to every `start` and every `give`."""

    def start(self, bench: int) -> None:
        """Make a fresh worker at the bench, in place of the one that may be there."""
        ...

    def give(self, bench: int, order: Order) -> None:
        """Let the worker of a bench that is not at work do an order."""
        ...

    def answer(self) -> tuple[int, Answer]:
        """Return the next answer and whose it is; wait for it."""
        ...


class Driver(Protocol):
    """Which processes do the work. A value: its settings are fields."""

    @property
    def workers(self) -> int:
        """How many units are done at a time, at most."""
        ...

    def crew(self, make_worker: MakeWorker, benches: int) -> AbstractContextManager[Crew]:
        """Return so many benches, none started; leaving the `with` ends all processes."""
        ...


class Bench:
    """A worker, and the thread that prepares for it. Lives in the worker's process."""

    def __init__(self, make_worker: MakeWorker) -> None:
        self._worker = make_worker()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._ahead: tuple[Unit, Future[Any]] | None = None

    def do(self, order: Order) -> Made | Raised | Stopped:
        """Do the order; what the worker raises is an answer, too."""
        try:
            return self._do(order)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                return Stopped(OSError(error.errno, os.strerror(error.errno), str(order.out)))
            return Raised("".join(traceback.format_exception(error)).strip())

    def _do(self, order: Order) -> Made:
        begun = time.perf_counter()
        prepared = self._prepared(order.unit)
        if order.ahead is not None:
            self._prepare(order.ahead)
        order.out.mkdir()
        ready = time.perf_counter()
        counts = dict(self._worker.run(order.unit, prepared, order.out))
        ended = time.perf_counter()
        return Made(counts, seal(order.out), worked=ended - ready, waited=ready - begun)

    def _prepare(self, unit: Unit) -> Future[Any]:
        future = self._thread.submit(self._worker.prepare, unit)
        self._ahead = (unit, future)
        return future

    def _prepared(self, unit: Unit) -> Any:  # noqa: ANN401 (the worker's own)
        """Return what the worker prepared of the unit; what was prepared of another is let go."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == unit:
            return ahead[1].result()
        future = self._prepare(unit)
        self._ahead = None
        return future.result()

    def close(self) -> None:
        """Wait for nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def begin(make_worker: MakeWorker) -> tuple[Bench | None, Ready | Stopped]:
    """Return a bench with its worker made, or why there cannot be one."""
    try:
        return Bench(make_worker), Ready()
    except Exception as error:
        return None, Stopped(_portable(error))


def _portable(error: Exception) -> Exception:
    """Return the error if it survives the way to another process, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)).strip())
    return error
