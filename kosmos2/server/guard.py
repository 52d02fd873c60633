"""Who may come in, with how much, and that it is counted: before anything of a request is read."""

from __future__ import annotations

import hmac
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kosmos2.server import problems
from kosmos2.server.limits import Limits
from kosmos2.server.metrics import Metrics

OPEN = ("/health", "/ready")
"""Paths that need no key: whoever restarts the server asks there."""


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._keys = [key.encode() for key in limits.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it: 401, 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                await refusal(scope, receive, watched)
            else:
                await self._app(scope, self._counted(receive), watched)
        finally:
            # Only paths of ours: a stranger's would fill the memory with counters.
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.monotonic() - begun)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._keys and scope["path"] not in OPEN and not self._has_key(headers):
            detail = "this server needs an API key: Authorization: Bearer KEY, or X-API-Key: KEY"
            asks = {"WWW-Authenticate": "Bearer"}
            return problems.response(scope["path"], HTTPStatus.UNAUTHORIZED, detail, asks)
        told = headers.get("content-length", "0")
        if not told.isdigit() or int(told) > self._limits.max_body:
            return problems.response(
                scope["path"],
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                self._too_large,
                {"Connection": "close"},
            )
        return None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        sent = given.strip().encode()
        # Every key is compared in full, so that the time tells nothing of any of them.
        return any([hmac.compare_digest(sent, key) for key in self._keys])

    def _counted(self, receive: Receive) -> Receive:
        """Return `receive` that ends a body which is larger than it said."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limits.max_body:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large)
            return message

        return counted

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self._limits.max_body:,} bytes, which is the most"
