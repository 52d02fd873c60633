"""The typed endpoints: a picture and what is asked of it in, a grounded answer out."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from kosmos2.server import answering, schemas
from kosmos2.server.answering import Answering, Questioner
from kosmos2.server.desk import Desk
from kosmos2.server.problems import PROBLEM, ProblemError

AskedT = TypeVar("AskedT", bound=schemas.Asked)

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {PROBLEM: {}}}
    for status, text in (
        (400, "The body is no JSON and no multipart form"),
        (401, "No API key, or a wrong one"),
        (403, "A URL that may not be fetched"),
        (413, "The request is too large"),
        (415, "Neither JSON nor multipart"),
        (422, "The picture or the question cannot be used; the detail says why"),
        (429, "This client has too many requests waiting"),
        (500, "A mistake of the server"),
        (503, "Too many requests are waiting, or the answer took too long"),
    )
}


def router_of(desk: Desk, answerer: Answering) -> APIRouter:
    """Return the five endpoints."""
    router = APIRouter(prefix="/v1", tags=["grounded answers"])

    def add(
        name: str, form: type[AskedT], questioner: Callable[[AskedT], Questioner], about: str
    ) -> None:
        async def endpoint(request: Request) -> schemas.Answered:
            asked, sent = await _read(request, form)
            _check(answerer, asked)
            put = questioner(asked)
            async with desk.let_in(client_of(request)) as ticket:
                return await desk.run(
                    ticket,
                    request.is_disconnected,
                    lambda: answerer.answer(sent, asked, put, ticket),
                )

        router.add_api_route(
            f"/{name}",
            endpoint,
            methods=["POST"],
            name=name,
            summary=about,
            response_model=schemas.Answered,
            responses=ERRORS,
            openapi_extra={"requestBody": _body_of(form)},
        )

    add("caption", schemas.AskedCaption, answering.caption, "A caption with boxes")
    add("ground", schemas.AskedGround, answering.ground, "The boxes of a caption's phrases")
    add("find", schemas.AskedFind, answering.find, "The boxes of phrases")
    add("describe", schemas.AskedDescribe, answering.describe, "Words for boxes")
    add("ask", schemas.AskedAsk, answering.ask, "The answer to a question")
    return router


def client_of(request: Request) -> str:
    """Return whom the limits of a client count: the key, else the address."""
    key = request.headers.get("authorization") or request.headers.get("x-api-key")
    return key or (request.client.host if request.client else "unknown")


async def _read(request: Request, form: type[AskedT]) -> tuple[AskedT, str | bytes]:
    """Return the fields of a request and its picture: base64 or a URL, or the file's bytes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        fields, data = await _fields_of(request)
        return _valid(form, {**fields, "image": "file"}), data
    if kind not in ("application/json", ""):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body must be application/json or multipart/form-data, not {kind}",
        )
    try:
        asked = _valid(form, json.loads(await request.body()))
    except (ValueError, RecursionError) as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is no JSON ({error})") from error
    return asked, asked.image


async def _fields_of(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return a form's fields and the bytes of its file `image`; a list is a repeated field."""
    fields: dict[str, Any] = {}
    data = None
    async with request.form(max_files=1, max_fields=64, max_part_size=64 << 10) as form:
        for name in form:
            values = form.getlist(name)
            if name == "image" and isinstance(values[0], UploadFile):
                data = await values[0].read()
            elif any(isinstance(value, UploadFile) for value in values):
                raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: no file belongs here")
            else:
                fields[name] = _value_of(name, [str(value) for value in values])
    if data is None:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "image: the form has no file of this name"
        )
    return fields, data


def _value_of(name: str, values: list[str]) -> object:
    if name in ("decoding", "about", "boxes"):  # these are JSON inside the form
        try:
            return json.loads(values[0])
        except ValueError as error:
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: must be JSON ({error})"
            ) from error
    return values if name == "phrases" else values[0]


def _valid(form: type[AskedT], fields: object) -> AskedT:
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def _check(answerer: Answering, asked: schemas.Asked) -> None:
    match asked:
        case schemas.AskedGround():
            answerer.check_texts(asked.caption, *asked.phrases)
            answerer.check_count("phrases", len(asked.phrases))
        case schemas.AskedFind():
            answerer.check_texts(*asked.phrases)
            answerer.check_count("phrases", len(asked.phrases))
        case schemas.AskedDescribe():
            answerer.check_count("boxes", len(asked.boxes))
        case schemas.AskedAsk():
            answerer.check_texts(asked.question)


def _body_of(form: type[schemas.Asked]) -> dict[str, Any]:
    """Return what OpenAPI says of the body: JSON, or a form whose picture is a file."""
    schema = form.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    properties = {**schema["properties"], "image": {"type": "string", "format": "binary"}}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": schema},
            "multipart/form-data": {"schema": {**schema, "properties": properties}},
        },
    }
