"""The editor's application: the page, and the API that the page uses. Nothing else is served."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from kosmos2.editor import catalogue, shown
from kosmos2.editor.changes import Delete, Draw, DropPhrase, Move, Relink, Respan, Reword
from kosmos2.editor.guard import Guard, problem
from kosmos2.editor.history import Status
from kosmos2.editor.served import Served
from kosmos2.editor.session import Conflict, Decide, Redo, Session, Undo
from kosmos2.errors import ImageError, Kosmos2Error, RecordError, one_line

PAGE = "index.html"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
AnyEdit = Annotated[
    Move | Draw | Delete | DropPhrase | Relink | Respan | Reword | Decide | Undo | Redo,
    Field(discriminator="kind"),
]
Version = Annotated[int, Body(ge=0)]
"""Of the record that the editor's user saw."""
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Query(ge=0)]


class Asked(BaseModel):
    """A query of the list, as the page sends it."""

    model_config = ConfigDict(extra="forbid")

    text: str = ""
    min_score: Share = 0.0
    max_score: Share = 1.0
    min_area: Share = 0.0
    max_area: Share = 1.0
    reason: str = ""
    status: list[Status] = []
    min_disagreement: Share = 0.0
    sort: catalogue.Sort = catalogue.Sort.PLACE

    def query(self) -> catalogue.Query:
        """Return the query that this is."""
        fields = self.model_dump(exclude={"status"})
        return catalogue.Query(statuses=frozenset(self.status), **fields)


def create_app(session: Session, served: Served, host: str) -> FastAPI:
    """Return the application that edits one store, served at a name or address of this machine."""
    app = FastAPI(title="kosmos2 edit", docs_url=None, redoc_url=None, openapi_url=None)
    _add_page(app)
    _add_lists(app, session)
    _add_records(app, session, served)
    app.add_exception_handler(Kosmos2Error, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_fault)
    app.add_middleware(Guard, host=host)
    return app


def _add_page(app: FastAPI) -> None:
    folder = files("kosmos2.editor").joinpath("assets")
    assets = {each.name: each for each in folder.iterdir() if each.is_file()}

    def page(name: str) -> Response:
        ending = name[name.rfind(".") :]
        if name not in assets or ending not in TYPES:
            raise HTTPException(404)
        data = assets[name].read_bytes()
        # The page of an older release must not stay in a browser.
        return Response(data, media_type=TYPES[ending], headers={"Cache-Control": "no-cache"})

    app.get("/")(lambda: page(PAGE))
    app.get("/assets/{name}")(page)


def _add_lists(app: FastAPI, session: Session) -> None:
    @app.get("/api/store")
    def store() -> JSONResponse:
        return JSONResponse(shown.store(session))

    @app.get("/api/lists")
    def make_list(asked: Annotated[Asked, Query()]) -> JSONResponse:
        name = session.make_list(asked.query())
        return JSONResponse({"list": name, **shown.rows(session, name, 0, 0)})

    @app.get("/api/lists/{name}")
    def rows(name: int, offset: Whole = 0, limit: Whole = 50) -> JSONResponse:
        return JSONResponse(shown.rows(session, name, offset, limit))


def _add_records(app: FastAPI, session: Session, served: Served) -> None:
    @app.get("/api/records/{number}")
    def record(number: int) -> JSONResponse:
        return JSONResponse(shown.record(session, number))

    @app.post("/api/records/{number}/edits")
    def edit(number: int, version: Version, edit: Annotated[AnyEdit, Body()]) -> JSONResponse:
        made = session.edit(number, edit, version)
        now = shown.record(session, number)
        if isinstance(made, Conflict):
            detail = (
                f"this record was changed elsewhere: it is at version {made.version}, the edit "
                f"was made on version {version}"
            )
            return JSONResponse({"detail": detail, "record": now}, 409)
        return JSONResponse({"record": now, "statuses": session.catalogue.statuses()})

    @app.get("/api/records/{number}/picture")
    def picture(number: int) -> Response:
        data, kind = served.picture(session.state(number).record)
        return Response(data, media_type=kind, headers={"Cache-Control": "max-age=600"})

    @app.get("/api/records/{number}/thumbnail")
    def thumbnail(number: int) -> Response:
        data = served.thumbnail(number, session.state(number).record)
        headers = {"Cache-Control": "max-age=600"}
        return Response(data, media_type="image/jpeg", headers=headers)


async def _on_our_error(request: Request, error: Exception) -> JSONResponse:
    is_picture = isinstance(error, ImageError) or request.url.path.endswith(
        ("/picture", "/thumbnail")
    )
    is_missing = is_picture or (isinstance(error, RecordError) and request.method == "GET")
    return problem(404 if is_missing else 422, one_line(error))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults: list[Any] = list(error.errors())
    told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults)
    return problem(422, one_line(told)[:1_000])


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail))


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    return problem(500, "the editor has made a mistake; its terminal says more")
