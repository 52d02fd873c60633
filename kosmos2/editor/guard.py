"""Who may talk to the editor: its own page, on the names of its own machine, and nobody else.

A page of another site can send requests to this machine, and a name of that site can be made to
mean this machine. So: the Host is an address, `localhost` or the name that was asked for; an edit
is JSON, which such a page cannot send unasked, and comes from a page of ours; an answer tells the
browser that nobody else may use it.
"""

from __future__ import annotations

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1 << 20
"""Of a request."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PROBLEM = "application/problem+json"


def problem(status: int, detail: str) -> JSONResponse:
    """Return an error as problem JSON (RFC 9457)."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, media_type=PROBLEM)


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host
        """The name or address that the server was told to listen at."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or refuse it: 403, 413, 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, careful)
        else:
            await self._app(scope, _counted(receive), careful)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return problem(403, f"this editor does not answer to the name {host[:100]!r}")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return problem(403, "the editor answers to its own page alone")
        told = headers.get("content-length", "0")
        if not told.isdigit() or int(told) > MOST_BYTES:
            return problem(413, f"a request has at most {MOST_BYTES:,} bytes")
        if method in ("GET", "HEAD"):
            return None
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return problem(403, "edits come from the editor's own page alone")
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return problem(415, "an edit is sent as application/json")
        return None

    def _is_ours(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", self._host.lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _counted(receive: Receive) -> Receive:
    """Return `receive` that ends a body which is larger than it said."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES:
            raise HTTPException(413, f"a request has at most {MOST_BYTES:,} bytes")
        return message

    return counted
