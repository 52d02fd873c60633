"""`records convert|split|merge|sample`: other files of the same records."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kosmos2.cli.console import note, say
from kosmos2.cli.records_reading import (
    FromOption,
    ImagesOption,
    SourceArgument,
    ToOption,
    format_at,
    format_for,
    opened,
    watching,
)
from kosmos2.errors import Kosmos2Error, RecordError, RequestError, one_line

if TYPE_CHECKING:
    from kosmos2.records.convert import Ledger
    from kosmos2.records.formats.format import Format
    from kosmos2.records.record import GroundedRecord
    from kosmos2.records.select import Parts

SOME_SKIPPED = 3
"""The exit code where records could not be read or written."""
REASONS = 10
MOST_PARTS = 1000


class View(StrEnum):
    NON_OVERLAPPING = "non-overlapping"
    LONGEST = "longest"
    ONE_BOX = "one-box"


class OnDuplicates(StrEnum):
    REFUSE = "refuse"
    KEEP = "keep"
    DROP = "drop"


TargetArgument = Annotated[
    Path,
    typer.Argument(metavar="TARGET", help="The file or folder to write.", show_default=False),
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Write in place of what lies at TARGET.")
]


def convert(
    source: SourceArgument,
    target: TargetArgument,
    to: ToOption = None,
    source_format: FromOption = None,
    images: ImagesOption = None,
    views: Annotated[
        list[View] | None,
        typer.Option(
            "--view",
            help="non-overlapping: spans that share no character; longest: no span inside another; "
            "one-box: the best box of each span. Repeatable, done in this order.",
            show_default=False,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", min=0, max=1, help="Only boxes with at least this score."),
    ] = None,
    min_area: Annotated[
        float | None,
        typer.Option(
            "--min-area", min=0, max=1, help="Only boxes of at least this share of the picture."
        ),
    ] = None,
    in_place: ReplaceOption = False,
) -> None:
    """Write records in another format; print what it changes or loses, if anything.

    The exit code is 3 where records could not be read or written; their number and why is told.

    Example:  kosmos2 records convert records.jsonl coco/ --to coco
    """
    from kosmos2.records.convert import convert as write

    reading = format_at(source, source_format)
    writing = _writing(target, to, in_place=in_place)
    change = _change(views or [], min_score, min_area)
    with watching("records") as watch:
        ledger = write(
            source,
            target,
            source_format=_changed(reading, lambda read: watch(map(change, read))),
            target_format=writing,
            images=images,
            existing="replace" if in_place else "refuse",
        )
    _conclude(target, writing, ledger)


TheTargetArgument = Annotated[
    Path,
    typer.Argument(metavar="OUT", help="A new folder for the parts.", show_default=False),
]
ByOption = Annotated[
    int | None,
    typer.Option("--by", metavar="N", min=1, max=MOST_PARTS, help="So many equal parts."),
]
FractionsOption = Annotated[
    str | None,
    typer.Option("--fractions", metavar="A,B,...", help="Parts of these shares, such as 0.9,0.1."),
]
NamesOption = Annotated[
    str | None,
    typer.Option("--names", metavar="A,B,...", help="What to call the parts, such as train,test."),
]


def split(
    source: SourceArgument,
    target: TheTargetArgument,
    by: ByOption = None,
    fractions: FractionsOption = None,
    names: NamesOption = None,
    to: ToOption = None,
    source_format: FromOption = None,
    images: ImagesOption = None,
) -> None:
    """Share records out, by a hash of their ids: a record always falls into the same part.

    Example:  kosmos2 records split records.jsonl parts/ --fractions 0.9,0.1 --names train,test
    """
    from kosmos2.records.convert import write_all
    from kosmos2.records.select import share_out
    from kosmos2.records.store import root_of

    parts = _parts(by, fractions)
    called = _names(names, len(parts))
    reading = format_at(source, source_format)
    ending = "".join(Path(source.name).suffixes[-2:]) if to is None and source.is_file() else ""
    ending = ending if ending.startswith((".jsonl", ".ndjson")) else Path(ending).suffix
    writing = format_for(Path(f"part{ending}"), to or (None if ending else reading.name))
    if os.path.lexists(target):
        raise RecordError(f"{target} is there already; name a new folder for the parts")
    ending = ending or _ENDINGS.get(writing.name, "")
    # The parts appear together: a folder beside becomes the target when all are written.
    half = target.with_name(f".part-{os.getpid()}-{target.name}")

    def write(number: int, records: "Iterator[GroundedRecord]") -> "Ledger":
        part = half / f"{called[number]}{ending}"
        return write_all(records, part, writing, root=root_of(source))

    try:
        half.mkdir(parents=True)
        with watching("records") as watch:
            ledgers = share_out(watch(opened(source, reading, images)), parts, write)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    table = Table("part", "records")
    for name, ledger in zip(called, ledgers, strict=True):
        table.add_row(f"{name}{ending}", f"{ledger.written:,}")
    Console().print(table)
    for ledger in ledgers:
        _tell_skipped(ledger)
    if any(ledger.skipped for ledger in ledgers):
        raise typer.Exit(SOME_SKIPPED)


PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="A B ... OUT",
        help="What to put together, in this order, and at the end what to write.",
        show_default=False,
    ),
]
DuplicatesOption = Annotated[
    OnDuplicates,
    typer.Option("--duplicates", help="What to do with a record whose id was there before."),
]


def merge(
    paths: PathsArgument,
    duplicates: DuplicatesOption = OnDuplicates.REFUSE,
    to: ToOption = None,
    source_format: FromOption = None,
    images: ImagesOption = None,
    in_place: ReplaceOption = False,
) -> None:
    """Put sets of records together, one after the other.

    It remembers the ids, in some 100 bytes of memory for each record.

    Example:  kosmos2 records merge day1.jsonl day2.parquet both.jsonl --duplicates drop
    """
    from kosmos2.records.convert import write_all
    from kosmos2.records.select import Duplicates, Merge
    from kosmos2.records.store import root_of

    *sources, target = paths
    if not sources:
        raise RequestError(f"name what to put together and then what to write, got {target} alone")
    if any(os.path.realpath(source) == os.path.realpath(target) for source in sources):
        raise RequestError(f"{target} is one of the sources; write another file")
    forms = [format_at(source, source_format) for source in sources]
    writing = _writing(target, to, in_place=in_place)
    merging = Merge(Duplicates(duplicates))
    root = root_of(sources[0])
    with watching("records") as watch:
        read = (
            (str(source), _moved(opened(source, form, images), root_of(source), root))
            for source, form in zip(sources, forms, strict=True)
        )
        ledger = write_all(
            watch(merging.records(read)),
            target,
            writing,
            root=root,
            existing="replace" if in_place else "refuse",
        )
    if merging.found:
        done = {OnDuplicates.KEEP: "kept", OnDuplicates.DROP: "dropped"}[duplicates]
        note(f"{merging.found:,} records with an id that was there before are {done}")
    _conclude(target, writing, ledger)


def sample(
    source: SourceArgument,
    target: TargetArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many records.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Others.")] = 0,
    to: ToOption = None,
    source_format: FromOption = None,
    images: ImagesOption = None,
    in_place: ReplaceOption = False,
) -> None:
    """Write some of the records, each as likely as any other, in their order.

    Example:  kosmos2 records sample records.jsonl few.jsonl -n 200 --seed 1
    """
    from kosmos2.records.convert import write_all
    from kosmos2.records.select import sample as sampled
    from kosmos2.records.store import root_of

    reading, writing = format_at(source, source_format), _writing(target, to, in_place=in_place)
    if os.path.realpath(source) == os.path.realpath(target):
        raise RequestError(f"{target} is what the records are read from; write another file")
    with watching("records") as watch:
        few = sampled(watch(opened(source, reading, images)), count, seed=seed)
    ledger = write_all(
        few,
        target,
        writing,
        root=root_of(source),
        existing="replace" if in_place else "refuse",
    )
    _conclude(target, writing, ledger)


_ENDINGS = {
    "jsonl": ".jsonl",
    "grit": ".jsonl",
    "parquet": ".parquet",
    "grit-parquet": ".parquet",
    "webdataset": ".tar",
}
"""Of files, for formats whose sources may be folders."""


def _writing(target: Path, to: str | None, *, in_place: bool) -> "Format":
    if os.path.lexists(target) and not in_place:
        raise RecordError(f"{target} is there already; remove it, or say --replace")
    if to is None and in_place and target.is_file():
        # Below a file lies nothing, so the name alone says what it shall be.
        return format_for(target / target.name, None)
    return format_for(target, to)


def _changed(
    form: "Format",
    change: "Callable[[Iterator[GroundedRecord]], Iterator[GroundedRecord]]",
) -> "Format":
    """Return the format with a reader that gives changed records."""
    if (read := form.read) is None:
        return form
    return replace(form, read=lambda path, reading: change(read(path, reading)))


def _change(
    chosen: list[View], min_score: float | None, min_area: float | None
) -> "Callable[[GroundedRecord], GroundedRecord]":
    """Return what filters a record's boxes by score and area, then looks at them by the views."""
    from kosmos2.records import views

    by_name = {
        View.NON_OVERLAPPING: views.non_overlapping,
        View.LONGEST: views.longest_expression,
        View.ONE_BOX: views.one_box,
    }

    def change(record: "GroundedRecord") -> "GroundedRecord":
        if min_score is not None:
            record = views.minimum_score(record, min_score)
        if min_area is not None:
            record = views.minimum_area(record, min_area)
        for view in chosen:
            record = by_name[view](record)
        return record

    return change


