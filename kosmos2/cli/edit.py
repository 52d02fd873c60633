"""`edit`: a page on which phrases, their boxes and captions of records are put right."""

from __future__ import annotations

import contextlib
import socket
import webbrowser
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import Bar, bar, note, say
from kosmos2.cli.serve import HostOption
from kosmos2.errors import ConfigError, MissingExtraError, RequestError

if TYPE_CHECKING:
    from kosmos2.editor.session import Session

STEP = 200
"""Records between two moves of the progress line."""

RecordsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECORDS",
        help="A store of records: .jsonl (.gz, .zst), .parquet, .tar, or a folder of such.",
        show_default=False,
    ),
]
AgainstOption = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="OTHER",
        help="Another store with records of the same ids: show and sort by where they differ.",
        show_default=False,
    ),
]
ReasonsOption = Annotated[
    Path | None,
    typer.Option(
        "--reasons",
        metavar="FILE",
        help="Lines with id and reason, such as dropped.jsonl of `grit build`, to filter by.",
        show_default=False,
    ),
]
DroppedOption = Annotated[
    bool,
    typer.Option(
        "--dropped",
        help="RECORDS is a folder of `grit build`: look at the pairs that it dropped, with the "
        "boxes that were found; they are written into it as dropped-records.jsonl.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Where names of pictures start; else at the records' own folder.",
        show_default=False,
    ),
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")]
OpenOption = Annotated[bool, typer.Option("--open/--no-open", help="Show the page in a browser.")]
ApplyOption = Annotated[
    bool, typer.Option("--apply", help="No page: write the store anew with all edits in it.")
]
DropOption = Annotated[
    bool, typer.Option("--drop-rejected", help="With --apply: leave rejected records out.")
]


def edit(
    store: RecordsArgument,
    against: AgainstOption = None,
    reasons: ReasonsOption = None,
    dropped: DroppedOption = False,
    images: ImagesOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8010,
    show: OpenOption = True,
    apply: ApplyOption = False,
    drop_rejected: DropOption = False,
) -> None:
    """Look through records and put their phrases, boxes and captions right, in the browser.

    Every edit is in RECORDS.edits before it is answered; the store itself is written anew by
    --apply alone.

    Example:  kosmos2 edit records.jsonl --against other-model.jsonl
    """
    _check_extra()
    if drop_rejected and not apply:
        raise RequestError("--drop-rejected goes with --apply, which writes the store anew")
    if not store.exists():
        raise RequestError(f"there are no records at {store}")
    if dropped:
        store = _dropped(store)
    if apply:
        _apply(store, drop_rejected=drop_rejected)
        return
    with _opened(store, against, reasons) as session:
        _serve(session, images, host, port, show=show)
    say(f"edits are in {store.name}.edits; to have them in the store: kosmos2 edit {store} --apply")


def _check_extra() -> None:
    try:
        for name in ("uvicorn", "fastapi"):
            import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f'the editor needs {error.name}: pip install "kosmos2[edit]"'
        ) from None


def _opened(store: Path, against: Path | None, reasons: Path | None) -> Session:
    from kosmos2.editor.session import Session, reasons_of

    told: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in reasons_of(reasons) if reasons else ():
        told[name].append(reason)
    with bar("records", None) as progress:
        return Session.open(
            store, against=against, reasons=told, tell=lambda done: _tell(progress, done)
        )


def _tell(progress: Bar, done: int) -> None:
    if done % STEP == 0:
        progress.reach(done, None, "records")


def _dropped(build: Path) -> Path:
    from kosmos2.grit.dropped import write_dropped

    with bar("units", None) as progress:
        return write_dropped(build, lambda done, total: progress.reach(done, total, "units"))


def _apply(store: Path, *, drop_rejected: bool) -> None:
    from kosmos2.editor.merge import merge

    with _opened(store, None, None) as session:
        done = merge(session, "drop" if drop_rejected else "keep")
    if done is None:
        say(f"there is nothing to write: no record of {store} was changed")
        return
    gone = f", {done.dropped:,} rejected records left out" if drop_rejected else ""
    say(f"{done.changed:,} changed records are in {store}{gone}; the journal is {done.journal}")


def _serve(session: Session, images: Path | None, host: str, port: int, *, show: bool) -> None:
    import uvicorn

    from kosmos2.editor.app import create_app
    from kosmos2.editor.served import Served
    from kosmos2.records.store import root_of

    if host not in ("127.0.0.1", "localhost", "::1"):
        note(f"warning: whoever reaches {host} can see and edit these records")
    app = create_app(session, Served(images or root_of(session.store)), host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at port {port} of {host} ({error.strerror}); choose another with "
            "--port, 0 for any that is free"
        ) from None
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}/"
    note(f"{len(session):,} records; the page is at {address} (Ctrl+C ends)")
    if show:
        webbrowser.open(address)  # the socket listens: the page waits for the server
    # A page that is open must not keep the command from ending.
    config = uvicorn.Config(
        app, log_level="error", server_header=False, timeout_graceful_shutdown=1
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
