"""Units done by Ray actors, on this machine or on a cluster at work; the only file that knows Ray.

One worker is one actor, so a model is loaded once. Parts travel through the job's folder, which
must be on a disk that all machines share; through Ray go only orders and counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.shards.bench import Answer, Bench, Crew, Died, MakeWorker, Order, Ready, Stopped, begin
from kosmos2.shards.pool import allowed_cores

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class Ray:
    """So many actors, which share the cores and `gpus` GPUs of the cluster.

    `address` is a cluster's, or "auto" for that of this machine's node; None starts Ray here.
    """

    workers: int
    gpus: int = 0
    address: str | None = None

    @contextmanager
    def crew(self, make_worker: MakeWorker, benches: int) -> Iterator[Crew]:
        """Return the benches; the actors, and a Ray started here, end with this."""
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self, benches)
        crew = _RayCrew(ray, make_worker, _share(ray, self.gpus, benches))
        try:
            yield crew
        finally:
            crew.close()
            if ours:
                ray.shutdown()


def _ray() -> ModuleType:
    # Nothing is sent to anyone: this must be set before the import.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            f'the driver ray needs Ray ({error}): pip install "kosmos2[cluster]"'
        ) from error
    return ray


def _connect(ray: ModuleType, driver: Ray, benches: int) -> None:
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if driver.address is None:
        # As many cores as actors at least, or some would wait for ever.
        cores = max(allowed_cores(), benches)
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=driver.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {driver.address!r} ({error}): start one with "
            f"`ray start --head`, or leave the address out to start Ray here"
        ) from error


def _share(ray: ModuleType, gpus: int, benches: int) -> dict[str, float]:
    """Return the cores and GPUs of one actor: equal shares that fit into the largest machine."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = sum(machine.get("CPU", 0) for machine in machines)
    largest = max((machine.get("CPU", 0) for machine in machines), default=0)
    present = sum(machine.get("GPU", 0) for machine in machines)
    if cores < 1 or present < gpus:
        raise ConfigError(
            f"the Ray cluster has {cores:g} cores and {present:g} GPUs, and 1 core or more and "
            f"{gpus} GPUs are needed"
        )
    share = max(1, int(min(cores // benches, largest)))
    return {"num_cpus": share, "num_gpus": gpus / benches}


class _Actor:
    """A bench in a process of Ray's."""

    def __init__(self) -> None:
        self._bench: Bench | None = None

    def begin(self, make_worker: MakeWorker) -> Ready | Stopped:
        self._bench, answer = begin(make_worker)
        return answer

    def do(self, order: Order) -> Answer:
        assert self._bench is not None
        return self._bench.do(order)


class _RayCrew:
    def __init__(self, ray: ModuleType, make_worker: MakeWorker, share: dict[str, float]) -> None:
        self._ray = ray
        self._make_worker = ray.put(make_worker)
        # What is lost is asked for by `run`, of a fresh actor: Ray itself repeats nothing. It sets
        # OMP_NUM_THREADS to an actor's cores.
        self._class = ray.remote(_Actor).options(**share, max_restarts=0, max_task_retries=0)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, int] = {}

    def start(self, bench: int) -> None:
        self._end(bench)
        self._actors[bench] = actor = self._class.remote()
        self._asked[actor.begin.remote(self._make_worker)] = bench

    def give(self, bench: int, order: Order) -> None:
        self._asked[self._actors[bench].do.remote(order)] = bench

    def answer(self) -> tuple[int, Answer]:
        (reference, *_), _ = self._ray.wait(list(self._asked), num_returns=1)
        bench = self._asked.pop(reference)
        try:
            return bench, self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            # A bench answers all that its worker raises, so this is on the way there: a module
            # that the machine lacks.
            return bench, Stopped(RuntimeError(f"a Ray actor cannot work: {error}"))
        except self._ray.exceptions.RayError as error:
            return bench, Died(f"its actor died: {error}")

    def _end(self, bench: int) -> None:
        if (actor := self._actors.pop(bench, None)) is not None:
            self._ray.kill(actor)
            self._asked = {each: other for each, other in self._asked.items() if other != bench}

    def close(self) -> None:
        for bench in list(self._actors):
            self._end(bench)
