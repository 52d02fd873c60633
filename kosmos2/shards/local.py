"""Units done in this process, one after the other, while a thread prepares the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kosmos2.shards.bench import Answer, Bench, Crew, MakeWorker, Order, begin


@dataclass(frozen=True, slots=True)
class Local:
    """This process. A unit that kills its process ends the run."""

    @property
    def workers(self) -> int:
        """One."""
        return 1

    @contextmanager
    def crew(self, make_worker: MakeWorker, benches: int) -> Iterator[Crew]:
        """Return the one bench; its work is done when its answer is asked for."""
        assert benches == 1
        crew = _LocalCrew(make_worker)
        try:
            yield crew
        finally:
            crew.close()


class _LocalCrew:
    def __init__(self, make_worker: MakeWorker) -> None:
        self._make_worker = make_worker
        self._bench: Bench | None = None
        self._order: Order | None = None

    def start(self, bench: int) -> None:
        # The old worker goes before the new one is made: there may be no room for two models.
        self.close()
        self._order = None

    def give(self, bench: int, order: Order) -> None:
        self._order = order

    def answer(self) -> tuple[int, Answer]:
        if self._order is None:
            self._bench, answer = begin(self._make_worker)
            return 0, answer
        assert self._bench is not None
        order, self._order = self._order, None
        return 0, self._bench.do(order)

    def close(self) -> None:
        if self._bench is not None:
            self._bench.close()
        self._bench = None
