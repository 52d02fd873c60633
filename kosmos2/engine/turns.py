"""Threads that share one loop: one of them leads it, the others wait until it has come to them.

A lock alone would not do: who gives it back and wants it again at once mostly gets it, so a thread
with a new request could wait until all the others are answered, and rows would never run together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Waiter:
    done: Callable[[], bool]
    hears_errors: bool
    """Of steps: it waits for what they bring."""
    woken: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Turns:
    """Calls `step` again and again for as long as some thread waits for what steps bring."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._step = step
        self._gate = threading.RLock()
        self._leader: int | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._waiting: deque[_Waiter] = deque()
        self._employers = 0
        self._bell = threading.Event()

    def call(self, act: Callable[[], T]) -> T:
        """Return what `act` returns; it runs between two steps."""
        if self._leader == threading.get_ident():
            return act()
        result: Future[T] = Future()
        self._calls.append((act, result))
        self._wait_for(result.done, hears_errors=False)
        return result.result()

    def post(self, act: Callable[[], object]) -> None:
        """Have `act` run between two steps, by whoever leads then; never waits.

        The garbage collector may close a stream, and come here, in any thread at any point.
        """
        self._calls.append((act, Future()))
        self._bell.set()
        with self._gate:
            is_free = self._leader is None
        if is_free:
            self._wait_for(lambda: not self._calls, hears_errors=False)

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Return when `done()`; until then lead, or wait for who does.

        `done` is asked after every step, in the thread that leads. An error of a step is raised in
        that thread; where a thread is employed to lead, in those that wait for steps.
        """
        self._wait_for(done, hears_errors=True)

    @property
    def is_employed(self) -> bool:
        """Whether a thread of its own leads."""
        return self._employers > 0

    @contextmanager
    def employed(self, threads: int | None = None) -> Iterator[None]:
        """Have a thread of its own lead meanwhile: one team of processor threads for all callers.

        Each thread that computes has a team of its own, and many teams get in each other's way.
        `threads`: of the team, itself among them; None is as many as torch gives any thread.
        """
        with self._gate:
            self._employers += 1
            is_first = self._employers == 1
        if is_first:
            threading.Thread(
                target=self._lead_on, args=(threads,), name="engine", daemon=True
            ).start()
        try:
            yield
        finally:
            with self._gate:
                self._employers -= 1
            self._bell.set()

    def _lead_on(self, threads: int | None) -> None:
        """Lead for as long as anybody employs."""
        usual = torch.get_num_threads()
        self._take_lead()
        torch.set_num_threads(threads or usual)  # of this thread, and of those that begin later
        try:
            while self._employers:
                self._run_calls()
                self._wake_done()
                if not self._waiting:
                    self._bell.wait()
                    self._bell.clear()
                    continue
                try:
                    self._step()
                except Exception as error:
                    self._tell(error)
        finally:
            torch.set_num_threads(usual)
            self._hand_over()

    def _take_lead(self) -> None:
        while True:
            with self._gate:
                if self._leader is None:
                    self._leader = threading.get_ident()
                    return
                waiter = _Waiter(lambda: False, hears_errors=False)
                self._waiting.append(waiter)
            waiter.woken.wait()

    def _wait_for(self, done: Callable[[], bool], *, hears_errors: bool) -> None:
        while not self._lead_or_wait(_Waiter(done, hears_errors)):
            pass

    def _lead_or_wait(self, waiter: _Waiter) -> bool:
        """Return whether it is done."""
        with self._gate:
            if waiter.done():
                self._wake_a_leader()
                return True
            leads = self._leader is None
            if leads:
                self._leader = threading.get_ident()
            else:
                self._waiting.append(waiter)
        if not leads:
            self._bell.set()
            self._wait(waiter)
            return False
        try:
            self._run_calls()
            while not waiter.done():
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

    def _wait(self, waiter: _Waiter) -> None:
        try:
            waiter.woken.wait()
        except BaseException:
            with self._gate:
                self._waiting = deque(each for each in self._waiting if each is not waiter)
                self._wake_a_leader()
            raise
        if waiter.error is not None:
            raise waiter.error

    def _wake_done(self) -> None:
        """Let those go whose work is done."""
        self._let_go(lambda waiter: waiter.done())

    def _tell(self, error: Exception) -> None:
        """Raise an error of a step in the threads that wait for steps."""

        def hears(waiter: _Waiter) -> bool:
            waiter.error = error if waiter.hears_errors else None
            return waiter.hears_errors

        self._let_go(hears)

    def _let_go(self, chosen: Callable[[_Waiter], bool]) -> None:
        with self._gate:
            for _ in range(len(self._waiting)):
                waiter = self._waiting.popleft()
                if chosen(waiter):
                    waiter.woken.set()
                else:
                    self._waiting.append(waiter)

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
            self._waiting.popleft().woken.set()
