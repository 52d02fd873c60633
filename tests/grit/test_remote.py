import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image, ImageChops

from kosmos2.boxes import Box
from kosmos2.errors import ConfigError, RequestError
from kosmos2.grit.detect import load
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Detection
from kosmos2.grit.remote import LONGEST_WAIT, MOST_BYTES, PROTOCOL, Remote

HELLO = {
    "protocol": PROTOCOL,
    "identity": {"detector": "glip", "weights": "sha256:00"},
    "score": "of GLIP",
}
Answer = tuple[int, dict[str, str], bytes]


def ok(answer: Any) -> Answer:
    return 200, {}, json.dumps(answer).encode()


class Server:
    """A detector on this machine; `answers` is asked for each POST with its number."""

    def __init__(self) -> None:
        self.hello: Answer = ok(HELLO)
        self.answer: Callable[[int, Any], Answer | None] = lambda _, asked: ok(
            {"boxes": [[n, 0.25, 0.5, 0.5, 1.0, 0.5] for n in range(len(asked["spans"]))]}
        )
        self.asked: list[Any] = []
        lock, told = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(told.hello)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    told.asked.append(body)
                    number = len(told.asked) - 1
                self._send(told.answer(number, body))

            def _send(self, answer: Answer | None) -> None:
                if answer is None:
                    return  # hangs up without a word
                status, headers, data = answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/detect"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    one = Server()
    thread = threading.Thread(target=one.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield one
    one.http.shutdown()
    one.http.server_close()
    thread.join()


def settings(server: Server, **changes: Any) -> Detection:
    return Detection(**{"name": "remote", "url": server.url, "timeout": 10.0, **changes})


def remote(server: Server, **changes: Any) -> tuple[Remote, list[float]]:
    """Return the detector, and the waits that it would have made."""
    waits: list[float] = []
    return Remote(settings(server, **changes), waits.append), waits


def ask(name: str = "one", caption: str = "🐕 A dog on a rug") -> Asked:
    image = Image.effect_noise((40, 30), 80).convert("RGB")
    return Asked(id=name, image=image, caption=caption, spans=((2, 7), (11, 16)))


def test_a_question_carries_the_picture_without_loss_the_caption_and_the_spans(
    server: Server,
) -> None:
    one, _ = remote(server)
    asked = ask()
    assert one.detect([asked]) == [
        [
            Candidate(phrase=0, box=Box(0.25, 0.5, 0.5, 1.0), score=0.5),
            Candidate(phrase=1, box=Box(0.25, 0.5, 0.5, 1.0), score=0.5),
        ]
    ]
    (body,) = server.asked
    assert {key: body[key] for key in ("protocol", "caption", "spans")} == {
        "protocol": "kosmos2-detect/1",
        "caption": "🐕 A dog on a rug",
        "spans": [[2, 7], [11, 16]],
    }
    sent = Image.open(io.BytesIO(base64.b64decode(body["image"])))
    assert ImageChops.difference(sent, asked.image).getbbox() is None


def test_the_detector_says_itself_what_it_is(server: Server) -> None:
    one = load(settings(server))
    assert one.identity == {
        "detector": "remote",
        "remote.detector": "glip",
        "remote.weights": "sha256:00",
    }
    assert one.score == "of GLIP"


def test_many_are_asked_at_a_time_and_answers_keep_their_order(server: Server) -> None:
    together = threading.Barrier(4, timeout=10)

    def answer(_: int, asked: Any) -> Answer:
        together.wait()
        return ok({"boxes": [[0, 0, 0, 1, 1, int(asked["caption"]) / 100]]})

    server.answer = answer
    one, _ = remote(server, batch_size=4)
    found = one.detect([ask(caption=f"{number:016}") for number in range(8)])
    assert [each[0].score for each in found if isinstance(each, list)] == [
        number / 100 for number in range(8)
    ]


def test_the_detectors_reason_refuses_the_pair(server: Server) -> None:
    server.answer = lambda *_: ok({"refused": "too\nlong"})
    assert remote(server)[0].detect([ask()]) == [Refused("too\\nlong")]


@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_a_failure_that_may_pass_is_asked_again_later_and_later(
    server: Server, status: int | None
) -> None:
    good = ok({"boxes": []})
    server.answer = lambda number, _: (
        good if number == 3 else None if status is None else (status, {}, b"busy")
    )
    one, waits = remote(server)
    assert one.detect([ask()]) == [[]]
    assert len(server.asked) == 4 and waits == [0.5, 1.0, 2.0]


def test_retry_after_is_honoured_within_reason(server: Server) -> None:
    server.answer = lambda number, _: (
        ok({"boxes": []})
        if number == 2
        else (503, {"Retry-After": "7" if number else "86400"}, b"")
    )
    one, waits = remote(server)
    one.detect([ask()])
    assert waits == [LONGEST_WAIT, 7.0]


def test_a_failure_that_does_not_pass_ends_the_run_with_its_reason(server: Server) -> None:
    server.answer = lambda *_: (500, {}, b"out of memory")
    one, waits = remote(server, retries=2)
    with pytest.raises(RequestError, match=r"failed 3 times.*status 500"):
        one.detect([ask()])
    assert len(waits) == 2


@pytest.mark.parametrize("status", [400, 404, 413])
def test_other_refusals_are_not_repeated_and_are_quoted(server: Server, status: int) -> None:
    server.answer = lambda *_: (status, {}, b"the picture is too large")
    one, waits = remote(server)
    with pytest.raises(RequestError, match=rf"status {status}.*the picture is too large"):
        one.detect([ask()])
    assert not waits and len(server.asked) == 1


def test_a_redirect_is_not_followed_but_named(server: Server) -> None:
    server.answer = lambda *_: (302, {"Location": "http://elsewhere/"}, b"")
    with pytest.raises(RequestError, match="elsewhere"):
        remote(server)[0].detect([ask()])


def test_an_answer_that_does_not_come_in_time_is_a_failure(server: Server) -> None:
    wait = threading.Event()

    def answer(*_: Any) -> Answer:
        wait.wait(20)
        return ok({"boxes": []})

    server.answer = answer
    one, _ = remote(server, timeout=0.2, retries=0)
    with pytest.raises(RequestError, match="timed out"):
        one.detect([ask()])
    wait.set()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"boxes": [[2, 0, 0, 1, 1, 0.5]]}, "spans 0 to 1"),
        ({"boxes": [[0, 0, 0, 1, 1, 1.5]]}, "score"),
        ({"boxes": [[0, 10, 20, 300, 400, 0.5]]}, "pixels"),
        ({"boxes": [[0, 0, 0, 1, 0.5]]}, "no answer"),
        ({"boxes": [[0, 0, 0, 1, 1, float("nan")]]}, "score"),
        ({"boxes": [[0, 0, 0, 1, "x", 0.5]]}, "x"),
        ({"boxes": None}, "no answer"),
        ({"box": []}, "neither boxes nor refused"),
        ([], "an object"),
    ],
)
def test_an_answer_of_another_kind_is_named(server: Server, answer: Any, says: str) -> None:
    server.answer = lambda *_: ok(answer)
    with pytest.raises(RequestError, match=says):
        remote(server)[0].detect([ask()])


def test_what_is_no_json_is_named_and_too_much_is_not_read(server: Server) -> None:
    server.answer = lambda *_: (200, {}, b"<html>hello")
    one, _ = remote(server)
    with pytest.raises(RequestError, match="<html>hello"):
        one.detect([ask()])
    server.answer = lambda *_: (200, {}, b" " * (MOST_BYTES + 1))
    with pytest.raises(RequestError, match="more than"):
        one.detect([ask()])


@pytest.mark.parametrize("key", ["protocol", "identity", "score"])
def test_a_server_that_is_no_detector_is_refused_at_once(server: Server, key: str) -> None:
    server.hello = ok({**HELLO, key: 7})
    with pytest.raises(ConfigError, match="kosmos2-detect/1"):
        remote(server)


def test_nobody_at_the_url_is_said() -> None:
    nowhere = Detection(name="remote", url="http://127.0.0.1:9/", retries=1)
    with pytest.raises(RequestError, match="Is it running"):
        Remote(nowhere, lambda _: None)


@pytest.mark.parametrize("url", ["", "ftp://here/", "file:///etc/passwd", "localhost:80"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"detection\.url"):
        Detection(name="remote", url=url)
