"""A crawler's manners: robots.txt, X-Robots-Tag, few requests to a host at a time, and pauses.

robots.txt is read as RFC 9309 has it: the longest matching rule wins, `*` and `$` mean what they
mean there, a 4xx means that there are no rules, and where rules may exist but cannot be had (429,
5xx, an answer that breaks off), nothing is asked of the host.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from kosmos2.errors import ConfigError, FetchError, one_line
from kosmos2.fetch import Limits, Manners, fault, fetch

T = TypeVar("T")

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
"""Directives of X-Robots-Tag that keep a picture out of a data set."""
NO_ROBOTS = "robots.txt not had"
BY_ROBOTS = "refused by robots.txt"
BY_HEADER = "refused by X-Robots-Tag"
LATER = "host asks to come later"

_UNREACHABLE = (LATER, "dns", "private address", "timeout", "connection", "tls", "no url")
"""What keeps robots.txt away would keep the picture away: it is counted as what it is."""
_ROBOTS_BYTES = 512 * 1024
_ROBOTS_SECONDS = 10.0
"""A host that is silent for so long is given up; many are, and each would hold a thread."""
_ROBOTS_HOLDS = 24 * 3600.0
_MOST_HOSTS = 50_000
_LONGEST_PAUSE = 60.0
"""Seconds that a host may ask for; one that asks for more is not waited for."""
_AGENT = re.compile(r"[A-Za-z*][\w.*-]*")
_WITH_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


@dataclass(frozen=True, slots=True, kw_only=True)
class Politeness:
    """What one process allows itself."""

    limits: Limits = field(default_factory=Limits)
    per_host: int = 2
    """Requests to one host at a time."""
    delay: float = 0.0
    """Seconds between the starts of two requests to a host, or more if its robots.txt says so."""
    retries: int = 2
    """So often something is asked again that failed in a way that passes."""
    backoff: float = 2.0
    """Seconds before the first of these; each further one waits twice as long."""

    def __post_init__(self) -> None:
        if self.per_host < 1 or self.delay < 0 or self.retries < 0 or self.backoff < 0:
            raise ConfigError(
                f"politeness needs per_host of 1 or more, and delay, retries and backoff of 0 or "
                f"more, got {self.per_host}, {self.delay}, {self.retries} and {self.backoff}"
            )
        name = self.limits.user_agent
        if not (name.isascii() and name.isprintable() and self.agent):
            raise ConfigError(f"a User-Agent is a name in plain letters, got {one_line(name)!r}")

    @property
    def agent(self) -> str:
        """Return the name by which robots.txt and headers address us."""
        return agent_of(self.limits.user_agent)


class Crawler:
    """Fetches within manners. Used by many threads."""

    def __init__(self, politeness: Politeness) -> None:
        self._politeness = politeness
        self._hosts: _Recent[_Host] = _Recent()
        self._robots: _Recent[_Robots] = _Recent()

    def fetch(self, url: str) -> bytes:
        """Return what lies at the URL; failures that pass are tried again, after a pause."""
        return self._patiently(
            url, self._politeness.limits, _Visits(self, asks_robots=True), passes
        )

    def _patiently(
        self, url: str, limits: Limits, manners: Manners, may_pass: Callable[[str], bool]
    ) -> bytes:
        for again in range(self._politeness.retries + 1):
            try:
                return fetch(url, limits, manners)
            except FetchError as error:
                pause = max(self._politeness.backoff * 2**again, seconds_of(error.retry_after))
                if error.retry_after and error.kind in ("http 429", "http 503"):
                    self.host(url).rest(pause)
                last = again == self._politeness.retries
                if last or not may_pass(error.kind) or pause > _LONGEST_PAUSE:
                    raise
            time.sleep(pause)
        raise AssertionError("unreachable")

    def host(self, url: str) -> _Host:
        """Return whose turn it is at the host of a URL."""
        return self._hosts.get(host_of(url), lambda: _Host(self._politeness))

    def rules(self, url: str) -> Rules:
        """Return what the robots.txt beside a URL says to us; asked once for all threads."""
        parts = urlsplit(url)
        root = f"{parts.scheme.lower()}://{parts.netloc.lower()}"
        return self._robots.get(root, lambda: _Robots(self, f"{root}/robots.txt")).rules()

    def robots(self, url: str) -> Rules:
        """Return the rules that lie at the URL of a robots.txt."""
        limits = self._politeness.limits
        limits = replace(
            limits, max_bytes=_ROBOTS_BYTES, seconds=min(limits.seconds, _ROBOTS_SECONDS)
        )
        manners = _Visits(self, asks_robots=False)
        try:
            text = self._patiently(url, limits, manners, is_of_server)
        except FetchError as error:
            if re.fullmatch(r"http 4(?!29)\d\d|redirects", error.kind):
                return Rules()
            if error.kind in _UNREACHABLE:
                return Rules(problem=error.kind)
            return Rules(problem=NO_ROBOTS)
        return rules_of(text.decode("utf-8", "replace"), self._politeness.agent)

    @property
    def agent(self) -> str:
        """Return the name by which robots.txt and headers address us."""
        return self._politeness.agent


class _Visits(Manners):
    """What a crawler keeps to at each hop of a download."""

    def __init__(self, crawler: Crawler, *, asks_robots: bool) -> None:
        self._crawler = crawler
        self._asks_robots = asks_robots

    @contextmanager
    def visit(self, url: str) -> Iterator[None]:
        pause = 0.0
        if self._asks_robots:
            rules = self._crawler.rules(url)
            if rules.problem:
                raise fault(rules.problem, f"its robots.txt cannot be had ({rules.problem})")
            if not rules.allow(_path_of(url)):
                raise fault(BY_ROBOTS, "its robots.txt asks not to fetch this")
            pause = rules.delay
        with self._crawler.host(url).turn(pause):
            yield

    def check(self, headers: HTTPMessage) -> None:
        lines = headers.get_all("X-Robots-Tag") or ()
        if self._asks_robots and (found := opt_outs(lines, self._crawler.agent)):
            raise fault(BY_HEADER, f"X-Robots-Tag says {', '.join(sorted(found))}")


class _Host:
    """Takes turns: so many requests at a time, their starts so far apart."""

    def __init__(self, politeness: Politeness) -> None:
        self._turns = threading.BoundedSemaphore(politeness.per_host)
        self._delay = politeness.delay
        self._lock = threading.Lock()
        self._next = self._closed = 0.0
        """When the next request may start, and until when the host wants none."""

    def rest(self, pause: float) -> None:
        with self._lock:
            self._closed = max(self._closed, time.monotonic() + pause)
            if pause <= _LONGEST_PAUSE:
                self._next = max(self._next, self._closed)

    @contextmanager
    def turn(self, delay: float) -> Iterator[None]:
        with self._turns:
            with self._lock:
                if self._closed - time.monotonic() > _LONGEST_PAUSE:
                    raise fault(LATER, "the host has asked to come back much later")
                start = max(self._next, time.monotonic())
                self._next = start + max(delay, self._delay)
            time.sleep(max(0.0, start - time.monotonic()))
            yield


class _Robots:
    """The rules of one host, asked for by the first thread that needs them."""

    def __init__(self, crawler: Crawler, url: str) -> None:
        self._crawler, self._url = crawler, url
        self._lock = threading.Lock()
        self._rules: Rules | None = None
        self._until = 0.0

    def rules(self) -> Rules:
        with self._lock:
            if self._rules is None or time.monotonic() > self._until:
                self._rules = self._crawler.robots(self._url)
                self._until = time.monotonic() + _ROBOTS_HOLDS
            return self._rules


class _Recent(Generic[T]):
    """What is known of hosts, those asked of last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._known:
                self._known[name] = make()
                if len(self._known) > _MOST_HOSTS:
                    self._known.popitem(last=False)
            self._known.move_to_end(name)
            return self._known[name]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a robots.txt says to one crawler; without any, all is allowed."""

    lines: tuple[tuple[str, bool], ...] = ()
    """Patterns of paths, and whether they may be fetched."""
    delay: float = 0.0
    """Seconds between requests."""
    problem: str = ""
    """Why nobody knows the rules; then nothing may be fetched."""

    def allow(self, path: str) -> bool:
        """Return whether a path with its query may be fetched: the longest rule decides."""
        path = _plain(path)
        fitting = [(len(rule), allowed) for rule, allowed in self.lines if _fits(rule, path)]
        return max(fitting, default=(0, True))[1]


def rules_of(text: str, agent: str) -> Rules:
    """Return the rules of a robots.txt for the crawler of that name."""
    groups: dict[str, list[tuple[str, str]]] = {}
    named: list[str] = []
    reads_names = False
    for line in text.lstrip("\ufeff").splitlines():
        key, colon, value = (part.strip() for part in line.split("#", 1)[0].partition(":"))
        key = key.lower()
        if not colon:
            continue
        if key == "user-agent":
            named = [*named, agent_of(value)] if reads_names else [agent_of(value)]
            reads_names = True
            groups.setdefault(named[-1], [])
        elif key in ("allow", "disallow", "crawl-delay"):
            reads_names = False
            for name in named:
                groups[name].append((key, value))
    mine = groups.get(agent, groups.get("*", []))
    delays = [_number(value) for key, value in mine if key == "crawl-delay"]
    return Rules(
        lines=tuple(
            (_plain(value), key == "allow") for key, value in mine if value and key != "crawl-delay"
        ),
        delay=min(max(delays, default=0.0), _LONGEST_PAUSE),
    )


def opt_outs(lines: Iterable[str], agent: str) -> set[str]:
    """Return the directives of X-Robots-Tag headers that keep us away.

    `otherbot: noindex, noai` addresses another crawler, and so all that follows on its line.
    """
    found = set()
    for line in lines:
        addressed = "*"
        for piece in line.split(","):
            name, colon, rest = (part.strip().lower() for part in piece.partition(":"))
            if colon and name not in _WITH_VALUES and _AGENT.fullmatch(name):
                addressed, name = name, rest
            if addressed in ("*", agent) and name in OPT_OUTS:
                found.add(name)
    return found


def passes(kind: str) -> bool:
    """Return whether a failure may be gone a little later."""
    return kind in ("timeout", "connection", "cut short") or is_of_server(kind)


def is_of_server(kind: str) -> bool:
    """Return whether a server has answered that it cannot answer now."""
    return kind == "http 429" or kind.startswith("http 5")


def seconds_of(retry_after: str) -> float:
    """Return how long a Retry-After, in seconds or as a date, asks to wait; 0 for nonsense."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError):
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def host_of(url: str) -> str:
    """Return the host of a URL, "" where it has none."""
    try:
        return (urlsplit(url.strip()).hostname or "").rstrip(".")
    except ValueError:
        return ""


def agent_of(user_agent: str) -> str:
    """Return the name that a User-Agent begins with: "bot" of "Bot/1.0 (see ...)"."""
    return re.split(r"[/\s]", user_agent.strip(), maxsplit=1)[0].lower()


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _plain(path: str) -> str:
    """Return a path or a rule so that different ways to write the same are alike.

    Bytes become characters one by one; an escaped `*` or `$` remains escaped.
    """
    escaped = re.sub(r"%(2[Aa]|24)", r"%25\1", path)
    return unquote_to_bytes(escaped).decode("latin-1")


def _fits(rule: str, path: str) -> bool:
    """Return whether a rule matches the beginning of a path, all of it if it ends in `$`."""
    whole = rule.endswith("$")
    first, *others = rule.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    for number, part in enumerate(others, start=1):
        if whole and number == len(others):
            return len(path) - len(part) >= at and path.endswith(part)
        at = path.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return at == len(path) if whole else True


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value < float("inf") else 0.0
