"""A store written anew with its edits in it: by command alone, whole or not at all.

What was not edited stays as it is: lines of plain JSON lines byte for byte, members of tars too.
Compressed lines and Parquet are written by the writers of `records`, Parquet therefore in the
layout of our own. A record of which something was decided gets the field `kosmos2_review`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kosmos2.editor.history import State, Status
from kosmos2.editor.lines import digest_of
from kosmos2.editor.pending import fresh_folder, take_place
from kosmos2.editor.session import Session
from kosmos2.errors import RecordError
from kosmos2.records.jsonl import Row, record_of, text_of
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import Kind, Writer, checked, kind_of, parts_of, rows_of_kind

Rejected = Literal["keep", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge has done."""

    changed: int
    """Records that are in the store with edits or a mark."""
    dropped: int
    """Rejected records that are not in it any more."""
    journal: Path
    """Where the journal is now."""


def merge(session: Session, rejected: Rejected) -> Merged | None:
    """Write the store anew with all edits; return what was done, None where there was nothing.

    Rejected records stay, with their mark, or go. The session is at its end.
    """
    gone = {
        number
        for number in range(len(session))
        if rejected == "drop" and session.catalogue[number].status is Status.REJECTED
    }
    changed = {**session.changed(), **{number: session.state(number) for number in gone}}
    if not changed:
        return None
    changes = _Changes(changed, gone, session.digests(list(changed)))
    kind = kind_of(session.store)
    folder = fresh_folder(session.store)
    names = []
    for part in parts_of(session.store, kind):
        count = sum(not row.unfinished for row in rows_of_kind(part, kind))
        if changes.has_in(count):
            _WRITE[_way(part, kind)](part, folder / part.name, changes)
            names.append(part.name)
        changes.first += count
    old = take_place(session.journal, session.store, names)
    return Merged(changed=len(changed) - len(gone), dropped=len(gone), journal=old)


class _Changes:
    """What becomes of the records of one part; `first` is the number of its first one."""

    def __init__(
        self, changed: Mapping[int, State], gone: set[int], digests: Mapping[int, str]
    ) -> None:
        self._changed, self._gone, self._digests = changed, gone, digests
        self.first = 0

    def has_in(self, count: int) -> bool:
        """Return whether any of the next records is another now."""
        return any(number in self._changed for number in range(self.first, self.first + count))

    def has(self, place: int) -> bool:
        """Return whether the record at this place of the part is another now."""
        return self.first + place in self._changed

    def of(self, place: int, old: GroundedRecord) -> GroundedRecord | None:
        """Return what a record is now, None where it goes."""
        number = self.first + place
        if digest_of(text_of(old)) != self._digests[number]:
            raise RecordError(
                f"record {old.id} is not the one that was edited: somebody else writes to this "
                "store. Nothing was merged; the edits are in their journal still"
            )
        if number in self._gone:
            return None
        return State.of(old).with_content(self._changed[number].content()).marked()


def _way(part: Path, kind: Kind) -> str:
    """Return how a file is written: by line, by member, or by record."""
    if kind is Kind.JSONL and part.suffix in (".gz", ".zst"):
        return "records"
    return {Kind.JSONL: "lines", Kind.WEBDATASET: "members", Kind.PARQUET: "records"}[kind]


def _lines(part: Path, target: Path, changes: _Changes) -> None:
    with part.open("rb") as old, target.open("wb") as new:
        place = 0
        for number, line in enumerate(old, start=1):
            if not line.strip():
                new.write(line)
                continue
            if changes.has(place):
                record = changes.of(place, _parsed(line, f"{part}:{number}"))
                new.write(text_of(record) if record else b"")
            else:
                new.write(line)
            place += 1


def _parsed(line: bytes, where: str) -> GroundedRecord:
    return record_of(Row(where, json.loads(line)))


def _records(part: Path, target: Path, changes: _Changes) -> None:
    kind = kind_of(part)
    with Writer(target) as writer:
        for place, row in enumerate(rows_of_kind(part, kind)):
            if row.unfinished:
                break
            record: GroundedRecord | None = checked(row)
            assert record is not None
            if changes.has(place):
                record = changes.of(place, record)
            if record is not None:
                writer.write(record)


def _members(part: Path, target: Path, changes: _Changes) -> None:
    """Copy a tar; of changed records only the JSON, and the caption beside it, are others."""
    records = _tar_records(part, changes)
    with tarfile.open(part) as old, _new_tar(target) as new:
        key, has_json = "", True
        for member in old:
            stem, ending = _parted(member)
            if ending and stem != key:
                _end_sample(new, key, records.get(key), has_json=has_json)
                key, has_json = stem, False
            changed = stem in records and bool(ending)
            if not changed:
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
                continue
            record = records[stem]
            has_json |= ending == "json"
            if record is not None:
                file = old.extractfile(member)
                assert file is not None  # a regular member
                _add(new, member, _data(record, ending, file.read()))
        _end_sample(new, key, records.get(key), has_json=has_json)


def _new_tar(path: Path) -> tarfile.TarFile:
    if path.suffix in (".gz", ".tgz"):
        return tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT)
    return tarfile.open(path, "w", format=tarfile.PAX_FORMAT)


def _tar_records(part: Path, changes: _Changes) -> dict[str, GroundedRecord | None]:
    """Return the changed records of a tar by the key of their members."""
    found = {}
    for place, row in enumerate(rows_of_kind(part, Kind.WEBDATASET)):
        if not row.unfinished and changes.has(place):
            key = row.where.removeprefix(f"{part}:").removesuffix(".json")
            found[key] = changes.of(place, record_of(row))
    return found


def _end_sample(
    tar: tarfile.TarFile, key: str, record: GroundedRecord | None, *, has_json: bool
) -> None:
    if record is not None and not has_json:  # its caption lay in a .txt alone
        _add(tar, tarfile.TarInfo(f"{key}.json"), _data(record, "json", b""))


def _data(record: GroundedRecord, ending: str, old: bytes) -> bytes:
    if ending == "txt":
        return record.caption.encode()
    if ending != "json":
        return old
    return text_of(dataclasses.replace(record, image=None, shard=None) if record.shard else record)


def _add(tar: tarfile.TarFile, like: tarfile.TarInfo, data: bytes) -> None:
    member = tarfile.TarInfo(like.name)
    member.mode, member.mtime, member.size = like.mode, like.mtime, len(data)
    tar.addfile(member, io.BytesIO(data))


def _parted(member: tarfile.TarInfo) -> tuple[str, str]:
    """Return key and ending as `records.webdataset` has them; "" for what is of no record."""
    folder, slash, last = member.name.rpartition("/")
    stem, _, ending = last.partition(".")
    if not (stem and ending and member.isreg()):
        return "", ""
    return folder + slash + stem, ending.lower()


_WRITE: dict[str, Callable[[Path, Path, _Changes], None]] = {
    "lines": _lines,
    "members": _members,
    "records": _records,
}
