"""A detector behind a URL, for those that this package cannot or should not load.

The protocol, version 1. `GET url` tells what the detector is, and is asked once:

    {"protocol": "kosmos2-detect/1", "identity": {"detector": "glip", "weights": "sha256:…"},
     "score": "sqrt(mean of sigmoid(dot) * sigmoid(centerness))"}

`identity` has texts alone and names all that boxes depend on: a run is not resumed with another.
`POST url` asks about one picture, with several such requests at a time:

    {"protocol": "kosmos2-detect/1", "image": "<PNG in base64>", "caption": "A dog on a rug",
     "spans": [[0, 5], [9, 14]]}

Spans are characters [start, end) of the caption, counted in code points, as Python does. The answer
is a list of boxes, each the number of a span, normalised corners x0, y0, x1, y1, and a score of
0 to 1 — or why the pair cannot be looked at:

    {"boxes": [[0, 0.125, 0.5, 0.375, 0.875, 0.83]]}
    {"refused": "the caption is too long"}

Both come with status 200. After 429, 5xx or no answer a request is sent again, later and later;
every other status ends the run. Redirects are not followed: name the URL itself.
"""

from __future__ import annotations

import base64
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any

from PIL import Image

from kosmos2.boxes import Box
from kosmos2.errors import BoxError, ConfigError, RequestError, one_line
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Detection

PROTOCOL = "kosmos2-detect/1"
MOST_BYTES = 16 << 20
"""Of an answer."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before a request is sent again: the first, doubled each time, up to the longest."""


class Remote:
    """Asks `batch_size` requests at a time; answers come back in order."""

    def __init__(self, settings: Detection, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._identity, self._score = _description(self._ask(None), settings.url)

    @property
    def identity(self) -> Mapping[str, str]:
        return {"detector": "remote", **{f"remote.{key}": v for key, v in self._identity.items()}}

    @property
    def score(self) -> str:
        """Return what the detector says its scores are."""
        return self._score

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of each picture, or the detector's reason not to look."""
        with ThreadPoolExecutor(self._settings.batch_size) as pool:
            return list(pool.map(self._detect, asked))

    def _detect(self, asked: Asked) -> list[Candidate] | Refused:
        question = {
            "protocol": PROTOCOL,
            "image": base64.b64encode(_png(asked.image)).decode("ascii"),
            "caption": asked.caption,
            "spans": asked.spans,
        }
        answer = self._ask(json.dumps(question).encode())
        try:
            return _boxes(answer, len(asked.spans))
        except (BoxError, TypeError, ValueError) as error:
            raise RequestError(
                f"the detector at {self._settings.url} gave no answer of {PROTOCOL} about "
                f"{one_line(asked.id)}: {one_line(error)}. Its answer: {_excerpt(answer)}"
            ) from error

    def _ask(self, body: bytes | None) -> Mapping[str, Any]:
        """Return the object that a request is answered with; ask again where that may help."""
        wait = FIRST_WAIT
        for tries_left in reversed(range(self._settings.retries + 1)):
            try:
                return self._ask_once(body)
            except _PassingError as error:
                if not tries_left:
                    raise RequestError(
                        f"the detector at {self._settings.url} failed "
                        f"{self._settings.retries + 1} times, at last with: {error}. Is it "
                        "running? detection.timeout and detection.retries say how long to wait"
                    ) from error
                self._sleep(min(max(wait, error.after), LONGEST_WAIT))
                wait *= 2
        raise AssertionError

    def _ask_once(self, body: bytes | None) -> Mapping[str, Any]:
        url = self._settings.url
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with self._opener.open(request, timeout=self._settings.timeout) as response:
                data: bytes = response.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise _failure(error, url) from error
        except (OSError, HTTPException) as error:
            raise _PassingError(one_line(error) or type(error).__name__) from error
        if len(data) > MOST_BYTES:
            raise RequestError(f"the detector at {url} answers with more than {MOST_BYTES} bytes")
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise RequestError(
                f"the detector at {url} must answer in JSON, got {_excerpt(data)}"
            ) from error
        if not isinstance(answer, dict):
            raise RequestError(
                f"the detector at {url} must answer with an object, got {_excerpt(data)}"
            )
        return answer


def load(settings: Detection) -> Remote:
    """Return the detector at `settings.url`, which must be there to say what it is."""
    return Remote(settings)


class _PassingError(Exception):
    """A failure that may pass."""

    def __init__(self, what: str, after: float = 0.0) -> None:
        super().__init__(what)
        self.after = after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Lets a redirect be the error that it is: the POST would arrive as a GET."""

    def redirect_request(self, *_: object) -> None:
        return None


def _failure(error: urllib.error.HTTPError, url: str) -> Exception:
    what = f"status {error.code} {one_line(error.reason)}"
    if error.code == 429 or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return _PassingError(what, float(after) if after.isdecimal() else 0.0)
    if 300 <= error.code < 400:
        to = one_line(error.headers.get("Location", "nowhere"))
        return RequestError(f"the detector at {url} redirects to {to}; name that as detection.url")
    try:
        said = _excerpt(error.read(2000))
    except (OSError, HTTPException):
        said = "nothing"
    return RequestError(f"the detector at {url} refuses the request: {what}. It says: {said}")


def _description(answer: Mapping[str, Any], url: str) -> tuple[Mapping[str, str], str]:
    identity, score = answer.get("identity"), answer.get("score")
    fits = (
        answer.get("protocol") == PROTOCOL
        and isinstance(identity, dict)
        and bool(identity)
        and all(isinstance(value, str) for value in identity.values())
        and isinstance(score, str)
    )
    if not fits:
        raise ConfigError(
            f"detection.url: what is at {url} does not speak {PROTOCOL}: GET must give an object "
            f"with protocol, identity (texts) and score, got {_excerpt(answer)}"
        )
    assert isinstance(identity, dict) and isinstance(score, str)
    return identity, score


def _boxes(answer: Mapping[str, Any], spans: int) -> list[Candidate] | Refused:
    if "refused" in answer:
        return Refused(one_line(answer["refused"])[:200])
    if "boxes" not in answer:
        raise ValueError("neither boxes nor refused")
    found = []
    for span, *corners, score in answer["boxes"]:
        if type(span) is not int or not 0 <= span < spans:
            raise ValueError(f"there are spans 0 to {spans - 1}, got {span!r}")
        if not 0 <= float(score) <= 1:
            raise ValueError(f"a score must lie in 0..1, got {score!r}")
        found.append(Candidate(phrase=span, box=Box(*corners), score=float(score)))
    return found


def _png(image: Image.Image) -> bytes:
    """Return a picture without loss, packed lightly: what is looked at is what we have."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _excerpt(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else json.dumps(value)
    return one_line(text if len(text) <= 200 else f"{text[:200]}…")
