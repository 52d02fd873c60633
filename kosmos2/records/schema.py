"""What a record must be: the published JSON Schema, and every fault of a store by its place.

The schema lies in `record.schema.json`. What it cannot say, such as that a span ends inside its
caption, stands in its description; `check` asks the record itself and so knows that too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from importlib.resources import files
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.records.jsonl import Row
from kosmos2.records.record import GroundedRecord, Provenance
from kosmos2.records.store import kind_of, parts_of, rows_of_kind

VERSION = 1
"""Goes up when a record that was valid is no longer."""

_NEEDED = ("caption", "noun_chunks", "ref_exps")
_PLAIN = ("id", "image", "shard", "url", "sha256", "width", "height", "caption")
_ANY_CAPTION = " " * 10_000
"""Stands in for a caption that is no text, so that the spans can be looked at all the same."""
_BOX, _NO_SCORE = (0, 0, 1, 1), (None,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with one record."""

    where: str
    """The file and the line, row or member."""
    record: object
    """The record's id or key; None where it has none."""
    field: str
    """Such as `width`, `ref_exps[2].box`; empty where the text is no record at all."""
    value: object
    why: str

    def __str__(self) -> str:
        known = "" if self.record is None else f" record {self.record}:"
        what = f" {self.field} {self.value!r}" if self.field else ""
        return f"{self.where}:{known}{what} {self.why}"


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record, draft 2020-12."""
    text = files("kosmos2.records").joinpath("record.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check(path: Path) -> Iterator[Fault]:
    """Yield every fault of every record of a store; no fault keeps the next record from its turn.

    A file that is damaged ends there, with a fault; the other files of its folder are read.
    """
    kind = kind_of(path)
    for part in parts_of(path, kind):
        try:
            for row in rows_of_kind(part, kind):
                yield from _faults(row)
        except RecordError as error:
            if not part.exists():
                raise
            why = str(error).removeprefix(f"{part}: ")
            yield Fault(where=str(part), record=None, field="", value=None, why=why)


def _faults(row: Row) -> Iterator[Fault]:
    if row.fields is None:
        yield Fault(where=row.where, record=None, field="", value=None, why=row.problem)
        return
    refusal = _refusal(row.fields)
    if refusal is None:
        return
    record = row.fields.get("id", row.fields.get("key"))
    found = False
    for field, value, why in _parts_at_fault(row.fields):
        found = True
        yield Fault(where=row.where, record=record, field=field, value=value, why=why)
    assert found, f"no field is at fault, but: {refusal}"


def _parts_at_fault(fields: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield field, value and reason, by trying each part in a record that is else without fault."""
    for name in _NEEDED:
        if name not in fields:
            yield name, None, "is missing"
    for name in _PLAIN:
        if name in fields and (why := _why({name: fields[name]})):
            yield name, fields[name], why
    caption = fields.get("caption")
    for view in ("noun_chunks", "ref_exps"):
        value = fields.get(view)
        if not isinstance(value, list | tuple):
            if why := _why({view: value}):
                yield view, value, why
            continue
        for number, entry in enumerate(value):
            for part, piece, why in _entry_faults(
                entry, caption if isinstance(caption, str) else _ANY_CAPTION
            ):
                yield f"{view}[{number}]{part}", piece, why
    yield from _provenance_faults(fields.get("provenance"))


def _entry_faults(entry: object, caption: str) -> Iterator[tuple[str, object, str]]:
    """Yield the parts of an entry that are at fault: its span, its box, its score."""
    whole = _why({"noun_chunks": [entry], "caption": caption})
    if whole is None:
        return
    if not isinstance(entry, list | tuple) or len(entry) != 7:
        yield "", entry, whole
        return
    span, box, score = entry[:2], entry[2:6], entry[6]
    tries = {
        ".span": (span, [*span, *_BOX, *_NO_SCORE], caption),
        ".box": (box, [0, 1, *box, *_NO_SCORE], "x"),
        ".score": (score, [0, 1, *_BOX, score], "x"),
    }
    for part, (piece, trial, text) in tries.items():
        if why := _why({"noun_chunks": [trial], "caption": text}):
            yield part, piece, why


def _provenance_faults(made: object) -> Iterator[tuple[str, object, str]]:
    if _why({"provenance": made}) is None:
        return
    if not isinstance(made, Mapping):
        yield "provenance", made, "must be an object"
        return
    known = [item.name for item in fields_of(Provenance)]
    for name, value in made.items():
        if name not in known:
            yield f"provenance.{name}", value, f"is no key of it; it may have {known}"
        elif why := _why({"provenance": {"model": "", name: value}}):
            yield f"provenance.{name}", value, why
    if "model" not in made:
        yield "provenance.model", None, "is missing"


def _why(fields: Mapping[str, Any]) -> str | None:
    """Return why a record is refused that has these fields and else nothing to refuse."""
    refusal = _refusal({"caption": "", "noun_chunks": None, "ref_exps": None, **fields})
    if refusal is None:
        return None
    # "record 7: width must be at least 1, got 0": the fault tells all but the rule by itself.
    rule = refusal.partition(" must ")[2].rpartition(", got ")[0]
    return f"must {rule}" if rule else refusal


def _refusal(fields: Mapping[str, Any]) -> str | None:
    try:
        GroundedRecord.from_dict(fields)
    except RecordError as error:
        return str(error)
    return None
