"""What goes wrong, as problem JSON (RFC 9457) without a trace of our insides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kosmos2.errors import FetchError, Kosmos2Error, one_line

PROBLEM = "application/problem+json"
OPENAI = "/v1/chat/"
"""Below this, errors have the form that OpenAI's clients read."""


class ProblemError(Exception):
    """An answer that is an error: a status and what happened."""

    def __init__(self, status: HTTPStatus, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


def response(
    path: str, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return the error in the form that clients of this path expect."""
    title = HTTPStatus(status).phrase
    body: dict[str, Any]
    if path.startswith(OPENAI):
        kind = "invalid_request_error" if status < 500 else "server_error"
        body = {"error": {"message": detail, "type": kind, "code": status, "param": None}}
        return JSONResponse(body, status, headers)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type=PROBLEM)


async def on_problem(request: Request, error: Exception) -> JSONResponse:
    """Return a Problem that was raised."""
    assert isinstance(error, ProblemError)
    return response(request.url.path, error.status, error.detail, error.headers)


async def on_our_error(request: Request, error: Exception) -> JSONResponse:
    """Return what the package says of a request that it cannot answer."""
    assert isinstance(error, Kosmos2Error)
    refused = isinstance(error, FetchError) and error.kind == "private address"
    status = HTTPStatus.FORBIDDEN if refused else HTTPStatus.UNPROCESSABLE_ENTITY
    return response(request.url.path, status, one_line(error))


async def on_invalid(request: Request, error: Exception) -> JSONResponse:
    """Return which field of a request is wrong."""
    assert isinstance(error, RequestValidationError)
    faults = (
        f"{'.'.join(str(part) for part in each['loc'] if part != 'body') or 'body'}: {each['msg']}"
        for each in error.errors()
    )
    detail = one_line("; ".join(faults))[:1_000]
    return response(request.url.path, HTTPStatus.UNPROCESSABLE_ENTITY, detail)


async def on_http(request: Request, error: Exception) -> JSONResponse:
    """Return an unknown path, a wrong method and the like."""
    assert isinstance(error, HTTPException)
    return response(request.url.path, error.status_code, str(error.detail), error.headers)


async def on_fault(request: Request, error: Exception) -> JSONResponse:
    """Return our own fault; its trace is in the log alone."""
    detail = "the server has made a mistake; its log says more"
    return response(request.url.path, HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def event_of(error: Exception) -> str:
    """Return an error in the middle of a stream, where no status can be sent any more."""
    known = isinstance(error, Kosmos2Error | ProblemError)
    message = one_line(error) if known else "the server has made a mistake; its log says more"
    return json.dumps({"error": {"message": message, "type": "server_error", "code": None}})
