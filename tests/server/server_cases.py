"""A server for tests: in this process for most, on a port for clients that need one."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from kosmos2.api import Kosmos2
from kosmos2.boxes import Box

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.jpg"))


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def asked_of(model: Kosmos2, path: Path, kind: int) -> tuple[str, dict[str, Any], list[Any]]:
    """Return a path, a body without picture, and the replies that the model gives offline."""
    view = model.look(path)
    box = [0.1, 0.2, 0.7, 0.8]
    match kind % 5:
        case 0:
            return "caption", {}, [view.caption()]
        case 1:
            return "find", {"phrases": ["a tree", "a dog"]}, view.find_each(["a tree", "a dog"])
        case 2:
            body = {"boxes": [box], "unit": "normalised"}
            return "describe", body, [view.describe(Box(*box))]
        case 3:
            question = "What color is the tree?"
            return "ask", {"question": question}, [view.ask(question)]
        case _:
            text = "a dog next to a tree"
            body = {"caption": text, "phrases": ["a dog", "a tree"]}
            return "ground", body, [view.ground_phrases(text, ((0, 5), (14, 20)))]


def same(results: list[dict[str, Any]], replies: list[Any]) -> bool:
    """Return whether a server's results are the offline replies.

    Scores may differ in their last digits: a product of eight rows rounds otherwise than of one.
    """
    for result, reply in zip(results, replies, strict=True):
        boxes = [box for phrase in result["phrases"] for box in phrase["boxes"]]
        phrases = reply.phrases
        scores = [score for each in phrases for score in each.scores or [None] * len(each.boxes)]
        if not (
            (result["text"], result["markup"]) == (reply.text, reply.trace.markup)
            and [box["normalised"] for box in boxes]
            == [list(box.corners) for each in phrases for box in each.boxes]
            and [box["score"] for box in boxes] == pytest.approx(scores, abs=1e-4)
        ):
            return False
    return True


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """Serve the application on a free port; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


def is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ready").status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)
