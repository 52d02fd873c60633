"""What all commands on records share: options, opening any format, and a line of progress."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kosmos2.cli.console import bar
from kosmos2.errors import RecordError

if TYPE_CHECKING:
    from kosmos2.records.formats.format import Format, Refuse
    from kosmos2.records.record import GroundedRecord

T = TypeVar("T")
STEP = 100
"""Records between two moves of the progress line."""

SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        help="Records: .jsonl (.gz, .zst), .parquet, .tar, a folder of such, or any format that "
        "`kosmos2 records formats` lists.",
        show_default=False,
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FORMAT",
        help="The format of what is read; else it is seen from the files.",
        show_default=False,
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="The format to write; else the name of the target says it.",
        show_default=False,
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


def format_at(path: Path, name: str | None) -> "Format":
    """Return the format of what lies at a path: the one named, else the one that it looks like."""
    from kosmos2.records.formats.registry import format_named, format_of
    from kosmos2.records.store import Kind, kind_named

    if not path.exists():
        raise RecordError(f"there is nothing at {path}")
    if name is not None:
        return format_named(name)
    try:
        return format_of(path)
    except RecordError:
        # Lines without any record still are lines.
        if kind_named(path.name) is Kind.JSONL and path.suffix.lower() != ".json":
            return format_named("jsonl")
        raise


def format_for(target: Path, name: str | None) -> "Format":
    """Return the format to write: the one named, else the one that the target's name says."""
    from kosmos2.records.formats.registry import format_named, format_of

    if name is None and target.exists():
        raise RecordError(f"{target} is there already; remove it, or choose another name")
    form = format_of(target) if name is None else format_named(name)
    if form.write is None:
        raise RecordError(f"the format {form.name} can only be read; name another with --to")
    return form


def opened(
    path: Path, form: "Format", images: Path | None, refuse: "Refuse | None" = None
) -> "Iterator[GroundedRecord]":
    """Return the records of a path, one by one; their pictures start from `root_of(path)`."""
    from kosmos2.records.formats.format import Reading, raise_it

    if form.read is None:
        raise RecordError(f"{form.title} ({form.name}) can be written but not read")
    return form.read(path, Reading(images=images, refuse=refuse or raise_it))


@contextmanager
def watching(what: str) -> Iterator[Callable[[Iterable[T]], Iterator[T]]]:
    """Give a function that passes items on while a line on standard error counts them."""
    with bar(what, None) as progress:

        def watch(items: Iterable[T]) -> Iterator[T]:
            for number, item in enumerate(items, start=1):
                if number % STEP == 0:
                    progress.reach(number, None, what)
                yield item

        yield watch