def _moved(
    records: "Iterable[GroundedRecord]", old_root: Path, root: Path
) -> "Iterator[GroundedRecord]":
    """Yield records of one folder with paths that start from another."""
    from kosmos2.records.convert import rebased

    old, new = os.path.realpath(old_root), os.path.realpath(root)
    return (rebased(new, record, old) for record in records)


def _parts(by: int | None, fractions: str | None) -> "Parts":
    from kosmos2.records.select import Parts

    if (by is None) == (fractions is None):
        raise RequestError("say how to split: --by N, or --fractions such as 0.9,0.1")
    if by is not None:
        return Parts([1 / by] * by)
    assert fractions is not None
    try:
        return Parts([float(part) for part in fractions.split(",")])
    except ValueError as error:
        if isinstance(error, Kosmos2Error):
            raise
        raise RequestError(f"--fractions takes numbers such as 0.9,0.1, got {fractions}") from error


def _names(names: str | None, count: int) -> list[str]:
    width = len(str(count - 1))
    if names is None:
        return [f"part-{number:0{width}}" for number in range(count)]
    called = [name.strip() for name in names.split(",")]
    if len(set(called)) != count or any(not name or Path(name).name != name for name in called):
        raise RequestError(f"--names takes {count} different names of files, got {names}")
    return called


def _conclude(target: Path, form: "Format", ledger: "Ledger") -> None:
    """Say what was written, what the format changed or lost, and what was skipped."""
    from kosmos2.records.convert import fates
    from kosmos2.records.formats.format import KEPT

    changed = [fate for fate in fates(form, ledger) if fate.how != KEPT]
    if changed:
        table = Table("of a record", f"in {form.name}", "records")
        for fate in changed:
            table.add_row(str(fate.feature), Text(fate.how), f"{fate.records:,}")
        Console().print(table)
    _tell_skipped(ledger)
    say(f"{ledger.written:,} records in {target}")
    if ledger.skipped:
        raise typer.Exit(SOME_SKIPPED)


def _tell_skipped(ledger: "Ledger") -> None:
    if not ledger.skipped:
        return
    records = "1 record is" if ledger.skipped == 1 else f"{ledger.skipped:,} records are"
    note(f"{records} left out:")
    for reason, times in ledger.reasons.most(REASONS):
        note(f"  {one_line(reason)}" + (f" ({times:,} times)" if times > 1 else ""))
