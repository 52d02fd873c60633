"""Many clients at once, clients that leave, too many clients, and the end of the server."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from server_cases import EXAMPLES, asked_of, base64_of, is_up, listening, same, until

from kosmos2.api import Kosmos2
from kosmos2.server import Limits, create_app
from kosmos2.server.desk import Desk, Ticket
from kosmos2.server.problems import ProblemError

ROOT = Path(__file__).parents[2]


def test_many_clients_with_mixed_tasks_all_get_the_offline_answers(served: Kosmos2) -> None:
    cases = [(path, kind) for path in EXAMPLES[:4] for kind in range(5)] * 2
    random.Random(0).shuffle(cases)
    wanted = {case: asked_of(served, *case) for case in set(cases)}
    app = create_app(served, Limits())
    with listening(app) as address, httpx.Client(base_url=address, timeout=120) as client:

        def put(case: tuple[Path, int]) -> bool:
            name, body, replies = wanted[case]
            sent = client.post(f"/v1/{name}", json={"image": base64_of(case[0]), **body})
            assert sent.status_code == 200, sent.text
            return same(sent.json()["results"], replies)

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(put, cases))
        assert app.state.desk.live == 0
    assert served.engine.scheduler.num_live == 0


def test_a_client_that_leaves_frees_its_rows(
    served: Kosmos2, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(served, monkeypatch, 0.05)
    app = create_app(served, Limits())
    body = {"image": base64_of(EXAMPLES[0]), "detail": True}
    with listening(app) as address:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{address}/v1/caption", json=body, timeout=0.3)
        until(lambda: app.state.desk.live == 0)
    assert served.engine.scheduler.num_live == 0


def test_an_answer_that_takes_too_long_is_given_up(
    served: Kosmos2, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(served, monkeypatch, 0.1)
    with listening(create_app(served, Limits(seconds=0.3))) as address:
        body = {"image": base64_of(EXAMPLES[0]), "detail": True}
        sent = httpx.post(f"{address}/v1/caption", json=body, timeout=60)
    assert sent.status_code == 503 and "longer" in sent.json()["detail"]
    assert int(sent.headers["retry-after"]) > 0
    assert served.engine.scheduler.num_live == 0


def test_one_client_or_one_request_too_many_is_refused_and_nobody_else() -> None:
    async def scene() -> None:
        desk = Desk(Limits(max_waiting=3, max_per_client=2))
        async with desk.let_in("a"), desk.let_in("a"):
            assert await refusal(desk, "a") == 429
            async with desk.let_in("b"):
                assert await refusal(desk, "c") == 503
            assert desk.live == 2
        assert desk.live == 0
        async with desk.let_in("a"):
            pass
        desk.draining = True
        assert await refusal(desk, "a") == 503

    asyncio.run(scene())


async def refusal(desk: Desk, client: str) -> int:
    with pytest.raises(ProblemError) as caught:
        async with desk.let_in(client):
            pass
    assert int(caught.value.headers["Retry-After"]) > 0
    return int(caught.value.status)


def test_a_stream_that_is_left_ends_its_thread() -> None:
    ended = threading.Event()

    def forever() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.01)
                yield 1
        finally:
            ended.set()

    async def scene() -> None:
        desk = Desk(Limits())
        stream = desk.stream(Ticket(deadline=time.monotonic() + 60), forever)  # type: ignore[arg-type]
        assert await anext(stream) == 1
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(scene())
    assert ended.is_set()


def test_a_server_that_is_told_to_end_answers_first(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "kosmos2", "serve", "--port", str(port), "--dtype", "fp32"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, *words], env=environment, cwd=tmp_path) as server:
        address = f"http://127.0.0.1:{port}"
        until(lambda: is_up(address), 120)
        body = {"image": base64_of(EXAMPLES[0]), "phrases": [f"a {n}" for n in range(32)]}
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(httpx.post, f"{address}/v1/find", json=body, timeout=120)
            until(lambda: "live_requests 1" in httpx.get(f"{address}/metrics").text)
            server.send_signal(signal.SIGTERM)
            assert coming.result().status_code == 200
        server.wait(60)
    assert not is_up(address)


def slow_down(model: Kosmos2, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Make every step of the engine take at least so long."""
    turns, step = model.engine._turns, model.engine.scheduler.step

    def slow() -> None:
        time.sleep(seconds)
        step()

    monkeypatch.setattr(turns, "_step", slow)
