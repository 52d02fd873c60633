"""Threads that share one loop: one of them leads it, the others wait until it has come to them.

A lock alone would not do: who gives it back and wants it again at once mostly gets it, so a thread
with a new request could wait until all the others are answered, and rows would never run together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Turns:
    """Calls `step` again and again for as long as some thread waits for what steps bring."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step
        self._gate = threading.RLock()
        self._leader: int | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[tuple[Callable[[], bool], threading.Event]] = deque()

    def call(self, act: Callable[[], T]) -> T:
        """Return what `act` returns; it runs between two steps."""
        if self._leader == threading.get_ident():
            return act()
        result: Future[T] = Future()
        self._calls.append((act, result))
        self.wait_for(result.done)
        return result.result()

    def post(self, act: Callable[[], object]) -> None:
        """Have `act` run between two steps, by whoever leads then; never waits.

        The garbage collector may close a stream, and come here, in any thread at any point.
        """
        self._calls.append((act, Future()))
        with self._gate:
            is_free = self._leader is None
        if is_free:
            self.wait_for(lambda: not self._calls)

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Return when `done()`; until then lead, or wait for who does.

        `done` is asked after every step, in the thread that leads. An error of a step is raised in
        that thread.
        """
        while not self._lead_or_wait(done):
            pass

    def _lead_or_wait(self, done: Callable[[], bool]) -> bool:
        """Return whether it is done."""
        with self._gate:
            if done():
                self._wake_a_leader()
                return True
            leads = self._leader is None
            if leads:
                self._leader = threading.get_ident()
            else:
                woken = threading.Event()
                self._waiting.append((done, woken))
        if not leads:
            self._wait(woken)
            return False
        try:
            self._run_calls()
            while not done():
                self._step()
                self._run_calls()
                self._wake_done()
        finally:
            self._hand_over()
        return True

    def _run_calls(self) -> None:
        while self._calls:
            act, result = self._calls.popleft()
            try:
                result.set_result(act())
            except BaseException as error:
                result.set_exception(error)
                if not isinstance(error, Exception):
                    raise  # somebody wants this thread to end

    def _wait(self, woken: threading.Event) -> None:
        try:
            woken.wait()
        except BaseException:
            with self._gate:
                self._waiting = deque(each for each in self._waiting if each[1] is not woken)
                self._wake_a_leader()
            raise

    def _wake_done(self) -> None:
        """Let those go whose work is done."""
        with self._gate:
            for _ in range(len(self._waiting)):
                done, woken = self._waiting.popleft()
                if done():
                    woken.set()
                else:
                    self._waiting.append((done, woken))

    def _hand_over(self) -> None:
        """Do what nobody else would do now, and let the longest waiting thread lead."""
        with self._gate:
            try:
                self._run_calls()
            finally:
                self._leader = None
                self._wake_done()
                self._wake_a_leader()

    def _wake_a_leader(self) -> None:
        """Where nobody leads, wake one that waits: it leads, or comes here in its turn."""
        if self._leader is None and self._waiting:
            self._waiting.popleft()[1].set()
