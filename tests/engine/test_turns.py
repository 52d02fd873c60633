"""Threads that share one loop: everybody is served, nobody is stuck, nothing runs twice at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kosmos2.engine.turns import Turns


class Work:
    """Jobs that need some steps each; all that are there move at every step."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.most = 0
        self.inside = 0
        self.fail = False

    def step(self) -> None:
        self.inside += 1
        assert self.inside == 1, "two steps at a time"
        self.most = max(self.most, sum(left > 0 for left in self.left.values()))
        time.sleep(0.0005)
        for job in self.left:
            self.left[job] -= 1
        self.inside -= 1
        if self.fail:
            raise ZeroDivisionError("a step that fails")

    def is_done(self, job: int) -> Callable[[], bool]:
        return lambda: self.left[job] <= 0

    def add(self, job: int, steps: int) -> Callable[[], None]:
        def act() -> None:
            assert self.inside == 0, "a call in the middle of a step"
            self.left = {**self.left, job: steps}

        return act


def test_many_threads_with_many_jobs_all_end_and_their_jobs_run_together() -> None:
    work = Work()
    turns = Turns(work.step)

    def client(number: int) -> int:
        draw = random.Random(number)
        for each in range(8):
            job = number * 100 + each
            turns.call(work.add(job, draw.randint(1, 9)))
            turns.wait_for(work.is_done(job))
            assert work.left[job] <= 0
        return number

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(client, range(12), timeout=60)) == list(range(12))
    assert work.most > 4


def test_a_new_job_joins_while_another_thread_leads() -> None:
    work = Work()
    turns = Turns(work.step)
    turns.call(work.add(1, 400))
    leader = threading.Thread(target=turns.wait_for, args=(work.is_done(1),))
    leader.start()
    turns.call(work.add(2, 3))
    turns.wait_for(work.is_done(2))
    assert work.left[1] > 0
    leader.join(60)
    assert not leader.is_alive()


def test_an_error_of_a_step_ends_its_leader_alone_and_another_leads_on() -> None:
    work = Work()
    turns = Turns(work.step)
    for job in range(3):
        turns.call(work.add(job, 50))
    work.fail = True
    ends: list[str] = []

    def client(job: int) -> None:
        try:
            turns.wait_for(work.is_done(job))
            ends.append("done")
        except ZeroDivisionError:
            work.fail = False
            ends.append("failed")

    threads = [threading.Thread(target=client, args=(job,)) for job in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["done", "done", "failed"]


def test_who_is_not_wanted_any_more_leaves_and_the_rest_go_on() -> None:
    work = Work()
    turns = Turns(work.step)
    turns.call(work.add(0, 10**9))
    turns.call(work.add(1, 60))
    gone = threading.Event()
    ended = []

    def client(job: int, done: Callable[[], bool]) -> None:
        turns.wait_for(done)
        ended.append(job)

    forever = threading.Thread(target=client, args=(0, gone.is_set))
    brief = threading.Thread(target=client, args=(1, work.is_done(1)))
    forever.start()
    brief.start()
    brief.join(60)
    assert ended == [1]
    gone.set()
    forever.join(60)
    assert ended == [1, 0]


def test_a_call_raises_in_the_thread_that_made_it_and_within_a_step_runs_at_once() -> None:
    seen: list[str] = []

    def step() -> None:
        turns.post(lambda: seen.append("posted in a step"))
        assert turns.call(lambda: "at once") == "at once"
        seen.append("step")

    turns = Turns(step)
    with pytest.raises(ZeroDivisionError):
        turns.call(lambda: 1 // 0)
    turns.post(lambda: 1 // 0)  # nobody waits for it, so nobody hears of it
    turns.wait_for(lambda: len(seen) == 2)
    assert seen == ["step", "posted in a step"]
    turns.post(lambda: seen.append("posted"))
    assert seen[-1] == "posted"


def test_an_employed_thread_leads_alone_and_its_errors_reach_those_who_wait() -> None:
    leaders = set()
    work = Work()

    def step() -> None:
        leaders.add(threading.current_thread().name)
        work.step()

    turns = Turns(step)
    turns.call(work.add(0, 3))
    with turns.employed(), turns.employed():

        def client(job: int) -> int:
            turns.call(work.add(job, job))
            turns.wait_for(work.is_done(job))
            return turns.call(lambda: job)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(client, range(1, 30), timeout=60)) == list(range(1, 30))
        assert leaders == {"engine"}
        turns.call(work.add(99, 10**9))
        work.fail = True
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                turns.wait_for(work.is_done(99))
        with pytest.raises(KeyError):
            turns.call(lambda: {}[0])  # type: ignore[index]
        work.fail = False
    turns.call(work.add(100, 3))
    turns.wait_for(work.is_done(100))
    assert threading.current_thread().name in leaders
