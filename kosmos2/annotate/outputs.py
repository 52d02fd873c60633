"""Finished units -> what the user asked for; each file appears whole, under its name or not at all.

Everything here may be done twice: a run that is killed in the middle does it again.
"""

from __future__ import annotations

import glob
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from kosmos2.annotate.plan import Making
from kosmos2.annotate.worker import ERRORS, RECORDS, error_line, thumbnail_name
from kosmos2.errors import one_line
from kosmos2.grounding.page import PageItem, page
from kosmos2.records import store
from kosmos2.records.convert import Ledger, losses, write_all
from kosmos2.records.formats.format import Format
from kosmos2.records.record import GroundedRecord
from kosmos2.shards import JobFolder, Unit

CARDS = 100
"""Pictures on one page."""
PLAIN = ".jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where the results go."""

    records: Path
    """A file or a folder, as its format is."""
    format: Format
    errors: Path
    drawings: Path | None = None
    crops: Path | None = None
    page: Path | None = None
    """Of further hundreds of pictures: NAME-2.html, NAME-3.html, ..."""

    @property
    def base(self) -> Path:
        """The folder that paths in records start from."""
        return self.records.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of the results."""

    pages: tuple[Path, ...]
    losses: tuple[str, ...]
    """What the format cannot carry, a line for each kind."""
    refused: int
    """Records that the format cannot say at all."""


def write_outputs(
    folder: JobFolder, units: Callable[[], Iterable[Unit]], outputs: Outputs
) -> Written:
    """Write all that was asked for. `units` are all, also those in quarantine."""
    places = (folder.part(unit.name) for unit in units())
    parts = [part for part in places if part.is_dir()]
    pages = _pages(parts, outputs.page) if outputs.page is not None else ()
    for kind, target in ((Making.DRAWING, outputs.drawings), (Making.CROPS, outputs.crops)):
        if target is not None:
            _link_all((part / kind for part in parts), target)
    _write_errors(folder, units(), outputs.errors)
    ledger = _write_records(parts, outputs)
    return Written(
        pages=pages, losses=tuple(losses(outputs.format, ledger)), refused=ledger.skipped
    )


def read_records(parts: Iterable[Path]) -> Iterator[GroundedRecord]:
    """Yield the records of finished units, in the order of the input."""
    for part in parts:
        yield from store.read(part / RECORDS)


def beside(path: Path) -> Path:
    """Return where to write what will be `path`: a name with the same ending, in its folder."""
    return path.with_name(f".partial-{path.name}")


def _write_records(parts: Sequence[Path], outputs: Outputs) -> Ledger:
    target, form = outputs.records, outputs.format
    if form.name == "jsonl" and target.suffix in ("", PLAIN):
        target.parent.mkdir(parents=True, exist_ok=True)
        _join((part / RECORDS for part in parts), beside(target))
        appear(beside(target), target)
        return Ledger()
    for half in target.parent.glob(f".part-*-{glob.escape(target.name)}"):
        _remove(half)  # of a run that was killed
    records = read_records(parts)
    return write_all(records, target, form, root=outputs.base, existing="replace")


def _write_errors(folder: JobFolder, units: Iterable[Unit], target: Path) -> None:
    """Write the errors in the order of the input; no file where there are none."""
    failed = {each.name: each.reason for each in folder.quarantined()}
    half = beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with half.open("wb") as file:
        for unit in units:
            path = folder.part(unit.name) / ERRORS
            reason = failed.get(unit.name, "")
            file.write(path.read_bytes() if path.is_file() else _unit_errors(unit, reason))
        size = file.tell()
    if size:
        appear(half, target)
    else:
        half.unlink()
        target.unlink(missing_ok=True)


def _unit_errors(unit: Unit, reason: str) -> bytes:
    """Return the lines of a unit that could not be done at all."""
    last = one_line((reason.strip().splitlines() or ["nobody knows why"])[-1])
    why = f"its unit {unit.name} failed: {last}"
    return b"".join(error_line(item, why) for item in unit.items)


def _join(files: Iterable[Path], target: Path) -> None:
    with target.open("wb") as joined:
        for path in files:
            with path.open("rb") as part:
                shutil.copyfileobj(part, joined)


def appear(half: Path, target: Path) -> None:
    """Give a finished file its name, in place of what may be there."""
    with half.open("rb") as file:
        os.fsync(file.fileno())
    if target.is_dir():
        _remove(target)
    half.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_all(folders: Iterable[Path], target: Path) -> None:
    """Let the files of all folders lie in one, under their paths; the parts keep theirs, too."""
    target.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() and place.samefile(path):
                continue
            half = beside(place)
            half.unlink(missing_ok=True)
            try:
                half.hardlink_to(path)
            except OSError:  # another disk, or one that knows no links
                shutil.copyfile(path, half)
            half.replace(place)


def _pages(parts: Sequence[Path], target: Path) -> tuple[Path, ...]:
    """Write pages of a hundred pictures each; return them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    cards = ((record, part) for part in parts for record in read_records([part]))
    written = []
    for number in itertools.count(1):
        some = list(itertools.islice(cards, CARDS))
        if not some and number > 1:
            break
        path = target if number == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}")
        half = beside(path)
        text = page([_card(*each) for each in some])
        half.write_text(text, encoding="utf-8", errors="backslashreplace")
        appear(half, path)
        written.append(path)
        if len(some) < CARDS:
            break
    return tuple(written)


def _card(record: GroundedRecord, part: Path) -> PageItem:
    path = part / Making.THUMBNAIL / f"{thumbnail_name(record)}.jpg"
    # A picture that was gone when its thumbnail was to be made still has its words.
    image = Image.open(path) if path.is_file() else Image.new("RGB", (64, 64), "white")
    where = record.image or record.url or ""
    return PageItem(
        name=str(record.id),
        image=image,
        grounded=record.grounded("ref_exps"),
        note=f"{where}, {record.width} x {record.height}" if where else "",
    )
