"""A server on this machine that misbehaves in every way there is, and remembers what was asked."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

Answer = Callable[[BaseHTTPRequestHandler], None]


def picture(number: int = 0, size: tuple[int, int] = (40, 30), format: str = "JPEG") -> bytes:
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    image.paste((number * 37 % 256, number * 11 % 256, 90), (5, 5, 5 + size[0] // 3, 20))
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


def answering(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer; `X_Robots_Tag` names the header X-Robots-Tag."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@dataclass
class Web:
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """Paths in order, without those of robots.txt."""
    robots_asked: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    """By path; what has none is a picture."""
    robots: Answer = field(default_factory=lambda: answering(404))
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def in_turn(self, *answers: Answer) -> Answer:
        """Return an answer that differs from time to time; the last one stays."""
        left = list(answers)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            (left.pop(0) if len(left) > 1 else left[0])(handler)

        return answer

    def dripping(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 40000\r\n\r\n")
        while not self.ended.wait(0.05):
            handler.wfile.write(b".")
            handler.wfile.flush()


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.close_connection = True
            with web.lock:
                if self.path == "/robots.txt":
                    web.robots_asked += 1
                else:
                    web.asked.append(self.path)
            with suppress(OSError):
                self.answer()(self)

        def answer(self) -> Answer:
            if self.path == "/robots.txt":
                return web.robots
            return web.answers.get(self.path) or answering(200, picture())

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
