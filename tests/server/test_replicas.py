"""Two replicas of the model behind one address: the same answers, keys, limits and end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from server_cases import EXAMPLES, asked_of, base64_of, is_up, same, until
from typer.testing import CliRunner

from kosmos2.api import Kosmos2
from kosmos2.cli import app
from kosmos2.errors import ConfigError
from kosmos2.server.replicas import Plan

ROOT = Path(__file__).parents[2]
KEY = {"X-API-Key": "right"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--replicas", "2", "--port", str(port), "--dtype", "fp32"]
    words += ["--api-key", "right", "--max-mb", "1", "--max-new-tokens", "100"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "kosmos2", *words], env=environment, cwd=tmp_path
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            until(lambda: is_up(address) or process.poll() is not None, 600)
            yield address, process
        finally:
            process.terminate()
            process.wait(120)


@pytest.mark.slow
def test_two_replicas_answer_as_one_does_keep_the_limits_and_end_when_all_are_answered(
    server: tuple[str, subprocess.Popen[bytes]], served: Kosmos2
) -> None:
    address, process = server
    cases = [(path, kind) for path in EXAMPLES[:2] for kind in range(5)] * 2
    wanted = {case: asked_of(served, *case) for case in set(cases)}
    with httpx.Client(base_url=address, timeout=300) as client:
        assert client.get("/v1/models").status_code == 401
        huge = client.post("/v1/caption", json={"image": "A" * (2 << 20)}, headers=KEY)
        assert huge.status_code == 413
        long = {"image": base64_of(EXAMPLES[0]), "decoding": {"max_new_tokens": 101}}
        assert client.post("/v1/caption", json=long, headers=KEY).status_code == 422

        def put(case: tuple[Path, int]) -> bool:
            name, body, replies = wanted[case]
            body = {"image": base64_of(case[0]), **body}
            sent = client.post(f"/v1/{name}", json=body, headers=KEY)
            assert sent.status_code == 200, sent.text
            return same(sent.json()["results"], replies)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(put, cases))

        def metrics(_: int) -> str:
            return client.get("/metrics", headers=KEY).text

        def answered(text: str) -> int:
            counts = re.findall(r'_total{path="/v1/\w+",status="200"} (\d+)', text)
            return sum(map(int, counts))

        counts = {answered(metrics(number)) for number in range(30)}
        assert len(counts) == 2 and sum(counts) == len(cases)

        body = {"image": base64_of(EXAMPLES[0]), "phrases": [f"a {n}" for n in range(32)]}
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(client.post, "/v1/find", json=body, headers=KEY)
            until(lambda: any("live_requests 1" in metrics(number) for number in range(4)))
            process.send_signal(signal.SIGTERM)
            assert coming.result().status_code == 200
    assert process.wait(120) == 0
    assert not is_up(address)


def test_replicas_need_a_port_by_number() -> None:
    with pytest.raises(ConfigError, match="port"):
        Plan(count=2, host="127.0.0.1", port=0, environment={})


def test_a_model_that_is_not_there_is_said_before_ray_starts() -> None:
    told = CliRunner().invoke(app, ["serve", "--replicas", "2", "--model", "no/such/folder/here"])
    assert told.exit_code == 2
