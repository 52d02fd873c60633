"""A download that whoever wrote the URL cannot turn against the machine or its network.

Only http and https, and only public addresses: a name is resolved once, every address it has is
checked, and the connection goes to a checked address and no other. Redirects go through the same
gate. Time and size are limited whatever the server says or does. Proxies are not used.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from kosmos2.errors import ConfigError, FetchError, one_line

USER_AGENT = "kosmos2 (grounded captioning of pictures)"

_Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""A family and what `connect` takes for it."""

_PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")
_HOST = re.compile(r"[A-Za-z0-9_.-]+")
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a download may cost and where it may go."""

    max_bytes: int = 64 * 1024 * 1024
    seconds: float = 30.0
    """For all of it: the name, every redirect, the last byte."""
    redirects: int = 5
    allow_private: bool = False
    """Also this machine and its own network: for servers of one's own, and URLs of one's own."""
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.seconds <= 0 or self.redirects < 0:
            raise ConfigError(
                f"a download needs max_bytes of 1 or more, seconds above 0 and redirects of 0 or "
                f"more, got {self.max_bytes}, {self.seconds} and {self.redirects}"
            )


DEFAULT_LIMITS = Limits()


class Manners:
    """What a download keeps to beside its limits: here nothing. A crawler keeps to more."""

    def visit(self, url: str) -> AbstractContextManager[object]:
        """Return what is held while a URL is asked, each of a chain of redirects; may refuse.

        The time that it waits is not taken off the download's own.
        """
        return nullcontext()

    def check(self, headers: HTTPMessage) -> None:
        """Refuse an answer by its headers, before any of its body is read."""


DEFAULT_MANNERS = Manners()


def fetch(url: str, limits: Limits = DEFAULT_LIMITS, manners: Manners = DEFAULT_MANNERS) -> bytes:
    """Return what lies at the URL, whole, or raise a `FetchError` that says why not."""
    deadline = _Deadline(limits.seconds)
    here = url = url.strip()
    for _ in range(limits.redirects + 1):
        try:
            target = _Target.of(here)
            with deadline.stopped(manners.visit(here)):
                found = _get(target, limits, deadline, manners)
            if isinstance(found, bytes):
                return found
            following = _joined(here, found.location)
        except FetchError as error:
            via = f" (redirected from {_shown(url)})" if here != url else ""
            message = f"{_shown(here)}{via}: {error}"
            raise fault(error.kind, message, error.retry_after) from error
        here = following
    raise fault(
        "redirects",
        f"{_shown(url)}: more than {limits.redirects} redirects, the last to {_shown(here)}",
    )


def fault(kind: str, message: str, retry_after: str = "") -> FetchError:
    """Return an error that can be counted."""
    error = FetchError(message)
    error.kind, error.retry_after = kind, retry_after
    return error


class _Deadline:
    """The moment at which all must be over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; refuse when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @contextmanager
    def stopped(self, waiting: AbstractContextManager[object]) -> Iterator[None]:
        """Enter a context; the time until it has been entered does not count."""
        begun = time.monotonic()
        with waiting:
            self._at += time.monotonic() - begun
            yield


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL taken apart; nothing in it that could be read in two ways."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> _Target:
        # urlsplit drops these in silence.
        if any(ord(c) < 32 or ord(c) == 127 for c in url):
            raise fault("no url", "a URL has no control characters")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise fault("no url", f"this is no URL ({error})") from error
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            raise fault("no url", f"only http and https are fetched, not {scheme or 'a path'!r}")
        if parts.username is not None or parts.password is not None:
            raise fault("no url", "a URL with a user name or password is not fetched")
        if port == 0:
            raise fault("no url", "port 0 cannot be asked")
        host = _plain_host(parts.hostname or "")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        if parts.query:
            path += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        return cls(scheme, host, port or _PORTS[scheme], path)


def _plain_host(host: str) -> str:
    """Return a name or an address that every reader reads alike."""
    try:
        if ":" in host and "%" not in host:
            return str(IPv6Address(host))
        name = host.rstrip(".") if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:
        raise fault("no url", f"this is no URL ({error})") from error
    if not _HOST.fullmatch(name):
        raise fault("no url", f"this is no URL (it names no host: {one_line(host)!r})")
    return name


def _get(
    target: _Target, limits: Limits, deadline: _Deadline, manners: Manners
) -> bytes | _Redirect:
    try:
        addresses = _checked(target, limits, deadline)
        with _connected(addresses, deadline) as plain, _secured(plain, target, deadline) as sock:
            connection = http.client.HTTPConnection(target.host, target.port)
            if target.scheme == "https":
                connection.default_port = _PORTS["https"]
            connection.sock = _Timed(sock, deadline)
            headers = {"User-Agent": limits.user_agent, "Accept": "image/*,*/*;q=0.5"}
            headers |= {"Accept-Encoding": "identity", "Connection": "close"}
            connection.request("GET", target.path, headers=headers)
            return _answer(connection.getresponse(), limits, manners)
    except TimeoutError as error:
        raise fault("timeout", f"not done within {deadline.seconds:g} seconds") from error
    except ssl.SSLError as error:
        raise fault("tls", f"no secure connection ({error})") from error
    except HTTPException as error:
        message = f"the server broke off or does not speak HTTP ({error!r:.200})"
        raise fault("connection", message) from error
    except OSError as error:
        raise fault("connection", f"the server cannot be reached ({error})") from error


