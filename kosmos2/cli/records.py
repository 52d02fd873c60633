"""`records`: look into files of grounded records, in any format, and make others of them."""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kosmos2.cli.console import note, say
from kosmos2.cli.records_changing import convert, merge, sample, split
from kosmos2.cli.records_checking import check
from kosmos2.cli.records_reading import (
    FromOption,
    ImagesOption,
    SourceArgument,
    format_at,
    opened,
    watching,
)
from kosmos2.cli.records_showing import cards, show
from kosmos2.errors import one_line

if TYPE_CHECKING:
    from kosmos2.records.record import GroundedRecord

ERRORS = "errors.jsonl"
NO_RECORD = "no valid record; `kosmos2 records check` says why"

records = typer.Typer(
    help="Files of grounded records: look at them, count, check, convert.",
    epilog="Example:  kosmos2 records head records.jsonl",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@records.command(no_args_is_help=True)
def head(
    path: SourceArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many records.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each record as it is, one per line.")
    ] = False,
    source_format: FromOption = None,
) -> None:
    """Print the first records.

    Example:  kosmos2 records head records.parquet -n 3
    """
    form = format_at(path, source_format)
    for record in islice(opened(path, form, None), count):
        if as_json:
            say(json.dumps(record.to_dict(), ensure_ascii=False, default=str))
        else:
            _print(record)


@records.command(no_args_is_help=True)
def stats(
    path: SourceArgument,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a report with charts and records."),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            "--errors",
            metavar="FILE",
            help="Why pictures became no record; else the errors.jsonl beside PATH, if any.",
            show_default=False,
        ),
    ] = None,
    drawn: Annotated[
        int, typer.Option("--drawn", min=1, max=200, help="Records to draw in the report.")
    ] = 12,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draw others.")] = 0,
    images: ImagesOption = None,
    source_format: FromOption = None,
) -> None:
    """Count what records hold: captions, spans, boxes, scores, phrases, what was dropped.

    Example:  kosmos2 records stats records.jsonl --html report.html
    """
    from kosmos2.records import report
    from kosmos2.records.select import sample as sampled
    from kosmos2.records.stats import Stats, read_reasons

    form = format_at(path, source_format)
    counted = Stats()
    read = opened(path, form, images, lambda where, error: counted.drop(NO_RECORD))
    with watching("records") as watch:
        few = sampled(counted.counting(watch(read)), drawn, seed=seed)
    if errors is None and (beside := path.parent / ERRORS).is_file() and beside != path:
        errors = beside
        note(f"what became no record is counted in {beside}")
    for reason in read_reasons(errors) if errors else ():
        counted.drop(reason)
    table = Table("", "")
    for name, value in report.lines(counted):
        table.add_row(Text(name), Text(one_line(value)))
    Console().print(table)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        items = cards(path, few)
        html.write_text(report.report(counted, source=str(path), items=items), encoding="utf-8")
        say(f"written: {html}")


@records.command()
def formats(
    name: Annotated[
        str | None,
        typer.Argument(metavar="FORMAT", help="Tell all about this one.", show_default=False),
    ] = None,
) -> None:
    """List the formats; of one, tell what it keeps of a record and what it loses.

    Example:  kosmos2 records formats coco
    """
    from kosmos2.records.convert import LOST, table
    from kosmos2.records.formats.format import KEPT
    from kosmos2.records.formats.registry import FORMATS, format_named

    if name is None:
        listed = Table("format", "read", "write", "files", "lost")
        for form in FORMATS.values():
            lost = [str(feature) for feature, how in table(form) if how == LOST]
            ways = ["yes" if way else "no" for way in (form.read, form.write)]
            listed.add_row(form.name, *ways, Text(form.layout), Text(", ".join(lost) or "nothing"))
        Console().print(listed)
        return
    form = format_named(name)
    say(f"{form.name}: {form.title}")
    say(f"files: {form.layout}")
    say(f"boxes: {form.coordinates}")
    fates = Table("of a record", "what becomes of it")
    for feature, how in table(form):
        fates.add_row(str(feature), Text(how, style={KEPT: "", LOST: "bold"}.get(how, "dim")))
    Console().print(fates)


for _command in (show, check, convert, split, merge, sample):
    records.command(_command.__name__, no_args_is_help=True)(_command)


def _print(record: "GroundedRecord") -> None:
    """Print a record for people: where it is from, its caption, and its boxes in pixels."""
    from kosmos2.grounding.render import colour
    from kosmos2.records.formats.format import by_span

    console = Console()
    is_sized = record.width is not None and record.height is not None
    size = f"  {record.width} x {record.height}" if is_sized else ""
    known = [str(part) for part in (record.id, record.image or record.url) if part is not None]
    name = one_line("  ".join(known) or "(no name)")
    console.print(Text.assemble((name, "bold"), (size, "dim")), soft_wrap=True)
    console.print(Text(one_line(record.caption) or "(no words)"), soft_wrap=True)
    if record.entries:
        width, height = (record.width or 1, record.height or 1) if is_sized else (1, 1)
        digits = 0 if is_sized else 3
        table = Table("phrase", "box in pixels" if is_sized else "box, shares of it", "score")
        for index, ((start, end), entries) in enumerate(by_span(record.entries).items()):
            words = Text(one_line(record.caption[start:end]), style=colour(index))
            for entry in entries:
                corners = entry.box.to_pixels(width=width, height=height)
                shown = ", ".join(f"{corner:.{digits}f}" for corner in corners)
                table.add_row(words, shown, "" if entry.score is None else f"{entry.score:.2f}")
                words = Text("")
        console.print(table)
    console.print()
