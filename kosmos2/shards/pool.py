"""Units done by processes of this machine, each with its own worker.

Plain processes and pipes: `multiprocessing.Pool` hangs when a worker is killed, and a
`ProcessPoolExecutor` then loses all its workers and what they had. Here one death is one unit's.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from kosmos2.errors import ConfigError
from kosmos2.shards.bench import Answer, Crew, Died, MakeWorker, Order, begin


@dataclass(frozen=True, slots=True)
class Pool:
    """So many processes on this machine, which share its cores and `gpus` of its GPUs."""

    workers: int
    gpus: int = 0

    @contextmanager
    def crew(self, make_worker: MakeWorker, benches: int) -> Iterator[Crew]:
        """Return the benches; no process is left when this ends, however it ends."""
        threads = max(1, allowed_cores() // benches)
        crew = _PoolCrew(make_worker, threads, visible_gpus(self.gpus))
        try:
            yield crew
        finally:
            crew.close()


def allowed_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(count: int) -> list[str]:
    """Return the first `count` of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES does."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if named is None else named.split(",")
    if len(names) < count:
        raise ConfigError(f"{count} GPUs are asked for, and CUDA_VISIBLE_DEVICES is {named!r}")
    return names[:count]


@dataclass(slots=True)
class _Bench:
    process: SpawnProcess
    pipe: Connection


class _PoolCrew:
    def __init__(self, make_worker: MakeWorker, threads: int, gpus: list[str]) -> None:
        self._make_worker = make_worker
        self._threads = threads
        self._gpus = gpus
        self._benches: dict[int, _Bench] = {}

    def start(self, bench: int) -> None:
        self._end(bench)
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(
            target=_serve, args=(theirs, self._make_worker), name=f"worker {bench}"
        )
        settings = {"OMP_NUM_THREADS": str(self._threads)}
        if self._gpus:
            settings["CUDA_VISIBLE_DEVICES"] = self._gpus[bench % len(self._gpus)]
        with _environment(settings):
            process.start()
        theirs.close()
        self._benches[bench] = _Bench(process, ours)

    def give(self, bench: int, order: Order) -> None:
        # A dead process is noticed in `answer`.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._benches[bench].pipe.send(order)

    def answer(self) -> tuple[int, Answer]:
        pipes = {bench.pipe: number for number, bench in self._benches.items()}
        ready = connection.wait(list(pipes))[0]
        assert isinstance(ready, Connection)
        number = pipes[ready]
        try:
            answer: Answer = ready.recv()
        except (EOFError, OSError):
            process = self._benches[number].process
            process.join()
            death = _death(process.exitcode)
            self._end(number)
            return number, Died(death)
        return number, answer

    def _end(self, bench: int) -> None:
        if (old := self._benches.pop(bench, None)) is not None:
            old.process.kill()
            old.pipe.close()
            old.process.join()
            old.process.close()

    def close(self) -> None:
        for bench in list(self._benches):
            self._end(bench)


def _death(status: int | None) -> str:
    if status is not None and status < 0:
        return f"its process was killed by signal {-status} ({signal.Signals(-status).name})"
    return f"its process ended with status {status}"


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Let a process that is started here see the settings: libraries read them when they load."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, make_worker: MakeWorker) -> None:
    """Run in a process of its own: make the worker, then do orders until nobody asks."""
    # Ctrl-C goes to all processes of the terminal; the run decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bench, answer = begin(make_worker)
    # Without the run at the other end there is nothing to do.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(answer)
        while bench is not None:
            order: Order = pipe.recv()
            pipe.send(bench.do(order))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
