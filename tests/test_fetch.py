"""Downloads: only what is asked for, only from where one may, within time and size."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from kosmos2 import fetch as module
from kosmos2.errors import ConfigError, FetchError
from kosmos2.fetch import Limits, fetch, may_ask

PICTURE = bytes(range(256)) * 1000
OWN = Limits(allow_private=True, seconds=20)
PUBLIC = "93.184.216.34"


@dataclass
class Server:
    """A server on this machine: what it was asked, and what it answers by path."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    cut: threading.Event = field(default_factory=threading.Event)
    """Set when somebody hung up on an answer that does not end."""

    def url(self, path: str = "/picture.jpg") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def say(self, raw: bytes) -> str:
        """Return a path whose answer is these very bytes."""
        path = f"/raw{len(self.answers)}"
        self.answers[path] = lambda handler: handler.wfile.write(raw)
        return path

    def drip(self, first: bytes, drop: bytes, pause: float = 0.02) -> str:
        """Return a path whose answer begins so and then drips without an end."""
        path = f"/drip{len(self.answers)}"

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(first)
            try:
                while not self.ended.wait(pause):
                    handler.wfile.write(drop)
                    handler.wfile.flush()
            except OSError:
                self.cut.set()

        self.answers[path] = answer
        return path


@contextmanager
def serving(secure: ssl.SSLContext | None = None) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            state.headers.append(dict(self.headers.items()))
            self.close_connection = True
            with suppress(OSError):
                if self.path in state.answers:
                    state.answers[self.path](self)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(PICTURE)))
                self.end_headers()
                self.wfile.write(PICTURE)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    if secure is not None:
        server.socket = secure.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if anything connects."""

    def connect(self: socket.socket, address: object) -> None:
        pytest.fail(f"connects to {address}")

    monkeypatch.setattr("socket.socket.connect", connect)


@dataclass
class Names:
    """Names that mean what the test says, and a world in which public addresses lead to `port`."""

    known: dict[str, list[list[str]]] = field(default_factory=dict)
    """The addresses of a name: the first time it is asked for, the second, ..."""
    resolved: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    world = Names()
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: str, port: int, **options: int) -> list[object]:
        world.resolved.append(host)
        if host not in world.known:
            return list(resolve(host, port, **options))  # type: ignore[arg-type]
        times = world.known[host]
        now = times.pop(0) if len(times) > 1 else times[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in now]

    def connect_there(self: socket.socket, address: tuple[str, int]) -> None:
        world.connected.append(address[0])
        public = not address[0].startswith("127.")
        connect(self, ("127.0.0.1", world.port) if public else address)

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("socket.socket.connect", connect_there)
    return world


def test_what_lies_at_a_url_comes_whole(server: Server) -> None:
    assert fetch(server.url("/a%20b/ü c.jpg?size=1 2&q=ü#part"), OWN) == PICTURE
    assert server.asked == ["/a%20b/%C3%BC%20c.jpg?size=1%202&q=%C3%BC"]
    assert server.headers[0]["Host"] == f"127.0.0.1:{server.port}"
    assert server.headers[0]["User-Agent"].startswith("kosmos2")
    assert server.headers[0]["Accept-Encoding"] == "identity"


def test_a_body_in_chunks_or_without_length_comes_whole(server: Server) -> None:
    chunks = server.say(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    plain = server.say(b"HTTP/1.1 200 OK\r\n\r\nabcde")
    assert fetch(server.url(chunks), OWN) == fetch(server.url(plain), OWN) == b"abcde"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:93.184.216.34]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
def test_addresses_that_are_not_public_are_never_asked(host: str, nowhere: None) -> None:
    with pytest.raises(FetchError, match=r"no public address|no address is known"):
        fetch(f"http://{host}/", Limits())


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:2800:220:1::1", "64:ff9b::808:808", "1.1.1.1"]
)
def test_public_addresses_may_be_asked(address: str) -> None:
    assert may_ask(ip_address(address), Limits())


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("10.0.0.1", True),
        ("100.64.0.1", True),
        ("fc00::1", True),
        ("::1", True),
        (PUBLIC, True),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("0.0.0.0", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_allow_private_opens_one_s_own_network_and_no_more(address: str, own: bool) -> None:
    assert may_ask(ip_address(address), OWN) is own


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "only http and https.*'file'"),
        ("ftp://example.com/a", "only http and https.*'ftp'"),
        ("photo.jpg", "only http and https"),
        ("http://name:secret@example.com/a.jpg", "user name or password"),
        ("http://name@example.com/a.jpg", "user name or password"),
        ("http://example.com\\@127.0.0.1/", "user name|no host"),
        ("http://127.0.0.1\\.example.com/", "no host"),
        ("http://exa mple.com/", "no host"),
        ("http://exam\nple.com/", "control characters"),
        ("http://a.com/\r\nHost: b.com", "control characters"),
        ("http:///a.jpg", "no host"),
        ("http://[fe80::1%25eth0]/", "no host"),
        ("http://[::1/", "no URL"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:99999/", "no URL"),
        ("http://" + "a" * 70 + ".com/", "no address is known|no URL"),
        ("http://ü" + "a" * 70 + ".com/", "no URL"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_with_the_reason(
    url: str, why: str, nowhere: None
) -> None:
    with pytest.raises(FetchError, match=why) as raised:
        fetch(url, OWN)
    assert "secret" not in str(raised.value)


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    names: Names, server: Server
) -> None:
    names.known["mixed.test"] = [[PUBLIC, "10.0.0.1"]]
    with pytest.raises(FetchError, match=r"mixed.test is at 10\.0\.0\.1"):
        fetch("http://mixed.test/", Limits())
    assert names.connected == []


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(
    names: Names, server: Server
) -> None:
    names.known["rebinding.test"] = [[PUBLIC], ["127.0.0.1"]]
    names.port = server.port
    assert fetch(f"http://rebinding.test:{server.port}/", Limits()) == PICTURE
    assert names.resolved == ["rebinding.test"]
    assert names.connected == [PUBLIC]
    assert server.headers[0]["Host"] == f"rebinding.test:{server.port}"


def test_the_second_address_is_tried_when_the_first_is_silent(
    names: Names, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.known["two.test"] = [["8.8.8.8", PUBLIC]]
    names.port = server.port
    connect = socket.socket.connect

    def refuse_first(self: socket.socket, address: tuple[str, int]) -> None:
        if address[0] == "8.8.8.8":
            raise ConnectionRefusedError
        connect(self, address)

    monkeypatch.setattr("socket.socket.connect", refuse_first)
    assert fetch("http://two.test/", Limits()) == PICTURE


def moved(server: Server, to: str, status: int = 302) -> str:
    return server.say(
        f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_lead_on(server: Server, status: int) -> None:
    there = moved(server, "/ü.jpg", status)
    assert fetch(server.url(moved(server, server.url(there))), OWN) == PICTURE
    assert server.asked[-1] == "/%C3%BC.jpg"


def test_a_redirect_to_a_private_address_is_refused(names: Names, server: Server) -> None:
    names.known["public.test"] = [[PUBLIC]]
    names.port = server.port
    with pytest.raises(FetchError, match=r"redirected from http://public\.test.*127\.0\.0\.1") as e:
        fetch("http://public.test" + moved(server, server.url("/secret")), Limits())
    assert "no public address" in str(e.value)
    assert "/secret" not in server.asked


def test_a_redirect_to_a_name_that_has_become_private_is_refused(
    names: Names, server: Server
) -> None:
    names.known["public.test"] = [[PUBLIC], ["127.0.0.1"]]
    names.port = server.port
    with pytest.raises(FetchError, match="no public address"):
        fetch("http://public.test" + moved(server, "/again"), Limits())
    assert "/again" not in server.asked


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("file:///etc/passwd", "only http and https"),
        ("http://169.254.169.254/latest", "no public address"),
        ("http://me:secret@127.0.0.1/", "user name"),
        ("http://[/", "no URL"),
    ],
)
def test_a_redirect_goes_through_the_same_gate(server: Server, to: str, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        fetch(server.url(moved(server, to)), OWN)


def test_redirects_in_a_circle_end(server: Server) -> None:
    server.answers["/circle"] = lambda handler: handler.wfile.write(
        b"HTTP/1.1 302 Found\r\nLocation: /circle\r\n\r\n"
    )
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetch(server.url("/circle"), OWN)
    assert len(server.asked) == 6


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (HEADERS + b"\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"H"),
        (b"", b""),
    ],
    ids=["body", "chunks", "header", "continue", "status", "silence"],
)
def test_a_server_that_drips_is_left_when_the_time_is_over(
    server: Server, first: bytes, drop: bytes
) -> None:
    path = server.drip(first, drop)
    with pytest.raises(FetchError, match=r"not done within 0\.4 seconds"):
        fetch(server.url(path), Limits(allow_private=True, seconds=0.4))
    assert not drop or server.cut.wait(60)


def test_time_is_counted_over_all_redirects(server: Server) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        server.ended.wait(0.2)
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /slow\r\n\r\n")

    server.answers["/slow"] = slow
    with pytest.raises(FetchError, match=r"not done within 0\.5 seconds"):
        fetch(server.url("/slow"), Limits(allow_private=True, seconds=0.5, redirects=1000))


def test_a_name_service_that_does_not_answer_costs_no_more_than_the_time(
    monkeypatch: pytest.MonkeyPatch, nowhere: None
) -> None:
    over = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: over.wait(60))
    with pytest.raises(FetchError, match=r"not done within 0\.1 seconds"):
        fetch("http://example.com/", Limits(seconds=0.1))
    over.set()


def test_a_secure_handshake_that_does_not_come_costs_no_more_than_the_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(FetchError, match=r"not done within 0\.3 seconds"):
            fetch(url, Limits(allow_private=True, seconds=0.3))


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=["no length", "great length", "false length"],
)
def test_a_body_beyond_the_limit_is_left(server: Server, first: bytes) -> None:
    path = server.drip(first, b"x" * 10_000, pause=0.001)
    with pytest.raises(FetchError, match="larger than the limit of 50000 bytes"):
        fetch(server.url(path), Limits(allow_private=True, max_bytes=50_000))
    assert server.cut.wait(60)


def test_chunks_beyond_the_limit_are_left(server: Server) -> None:
    path = server.drip(
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1000\r\n" + b"x" * 0x1000 + b"\r\n",
        pause=0.001,
    )
    with pytest.raises(FetchError, match="larger than the limit"):
        fetch(server.url(path), Limits(allow_private=True, max_bytes=50_000))


def test_a_body_of_just_the_limit_comes(server: Server) -> None:
    assert fetch(server.url(), Limits(allow_private=True, max_bytes=len(PICTURE))) == PICTURE
    with pytest.raises(FetchError, match="larger"):
        fetch(server.url(), Limits(allow_private=True, max_bytes=len(PICTURE) - 1))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (HEADERS + b"\r\nabc", "ended 997 bytes too soon, after 3"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broke off"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers 404 Not Found"),
        (b"HTTP/1.1 302 Found\r\n\r\n", "answers 302"),
        (HEADERS + b"Content-Encoding: gzip\r\n\r\n", "packed .gzip."),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"", "broke off"),
    ],
)
def test_an_answer_that_is_not_the_whole_file_is_an_error(
    server: Server, raw: bytes, why: str
) -> None:
    with pytest.raises(FetchError, match=why):
        fetch(server.url(server.say(raw)), OWN)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch(f"http://127.0.0.1:{port}/", OWN)


def test_limits_that_let_nothing_through_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_bytes"):
        Limits(max_bytes=0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate of pictures.test and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=pictures.test", "-addext", "subjectAltName=DNS:pictures.test"]
    subprocess.run(
        [*command.split(), *subject, "-keyout", key, "-out", made], check=True, capture_output=True
    )
    return made, key


def test_a_secure_connection_is_pinned_and_the_name_is_proven(
    certificate: tuple[Path, Path], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(*certificate)
    asked: list[str | None] = []
    secure.sni_callback = lambda _sock, name, _context: asked.append(name)
    names.known |= {"pictures.test": [[PUBLIC], ["127.0.0.1"]], "other.test": [[PUBLIC]]}
    with serving(secure) as server:
        names.port = server.port
        with pytest.raises(FetchError, match=r"no secure connection.*self-signed"):
            fetch("https://pictures.test/", Limits())

        names.known["pictures.test"] = [[PUBLIC], ["127.0.0.1"]]
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        monkeypatch.setattr(module.ssl, "create_default_context", lambda: trusting)
        assert fetch("https://pictures.test/a.jpg", Limits()) == PICTURE
        with pytest.raises(FetchError, match=r"no secure connection.*other\.test"):
            fetch("https://other.test/", Limits())

    assert asked == ["pictures.test", "pictures.test", "other.test"]
    assert set(names.connected) == {PUBLIC}
    assert [each["Host"] for each in server.headers] == ["pictures.test"]
