"""The application: routes, limits, keys, health. `kosmos2 serve` or any ASGI server runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

import kosmos2
from kosmos2.api import Kosmos2
from kosmos2.errors import Kosmos2Error
from kosmos2.server import chat, problems, routes, schemas
from kosmos2.server.answering import Answering
from kosmos2.server.desk import Desk
from kosmos2.server.guard import Guard
from kosmos2.server.limits import Limits
from kosmos2.server.metrics import Metrics

ABOUT = (
    "Grounded language about pictures: captions whose phrases have boxes, boxes for phrases, "
    "words for boxes. Every box is given normalised and in pixels, with a score."
)


def create_app(model: Kosmos2, limits: Limits) -> FastAPI:
    """Return the application that answers with this model, within these limits."""
    desk = Desk(limits)
    metrics = Metrics(desk)
    answerer = Answering(model=model, limits=limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.open()
        with model.engine.employed():
            yield
            await desk.drain()

    app = FastAPI(
        title="kosmos2", version=kosmos2.__version__, description=ABOUT, lifespan=lifespan
    )
    app.state.desk = desk
    app.include_router(routes.router_of(desk, answerer))
    app.include_router(chat.router_of(desk, answerer))
    _add_care(app, desk, metrics)
    app.add_middleware(Guard, limits=limits, metrics=metrics)
    _add_errors(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_care(app: FastAPI, desk: Desk, metrics: Metrics) -> None:
    @app.get("/health", tags=["care"])
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/ready", tags=["care"], responses={503: routes.ERRORS[503]})
    async def ready() -> dict[str, str]:
        """Whether requests are let in."""
        if desk.draining:
            raise problems.ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the server is going down", 2
            )
        return {"status": "ready"}

    @app.get("/metrics", tags=["care"], response_class=Response)
    async def numbers() -> Response:
        """Counts and times, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    app.add_exception_handler(problems.ProblemError, problems.on_problem)
    app.add_exception_handler(Kosmos2Error, problems.on_our_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid)
    app.add_exception_handler(HTTPException, problems.on_http)
    app.add_exception_handler(Exception, problems.on_fault)


def _openapi(app: FastAPI) -> dict[str, object]:
    """Return OpenAPI with the models that forms and JSON bodies share."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=ABOUT, routes=app.routes
        )
        shared = schema.setdefault("components", {}).setdefault("schemas", {})
        for model in (schemas.Decoding, schemas.About):
            own = model.model_json_schema(ref_template="#/components/schemas/{model}")
            own.pop("$defs", None)
            shared[model.__name__] = own
        shared["Unit"] = {"type": "string", "enum": [str(unit) for unit in schemas.Unit]}
        app.openapi_schema = schema
    return app.openapi_schema
