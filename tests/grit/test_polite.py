"""Manners of a crawler: who may be asked, when, and how often."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest
from polite_server import Web, answering, picture, serving

from kosmos2.errors import ConfigError, FetchError
from kosmos2.fetch import Limits
from kosmos2.grit.polite import Crawler, Politeness, opt_outs, rules_of, seconds_of

LIMITS = Limits(allow_private=True, seconds=10)
QUICK = Politeness(limits=LIMITS, backoff=0.0)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as state:
        yield state


def refusal(crawler: Crawler, url: str) -> str:
    with pytest.raises(FetchError) as caught:
        crawler.fetch(url)
    return caught.value.kind


# --- robots.txt


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("", "/a.jpg", True),
        ("User-agent: *\nDisallow: /", "/a.jpg", False),
        ("User-agent: *\nDisallow:", "/a.jpg", True),
        ("user-agent : * # all\nDISALLOW : /private", "/private/a.jpg", False),
        ("User-agent: *\nDisallow: /private", "/public/a.jpg", True),
        # The longest rule decides, and of two alike the one that allows.
        ("User-agent: *\nDisallow: /\nAllow: /images/", "/images/a.jpg", True),
        ("User-agent: *\nAllow: /images/\nDisallow: /images/private", "/images/private/a", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        # Stars and ends.
        ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/x/a.jpg?size=1", True),
        ("User-agent: *\nDisallow: /*/private/*.png", "/x/private/y/a.png", False),
        ("User-agent: *\nDisallow: /a*a$", "/a", True),
        ("User-agent: *\nDisallow: /exact$", "/exact", False),
        ("User-agent: *\nDisallow: /exact$", "/exactly", True),
        ("User-agent: *\nDisallow: /caf%C3%A9", "/café", False),
        ("User-agent: *\nDisallow: /a%2Ab", "/axb", True),
        # Our own group instead of that of all, whatever its letters and version.
        ("User-agent: *\nDisallow: /\n\nUser-agent: KOSMOS2/9\nDisallow: /p", "/a.jpg", True),
        ("User-agent: kosmos2\nUser-agent: other\nDisallow: /", "/a.jpg", False),
        ("User-agent: other\nDisallow: /", "/a.jpg", True),
        ("User-agent: kosmos2\nAllow: /x\nUser-agent: *\nDisallow: /", "/a.jpg", True),
        ("User-agent: kosmos2\nDisallow: /a\n\nUser-agent: kosmos2\nDisallow: /b", "/b", False),
        ("Disallow: /", "/a.jpg", True),
        ("<html>nothing of the kind</html>", "/a.jpg", True),
    ],
)
def test_a_robots_txt_is_read_as_its_standard_has_it(text: str, path: str, allowed: bool) -> None:
    assert rules_of(text, "kosmos2").allow(path) is allowed


def test_a_hostile_pattern_costs_no_time() -> None:
    rules = rules_of("User-agent: *\nDisallow: /" + "*a" * 5000 + "$", "kosmos2")
    assert rules.allow("/" + "a" * 4000 + "b")


def test_a_host_may_ask_for_pauses_but_not_for_ever() -> None:
    assert rules_of("User-agent: *\nCrawl-delay: 2.5", "kosmos2").delay == 2.5
    assert rules_of("User-agent: *\nCrawl-delay: 1e300", "kosmos2").delay == 60
    assert rules_of("User-agent: *\nCrawl-delay: soon", "kosmos2").delay == 0


def test_robots_txt_is_asked_once_and_what_it_forbids_is_never_asked(web: Web) -> None:
    web.robots = answering(200, b"User-agent: *\nDisallow: /private")
    crawler = Crawler(QUICK)
    for _ in range(3):
        assert crawler.fetch(web.url("/a.jpg")) == picture()
        assert refusal(crawler, web.url("/private/a.jpg")) == "refused by robots.txt"
    assert (web.robots_asked, web.asked) == (1, ["/a.jpg"] * 3)


def test_where_a_redirect_leads_is_asked_of_robots_txt_too(web: Web) -> None:
    web.robots = answering(200, b"User-agent: *\nDisallow: /private")
    web.answers["/a.jpg"] = answering(302, Location="/private/a.jpg")
    assert refusal(Crawler(QUICK), web.url("/a.jpg")) == "refused by robots.txt"
    assert web.asked == ["/a.jpg"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_host_without_robots_txt_may_be_asked(web: Web, status: int) -> None:
    web.robots = answering(status)
    assert Crawler(QUICK).fetch(web.url("/a.jpg")) == picture()
    assert web.robots_asked == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_host_whose_robots_txt_cannot_be_had_is_left_alone(web: Web, status: int) -> None:
    web.robots = answering(status)
    crawler = Crawler(QUICK)
    assert refusal(crawler, web.url("/a.jpg")) == "robots.txt not had"
    assert refusal(crawler, web.url("/b.jpg")) == "robots.txt not had"
    assert (web.robots_asked, web.asked) == (3, [])


# --- X-Robots-Tag


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], set()),
        (["noai"], {"noai"}),
        (["NoImageAI, nofollow"], {"noimageai"}),
        (["noindex", "noml"], {"noindex", "noml"}),
        (["none"], {"none"}),
        (["nofollow, noarchive, max-snippet: 20"], set()),
        (["otherbot: noindex, noimageai"], set()),
        (["otherbot: noindex", "noai"], {"noai"}),
        (["kosmos2: noindex"], {"noindex"}),
        (["Kosmos2: nofollow, noai"], {"noai"}),
        (["otherbot: noai, kosmos2: noimageindex"], {"noimageindex"}),
        (["*: noai"], {"noai"}),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noai"], {"noai"}),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 UTC, noai"], {"noai"}),
    ],
)
def test_a_header_counts_where_it_is_addressed_to_us(lines: list[str], found: set[str]) -> None:
    assert opt_outs(lines, "kosmos2") == found


def test_a_header_is_honoured_before_the_body_is_read(web: Web) -> None:
    def headers_alone(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            b"HTTP/1.0 200 OK\r\nX-Robots-Tag: noai\r\nContent-Length: 9999\r\n\r\n"
        )
        handler.wfile.flush()
        web.ended.wait(30)  # who reads the body waits in vain

    web.answers["/a.jpg"] = headers_alone
    assert refusal(Crawler(QUICK), web.url("/a.jpg")) == "refused by X-Robots-Tag"
    assert len(web.asked) == 1


# --- again, and not so often


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_what_the_server_says_is_final_is_not_asked_again(web: Web, status: int) -> None:
    web.answers["/a.jpg"] = answering(status)
    assert refusal(Crawler(QUICK), web.url("/a.jpg")) == f"http {status}"
    assert len(web.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_asked_again_and_then_given_up(web: Web, status: int) -> None:
    web.answers["/good"] = web.in_turn(answering(status), answering(200, picture(1)))
    web.answers["/bad"] = answering(status)
    crawler = Crawler(QUICK)
    assert crawler.fetch(web.url("/good")) == picture(1)
    assert refusal(crawler, web.url("/bad")) == f"http {status}"
    assert (web.asked.count("/good"), web.asked.count("/bad")) == (2, 3)


def test_pauses_double_and_last_as_long_as_the_server_asks(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kosmos2.grit.polite.time.sleep", pauses.append)
    crawler = Crawler(Politeness(limits=LIMITS, backoff=2.0))
    web.answers["/a"] = answering(500)
    refusal(crawler, web.url("/a"))
    web.answers["/b"] = web.in_turn(answering(429, Retry_After="7"), answering(200, picture()))
    crawler.fetch(web.url("/b"))
    assert [pause for pause in pauses if pause][:3] == [2.0, 4.0, 7.0]


def test_a_host_that_asks_for_a_pause_is_left_alone_by_every_thread(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawler = Crawler(Politeness(limits=LIMITS, backoff=0.0, retries=0))
    web.answers["/a"] = answering(429, Retry_After="7")
    refusal(crawler, web.url("/a"))
    pauses: list[float] = []
    monkeypatch.setattr("kosmos2.grit.polite.time.sleep", pauses.append)
    crawler.fetch(web.url("/b"))
    assert 0 < max(pauses) <= 7


def test_a_server_that_asks_for_an_hour_is_not_waited_for(web: Web) -> None:
    web.answers["/a"] = answering(503, Retry_After="3600")
    crawler = Crawler(QUICK)
    assert refusal(crawler, web.url("/a")) == "http 503"
    assert refusal(crawler, web.url("/b")) == "host asks to come later"
    assert web.asked == ["/a"]


def test_retry_after_is_seconds_or_a_date() -> None:
    assert seconds_of("120") == 120
    assert seconds_of("") == seconds_of("soon") == seconds_of("-5") == 0
    assert 3000 < seconds_of(format_datetime(datetime.now(UTC) + timedelta(hours=1))) <= 3600
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_host_is_never_asked_more_at_once_than_allowed(web: Web) -> None:
    crawler = Crawler(Politeness(limits=LIMITS, per_host=2))
    send = answering(200, picture())
    at_once, most = 0, 0

    def answer(handler: BaseHTTPRequestHandler) -> None:
        # Counted until just before the answer: behind it the next one may already ask.
        nonlocal at_once, most
        with web.lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.05)
        with web.lock:
            at_once -= 1
        send(handler)

    web.answers |= {f"/{number}": answer for number in range(10)}
    threads = [
        threading.Thread(target=crawler.fetch, args=(web.url(f"/{number}"),))
        for number in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(web.asked) == 10
    assert most == 2


def test_requests_to_a_host_keep_their_distance_and_waiting_costs_no_time_of_the_download(
    web: Web,
) -> None:
    web.robots = answering(200, b"User-agent: *\nCrawl-delay: 0.3")
    crawler = Crawler(Politeness(limits=Limits(allow_private=True, seconds=0.25), retries=0))
    begun = time.monotonic()
    for number in range(4):
        crawler.fetch(web.url(f"/{number}"))
    assert time.monotonic() - begun >= 0.9


def test_values_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="per_host of 1 or more"):
        Politeness(per_host=0)
    for name in ("", "bot\r\nCookie: a", "bött"):
        with pytest.raises(ConfigError, match="User-Agent"):
            Politeness(limits=Limits(user_agent=name))
