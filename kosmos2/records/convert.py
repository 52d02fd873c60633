"""From one format into another, record by record; the whole target appears at once or not at all.

Nothing is lost in silence: a `Ledger` counts the records that held what the target cannot carry,
and every record that could not be read or written, with its reason.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kosmos2.errors import Kosmos2Error, RecordError
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, features
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.stats import Tally
from kosmos2.records.store import root_of

LOSSLESS = "jsonl"
"""The format that also says what no file of text may hold, with an escape."""

LOST = "lost"
_REASONS = 100

_HEADING = """\
# Formats

What `kosmos2 records convert` and `kosmos2 annotate --to` read and write, and what becomes of each
part of a record. "Kept" means that it comes back as it was when the file is read again; what is
lost is counted and printed by every conversion. This page is made from the code by
`kosmos2.records.convert.document`; a test says when it is old.

Formats with room for further keys carry what they have no words for under a key of ours (`record`),
which other tools pass over. Where somebody edited such a file, the edited text and boxes count.

"""

Existing = Literal["refuse", "replace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A record that is not in the target, and why."""

    step: Literal["read", "write"]
    where: str
    """The line, file or id of the record."""
    reason: str


def forget(skipped: Skipped) -> None:
    """Take note of a skipped record in the counts alone."""


class Ledger:
    """Counts what a conversion read, wrote, lost and skipped, in bounded memory."""

    def __init__(self, on_skip: Callable[[Skipped], None] = forget) -> None:
        self.read = 0
        self.written = 0
        self.skipped = 0
        self.reasons = Tally(_REASONS)
        self.held: Counter[Feature] = Counter()
        """How many of the written records held a feature."""
        self._on_skip = on_skip
        self._last: set[Feature] = set()

    def take(self, record: GroundedRecord) -> None:
        """Count a record that goes to the writer."""
        self._last = features(record)
        self.read += 1
        self.written += 1
        self.held.update(self._last)

    def refuse_reading(self, where: str, error: Kosmos2Error) -> None:
        """Count what is no record."""
        self._skip(Skipped(step="read", where=where, reason=str(error)))

    def refuse_writing(self, where: str, error: Kosmos2Error) -> None:
        """Count the record that was taken last as one that the target cannot say."""
        self.written -= 1
        self.held.subtract(self._last)
        self._skip(Skipped(step="write", where=where, reason=str(error)))

    def _skip(self, skipped: Skipped) -> None:
        self.skipped += 1
        self.reasons.add(skipped.reason)
        self._on_skip(skipped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one feature in a format."""

    feature: Feature
    how: str
    """`KEPT`, `LOST`, or how it survives."""
    records: int
    """How many of the written records held it."""


def fates(form: Format, ledger: Ledger) -> list[Fate]:
    """Return what became of everything that the written records held."""
    return [
        Fate(feature=feature, how=form.carries.get(feature, LOST), records=ledger.held[feature])
        for feature in Feature
        if ledger.held[feature]
    ]


def losses(form: Format, ledger: Ledger) -> list[str]:
    """Return a line for everything that the target lacks or changes; none if all was kept."""
    return [
        f"{fate.feature}: {fate.how}, in {fate.records} of {ledger.written} records"
        for fate in fates(form, ledger)
        if fate.how != KEPT
    ]


def table(form: Format) -> list[tuple[Feature, str]]:
    """Return what becomes of each feature in a format: kept, lost, or how it survives."""
    return [(feature, form.carries.get(feature, LOST)) for feature in Feature]


def document(forms: Iterable[Format]) -> str:
    """Return `docs/formats.md`: every format with its files, numbers, and what becomes of what."""
    return _HEADING + "\n".join(_section(form) for form in forms)


def _section(form: Format) -> str:
    ways = {"read": form.read, "written": form.write}
    able = " and ".join(way for way, does in ways.items() if does) or "neither read nor written"
    grouped: dict[str, list[str]] = {KEPT: [], LOST: []}
    for feature, how in table(form):
        grouped.setdefault(how, []).append(str(feature))
    rows = [(", ".join(names), how) for how, names in grouped.items() if names]
    if len(grouped[KEPT]) == len(Feature):
        rows = [("everything", KEPT)]
    lines = [
        f"## `{form.name}`: {form.title}",
        "",
        f"- Files: {_plain(form.layout)}; {able}.",
        f"- Boxes: {_plain(form.coordinates)}.",
        "",
        "| Of a record | What becomes of it |",
        "| --- | --- |",
        *(f"| {names} | {how} |" for names, how in rows),
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return a text in which Markdown sees no tags; what stands between backticks is as it is."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def convert(
    source: Path,
    target: Path,
    *,
    source_format: Format,
    target_format: Format,
    images: Path | None = None,
    existing: Existing = "refuse",
    ledger: Ledger | None = None,
) -> Ledger:
    """Write the records of `source` to `target` and return the counts.

    `images` is the folder that the source's names of pictures start from, where it is not the
    source's own. Records with a fault are skipped and counted; a source that is no such file at
    all ends the conversion, and then no target appears.
    """
    if source_format.read is None:
        raise RecordError(
            f"{source_format.title} ({source_format.name}) can be written but not read: its files "
            "say too little to make records of"
        )
    if not source.exists():
        raise RecordError(f"there is nothing to convert at {source}")
    ledger = Ledger() if ledger is None else ledger
    _check_apart(source, target)
    records = source_format.read(source, Reading(images=images, refuse=ledger.refuse_reading))
    return write_all(
        records, target, target_format, root=root_of(source), existing=existing, ledger=ledger
    )


def write_all(
    records: Iterable[GroundedRecord],
    target: Path,
    form: Format,
    *,
    root: Path,
    existing: Existing = "refuse",
    ledger: Ledger | None = None,
) -> Ledger:
    """Write records, whose paths start from `root`, to a new file or folder; return the counts.

    In the target, paths start from the folder of its file, or from the folder that it is. While
    it is written it lies beside its place, under a name that begins with `.part-`.
    """
    if form.write is None:
        raise RecordError(f"{form.title} ({form.name}) can be read but not written")
    ledger = Ledger() if ledger is None else ledger
    with _appearing(target, existing) as part:
        pictures = Pictures(part.parent)
        writing = Writing(pictures=pictures, refuse=ledger.refuse_writing)
        moved = _moved(records, root, part, pictures, ledger)
        form.write(moved if form.name == LOSSLESS else _sayable(moved, ledger), part, writing)
    return ledger


def _moved(
    records: Iterable[GroundedRecord], root: Path, part: Path, pictures: Pictures, ledger: Ledger
) -> Iterator[GroundedRecord]:
    """Yield the records with paths that start from where the target is written."""
    base: str | None = None
    real_root = os.path.realpath(root)
    for record in records:
        if base is None:
            # A writer of a folder has made it before it takes the first record.
            pictures.root = part if part.is_dir() else part.parent
            base = os.path.realpath(pictures.root)
        ledger.take(record)
        yield rebased(base, record, real_root)


def _sayable(records: Iterable[GroundedRecord], ledger: Ledger) -> Iterator[GroundedRecord]:
    """Yield the records without those that hold bytes of a file's name which are no letters."""
    for record in records:
        try:
            json.dumps(record.to_dict(), ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            fault = f"{error.object[error.start : error.end]!a} in it is no letter of Unicode"
            ledger.refuse_writing(f"record {record.id!a}", RecordError(fault))
        else:
            yield record


def rebased(base: str, record: GroundedRecord, root: str) -> GroundedRecord:
    """Return a record whose paths start from `root` with paths from `base`, both real folders."""
    if record.shard is not None:
        return replace(record, shard=_relative(record.shard, root, base))
    if record.image is None or record.image.startswith("scene:"):
        return record
    return replace(record, image=_relative(record.image, root, base))


def _relative(path: str, root: str, base: str) -> str:
    if os.path.isabs(path) or root == base:
        return path
    try:
        return Path(os.path.relpath(os.path.join(root, path), base)).as_posix()
    except ValueError:  # another drive, to which no relative path leads
        return Path(root, path).as_posix()


def _check_apart(source: Path, target: Path) -> None:
    """Refuse a target that would replace what is being read."""
    one, other = (Path(os.path.realpath(path)) for path in (source, target))
    if one == other or other in one.parents:
        raise RecordError(
            f"the target {target} would replace the source {source}; choose another place"
        )


@contextmanager
def _appearing(target: Path, existing: Existing) -> Iterator[Path]:
    """Give a path beside the target to write to; it becomes the target when all went well."""
    if os.path.lexists(target) and existing == "refuse":
        raise RecordError(f"{target} is there already; remove it, or ask to replace it")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".part-{os.getpid()}-{target.name}")
    _remove(part)
    try:
        yield part
        _sync(part)
        _put(part, target)
    except BaseException:
        _remove(part)
        raise


def _put(part: Path, target: Path) -> None:
    if not target.is_dir() or target.is_symlink():
        if part.is_dir() and os.path.lexists(target):
            target.unlink()
        os.replace(part, target)
        _sync_folder(target.parent)
        return
    # No folder is replaced in one step: the old one is moved aside and removed when all is done.
    old = target.with_name(f".old-{os.getpid()}-{target.name}")
    os.rename(target, old)
    os.rename(part, target)
    _sync_folder(target.parent)
    _remove(old)


def _sync(part: Path) -> None:
    """Have the disk hold what was written before its name says that it is whole."""
    if part.is_dir():
        for folder, _, names in os.walk(part):
            for name in names:
                _sync_file(Path(folder, name))
            _sync_folder(Path(folder))
    else:
        _sync_file(part)


def _sync_file(path: Path) -> None:
    # Windows flushes only what is open for writing; a linked picture may not be ours to write.
    with path.open("r+b" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "nt":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