def _joined(here: str, location: str) -> str:
    try:
        return urljoin(here, location)
    except ValueError as error:
        raise fault("redirects", f"redirects to no URL: {_shown(location)}") from error


def _answer(response: HTTPResponse, limits: Limits, manners: Manners) -> bytes | _Redirect:
    location = response.headers.get("Location")
    if response.status in (301, 302, 303, 307, 308) and location:
        # Headers are bytes: a server that writes more than ASCII means UTF-8.
        return _Redirect(location.encode("latin-1").decode("utf-8", "replace").strip())
    if response.status != 200:
        message = f"the server answers {response.status} {one_line(response.reason)}"
        raise fault(f"http {response.status}", message, response.headers.get("Retry-After", ""))
    manners.check(response.headers)
    coding = response.headers.get("Content-Encoding", "identity").lower()
    if coding != "identity":
        raise fault("packed", f"it came packed ({one_line(coding)}), which was not asked for")
    if response.length is not None and response.length > limits.max_bytes:
        raise _too_large(limits, f"{response.length} bytes are announced")
    body = io.BytesIO()
    while piece := response.read(min(_PIECE, limits.max_bytes + 1 - body.tell())):
        body.write(piece)
        if body.tell() > limits.max_bytes:
            raise _too_large(limits, "more came")
    if response.length:
        message = f"it ended {response.length} bytes too soon, after {body.tell()}"
        raise fault("cut short", message)
    return body.getvalue()


def _too_large(limits: Limits, what: str) -> FetchError:
    return fault("too large", f"larger than the limit of {limits.max_bytes} bytes: {what}")


def _checked(target: _Target, limits: Limits, deadline: _Deadline) -> list[_Address]:
    """Return the addresses of the target, all of them such as may be asked."""
    addresses = _resolved(target, deadline)
    for _, name in addresses:
        address = ip_address(name[0])
        if not may_ask(address, limits):
            hint = "" if limits.allow_private else "; for a server of your own use allow_private"
            message = f"{target.host} is at {address}, which is no public address{hint}"
            raise fault("private address", message)
    return addresses


def may_ask(address: IPv4Address | IPv6Address, limits: Limits) -> bool:
    """Return whether a download may come from the address.

    IPv6 that stands for IPv4 is refused, save that of NAT64, which is judged by what it stands for.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return may_ask(IPv4Address(int(address) & 0xFFFFFFFF), limits)
        if address.ipv4_mapped or address.sixtofour or address.teredo or address.is_site_local:
            return False
    if address.is_loopback:
        return limits.allow_private
    if (
        address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or (isinstance(address, IPv4Address) and address.packed[0] == 0)
    ):
        return False
    return limits.allow_private or (address.is_global and not address.is_private)


def _resolved(target: _Target, deadline: _Deadline) -> list[_Address]:
    def ask() -> list[_Address]:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    try:
        return _within(deadline, ask)
    except (socket.gaierror, UnicodeError) as error:
        raise fault("dns", f"no address is known of {target.host} ({error})") from error


def _within(deadline: _Deadline, ask: Callable[[], list[_Address]]) -> list[_Address]:
    """Return the answer of a call that has no time limit of its own."""
    answers: list[list[_Address] | Exception] = []

    def call() -> None:
        try:
            answers.append(ask())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not answers:
        raise TimeoutError
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _connected(addresses: list[_Address], deadline: _Deadline) -> socket.socket:
    """Return a connection to the first address that takes one."""
    last: OSError = OSError("no address")
    for number, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # One that is silent leaves time for the others.
            sock.settimeout(deadline.left() / (len(addresses) - number))
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last


def _secured(sock: socket.socket, target: _Target, deadline: _Deadline) -> socket.socket:
    """Return the connection, made secure and its other end proven where the scheme is https."""
    if target.scheme == "http":
        return sock
    sock.settimeout(deadline.left())
    return ssl.create_default_context().wrap_socket(sock, server_hostname=target.host)


class _Timed:
    """A socket for http.client whose every wait ends at the deadline."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_TimedReader(self._sock, self._deadline))

    def close(self) -> None:
        """Leave the socket to its owner: http.client closes it before the answer is read."""


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (whatever can be written into)
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)


def _shown(url: str) -> str:
    """Return the URL for a message, without a password."""
    if "@" in (place := url.split("//", 1)[-1].split("/", 1)[0]):
        url = url.replace(place, "..." + place[place.rindex("@") :], 1)
    text = one_line(url)
    return text if len(text) <= 300 else f"{text[:297]}..."
