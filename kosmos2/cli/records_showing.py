"""`records show`: records as pictures, or as a page, with their boxes."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.console import note, say
from kosmos2.cli.records_reading import (
    FromOption,
    ImagesOption,
    SourceArgument,
    format_at,
    opened,
    watching,
)
from kosmos2.cli.showing import DRAWABLE
from kosmos2.errors import RecordError, RequestError, one_line

if TYPE_CHECKING:
    from kosmos2.grounding.page import PageItem
    from kosmos2.records.formats.format import Format
    from kosmos2.records.pictures import Pictures
    from kosmos2.records.record import GroundedRecord


def show(
    path: SourceArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="A picture (.png, .jpg, ...), or a page (.html) whose phrases light their boxes.",
            show_default=False,
        ),
    ],
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Show this record. Repeatable."),
    ] = None,
    numbers: Annotated[
        list[int] | None,
        typer.Option("--number", metavar="N", min=1, help="Show the N-th record. Repeatable."),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=200, help="Else the first so many.")
    ] = 8,
    images: ImagesOption = None,
    source_format: FromOption = None,
) -> None:
    """Draw records with their boxes: one or several as a picture, or as a page of HTML.

    Example:  kosmos2 records show records.jsonl --number 3 --out third.png
    """
    is_page = out.suffix.lower() in (".html", ".htm")
    if not is_page and out.suffix.lower() not in DRAWABLE:
        raise RequestError(f"--out is a .html or a picture ({', '.join(DRAWABLE)}), got {out.name}")
    form = format_at(path, source_format)
    chosen = _chosen(path, form, images, ids or [], numbers or [], count)
    if not chosen:
        raise RecordError(f"there are no records in {path}")
    items = cards(path, chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    if is_page:
        from kosmos2.grounding.page import page

        out.write_text(page(items), encoding="utf-8")
    else:
        _draw(items, out)
    say(f"{len(items)} records drawn in {out}" if len(items) > 1 else f"drawn in {out}")


def _chosen(
    path: Path,
    form: "Format",
    images: Path | None,
    ids: Sequence[str],
    numbers: Sequence[int],
    count: int,
) -> "list[GroundedRecord]":
    """Return the records asked for, in the order of the file; refuse those that are not there."""
    with watching("records") as watch:
        read = watch(opened(path, form, images))
        if not ids and not numbers:
            return list(islice(read, count))
        missing: set[str | int] = {*ids, *numbers}
        found = []
        for number, record in enumerate(read, start=1):
            names = {str(record.id), number} & missing
            if names:
                found.append(record)
                missing -= names
            if not missing:
                break
    if missing:
        named = ", ".join(str(name) for name in sorted(missing, key=str))
        raise RecordError(f"{path} has no record {named}")
    return found


def cards(path: Path, chosen: "Sequence[GroundedRecord]") -> "list[PageItem]":
    """Return a card for each record; say which pictures are not to be had."""
    from kosmos2.records.pictures import Pictures
    from kosmos2.records.store import root_of

    pictures = Pictures(root_of(path))
    items = [_item(record, pictures) for record in chosen]
    if lacking := [item for item in items if item.note]:
        note(
            f"{len(lacking)} of {len(items)} pictures are not here, their boxes are drawn on grey: "
            f"{lacking[0].note}"
        )
    return items


def _item(record: "GroundedRecord", pictures: "Pictures") -> "PageItem":
    from kosmos2.records import report

    try:
        return report.page_item(record, report.open_picture(record, pictures))
    except RecordError as error:
        return report.page_item(record, report.empty_picture(record), one_line(error))


def _draw(items: "Sequence[PageItem]", out: Path) -> None:
    from kosmos2.grounding.render import draw
    from kosmos2.grounding.sheet import Tile, sheet

    if len(items) == 1:
        drawing = draw(items[0].image, items[0].grounded)
    else:
        drawing = sheet([Tile(image=item.image, grounded=item.grounded) for item in items])
    drawing.save(out)
