"""The states that a record went through: what it was, what it is, what was undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from kosmos2.editor.changes import BOX_COLUMNS, with_fields
from kosmos2.editor.twins import VIEWS
from kosmos2.records.record import GroundedRecord

MARK = "kosmos2_review"
"""The field of a merged record that says what was decided of it."""


class Status(StrEnum):
    UNTOUCHED = "untouched"
    EDITED = "edited"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    record: GroundedRecord
    status: Status

    @classmethod
    def of(cls, record: GroundedRecord) -> Self:
        """Return the state of a record as its store has it, with the mark of an earlier merge."""
        mark = record.extra.get(MARK)
        known = {str(status): status for status in Status}
        status = known.get(mark) if isinstance(mark, str) else None
        return cls(record=record, status=status or Status.UNTOUCHED)

    def content(self) -> dict[str, Any]:
        """Return as JSON all that editing can change."""
        fields = self.record.to_dict()
        names = ("caption", *VIEWS, *BOX_COLUMNS)
        known = {name: fields[name] for name in names if name in fields}
        return {**known, "status": str(self.status)}

    def with_content(self, content: Mapping[str, Any]) -> Self:
        """Return the state whose `content` this is, all else as here."""
        changed = {name: value for name, value in content.items() if name != "status"}
        record = GroundedRecord.from_dict({**self.record.to_dict(), **changed})
        # The source's own values where nothing was changed: they may know more than JSON does.
        same = {name: value for name, value in record.extra.items() if name in BOX_COLUMNS}
        return replace(
            self,
            record=replace(
                self.record,
                caption=record.caption,
                noun_chunks=record.noun_chunks,
                ref_exps=record.ref_exps,
                extra=with_fields(self.record.extra, same),
            ),
            status=Status(content["status"]),
        )

    def marked(self) -> GroundedRecord:
        """Return the record as a merged store has it."""
        if self.status is Status.UNTOUCHED:
            return self.record
        return replace(self.record, extra=with_fields(self.record.extra, {MARK: str(self.status)}))


@dataclass(slots=True)
class History:
    """One record's states; `version` counts the edits, undoing and redoing among them."""

    now: State
    version: int = 0
    past: list[State] = field(default_factory=list)
    future: list[State] = field(default_factory=list)

    def make(self, state: State) -> None:
        """Go on to a new state; what was undone cannot be redone any more."""
        self.past.append(self.now)
        self.future.clear()
        self.now = state
        self.version += 1

    def undo(self) -> None:
        """Go back to the state before, which there must be."""
        self.future.append(self.now)
        self.now = self.past.pop()
        self.version += 1

    def redo(self) -> None:
        """Go on to the state that was undone last, which there must be."""
        self.past.append(self.now)
        self.now = self.future.pop()
        self.version += 1
