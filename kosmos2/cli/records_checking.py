"""`records check`: every fault of every record, by its place, field and value."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kosmos2.cli.console import note, say
from kosmos2.cli.records_reading import FromOption, SourceArgument, format_at, opened, watching
from kosmos2.errors import Kosmos2Error, one_line

if TYPE_CHECKING:
    from kosmos2.records.formats.format import Format
    from kosmos2.records.schema import Fault

SOME_FAULTS = 3
"""The exit code where records have faults."""
SHOWN = 60
"""Characters of a value in a table."""
STORES = ("jsonl", "parquet", "webdataset", "grit", "grit-parquet")
"""Formats whose records lie there as they are, so that every field can be told."""


def check(
    path: SourceArgument,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Faults to print; all are counted.")
    ] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each fault as a JSON object.")
    ] = False,
    source_format: FromOption = None,
) -> None:
    """Find every fault, with its record, field and value. The exit code is 3 where there are some.

    Example:  kosmos2 records check records.jsonl
    """
    form = format_at(path, source_format)
    faults: list[Fault] = []
    found = 0
    with watching("faults") as watch:
        for fault in watch(_faults(path, form)):
            found += 1
            if len(faults) < limit:
                faults.append(fault)
    if as_json:
        for fault in faults:
            say(json.dumps(asdict(fault), ensure_ascii=False, default=str))
    elif faults:
        _print_faults(faults)
    rest = f", {len(faults)} of them shown" if found > len(faults) else ""
    if found:
        note(f"{found:,} {'fault' if found == 1 else 'faults'} in {path}{rest}")
        raise typer.Exit(SOME_FAULTS)
    note(f"no faults in {path}, read as {form.title}")


def _faults(path: Path, form: "Format") -> "Iterator[Fault]":
    """Yield the faults of a store by field, those of any other format as its reader tells them."""
    from kosmos2.records.schema import Fault
    from kosmos2.records.schema import check as check_store

    if form.name in STORES:
        yield from check_store(path)
        return
    told: list[Fault] = []

    def refuse(where: str, error: Kosmos2Error) -> None:
        told.append(Fault(where=where, record=None, field="", value=None, why=str(error)))

    for _ in opened(path, form, None, refuse):
        yield from told
        told.clear()
    yield from told


def _print_faults(faults: "Sequence[Fault]") -> None:
    table = Table("where", "record", "field", "value", "why")
    for fault in faults:
        value = one_line(json.dumps(fault.value, ensure_ascii=False, default=str))
        value = value if len(value) <= SHOWN else value[: SHOWN - 1] + "…"
        table.add_row(
            Text(one_line(fault.where), overflow="fold"),
            Text("" if fault.record is None else one_line(fault.record), overflow="fold"),
            Text(fault.field, overflow="fold"),
            Text(value if fault.field else "", overflow="fold"),
            Text(one_line(fault.why), overflow="fold"),
        )
    Console().print(table)
