"""Where requests wait, are worked at and are given up.

The engine computes in threads that share its loop (`engine.turns`), so each request that is let in
has one; how many are let in is bounded, and who goes away or takes too long frees its rows.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

from kosmos2.server.limits import Limits
from kosmos2.server.problems import ProblemError

T = TypeVar("T")

LOOK = 0.25
"""Seconds between two looks whether a client is still there."""
RETRY = 2
"""Seconds after which a client that found us busy may come again."""

IsGone = Callable[[], Awaitable[bool]]


@dataclass(slots=True)
class Ticket:
    """A request that was let in. Threads ask it whether to go on."""

    deadline: float
    arrived: float = field(default_factory=time.monotonic)
    begun: float = 0.0
    gone: bool = False

    def wanted(self) -> bool:
        return not self.gone and time.monotonic() < self.deadline

    def check(self) -> None:
        """Raise where nobody waits for an answer any more, or not long enough for one."""
        if self.gone:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the client went away")
        if time.monotonic() >= self.deadline:
            raise _too_late()

    @property
    def seconds_waited(self) -> float:
        return self.begun - self.arrived


class Desk:
    """Lets requests in and runs their work in threads."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self._clients: Counter[str] = Counter()
        self._pool = self._open()

    def _open(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.limits.max_waiting, thread_name_prefix="request")

    def open(self) -> None:
        """Let requests in (again)."""
        if self.draining:
            self._pool = self._open()
            self.draining = False

    @property
    def live(self) -> int:
        """Return how many requests are worked at or wait."""
        return self._clients.total()

    @asynccontextmanager
    async def let_in(self, client: str) -> AsyncIterator[Ticket]:
        """Give a request a ticket, or refuse it: 429, 503."""
        if self.draining:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is going down", RETRY)
        if self.live >= self.limits.max_waiting:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.live} requests are waiting already, which is the most; come again",
                RETRY,
            )
        if self._clients[client] >= self.limits.max_per_client:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"this client has {self._clients[client]} requests waiting, which is the most",
                RETRY,
            )
        self._clients[client] += 1
        try:
            yield Ticket(deadline=time.monotonic() + self.limits.seconds)
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def run(self, ticket: Ticket, is_gone: IsGone, work: Callable[[], T]) -> T:
        """Return what `work` returns, run in a thread; tell the ticket when the client goes."""

        def begin() -> T:
            ticket.begun = time.monotonic()
            ticket.check()
            return work()

        working = asyncio.get_running_loop().run_in_executor(self._pool, begin)
        try:
            while not (await asyncio.wait({working}, timeout=LOOK))[0]:
                ticket.gone = ticket.gone or await is_gone()
            return working.result()
        except BaseException:
            was_late = time.monotonic() >= ticket.deadline
            ticket.gone = True
            await asyncio.wait({working})
            if was_late and working.exception() is not None:
                raise _too_late() from None
            raise

    async def stream(
        self, ticket: Ticket, work: Callable[[], Generator[T, None, object]]
    ) -> AsyncIterator[T]:
        """Yield what a generator yields, which runs in a thread; closing it closes that one."""
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[tuple[T | None, BaseException | None]] = asyncio.Queue()

        def tell(piece: T | None, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(told.put_nowait, (piece, error))

        def begin() -> None:
            pieces = None
            try:
                ticket.begun = time.monotonic()
                pieces = work()
                for piece in pieces:
                    ticket.check()
                    tell(piece, None)
                tell(None, StopAsyncIteration())
            except BaseException as error:
                tell(None, error)
            finally:
                if pieces is not None:
                    pieces.close()

        working = loop.run_in_executor(self._pool, begin)
        try:
            while True:
                piece, error = await told.get()
                if isinstance(error, StopAsyncIteration):
                    return
                if error is not None:
                    raise error
                assert piece is not None
                yield piece
        finally:
            ticket.gone = True
            await asyncio.wait({working})

    async def drain(self) -> None:
        """Let nobody in any more, and wait for those who are."""
        self.draining = True
        while self.live:
            await asyncio.sleep(0.05)
        self._pool.shutdown(wait=False, cancel_futures=True)


def _too_late() -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, "the answer took longer than a request may take", RETRY
    )
