"""One store that is being edited: its records, what became of them, and the journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from threading import RLock
from types import TracebackType
from typing import Any, Literal, Self

from kosmos2.editor.catalogue import Catalogue, Query, Summary, summary_of
from kosmos2.editor.changes import Change, applied
from kosmos2.editor.differ import Difference, difference
from kosmos2.editor.history import History, State, Status
from kosmos2.editor.journal import Journal
from kosmos2.editor.lines import Lines
from kosmos2.editor.pending import opened
from kosmos2.errors import RecordError
from kosmos2.records.jsonl import rows
from kosmos2.records.record import GroundedRecord
from kosmos2.records.select import identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Decide:
    """A record is accepted or rejected, or neither any more."""

    status: Literal["accepted", "rejected", "edited"]
    kind: Literal["decide"] = "decide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """The last edit of the record is taken back."""

    kind: Literal["undo"] = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redo:
    """What was taken back last is done again."""

    kind: Literal["redo"] = "redo"


Edit = Change | Decide | Undo | Redo


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """An edit that was not made: the record is not the one that its maker saw."""

    version: int
    """That the record has."""


class Session:
    """Opens a store for editing. Leaving it lets go of the journal; nothing is merged by that."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.token = token_hex(6)
        """Tells this session's pictures from another's at the same address."""
        self.catalogue = Catalogue()
        self._lines = Lines()
        self._others: Lines | None = None
        self._other_of: dict[int, int] = {}
        self._reasons: dict[int, Sequence[str]] = {}
        self._histories: dict[int, History] = {}
        self._lock = RLock()
        self._journal = opened(store)

    @classmethod
    def open(
        cls,
        store: Path,
        *,
        against: Path | None = None,
        reasons: Mapping[str, Sequence[str]] | None = None,
        tell: Callable[[int], None] = lambda _: None,
    ) -> Self:
        """Read a store and its journal, and the store that it is held against, if any.

        `reasons` tells by id why records were dropped; `tell` hears how many were read.
        """
        session = cls(store)
        try:
            session._read(against, reasons or {}, tell)
        except BaseException:
            session.close()
            raise
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the journal and of temporary files."""
        self._journal.close()
        self._lines.close()
        if self._others is not None:
            self._others.close()

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def has_other(self) -> bool:
        """Return whether the store is held against another one."""
        return self._others is not None

    def state(self, number: int) -> State:
        """Return what a record is now; numbers count from 0 in the store's order."""
        return self.history(number).now

    def history(self, number: int) -> History:
        """Return the states of a record; that of one without edits is not kept."""
        self._check(number)
        known = self._histories.get(number)
        return known or History(State.of(self._lines[number]))

    def other(self, number: int) -> GroundedRecord | None:
        """Return the record of the same picture in the other store, if there is one."""
        place = self._other_of.get(number)
        return None if place is None or self._others is None else self._others[place]

    def difference(self, number: int) -> Difference | None:
        """Return how a record differs from that of the other store."""
        other = self.other(number)
        return None if other is None else difference(self.state(number).record, other)

    def edit(self, number: int, edit: Edit, version: int) -> Conflict | None:
        """Make one edit of the record as it was in `version`, and have the journal hold it.

        An edit that changes nothing is none. RecordError says why one cannot be made.
        """
        with self._lock:
            history = self.history(number)
            if history.version != version:
                return Conflict(version=history.version)
            before = history.now
            trial = replace(history, past=[*history.past], future=[*history.future])
            _perform(trial, edit)
            if trial.now == before:
                return None
            self._journal.append(
                {
                    "record": number,
                    "id": before.record.id,
                    "base": self._lines.digest(number),
                    "version": trial.version,
                    "time": datetime.now(UTC).isoformat(timespec="seconds"),
                    "edit": dataclasses.asdict(edit),
                    "after": trial.now.content(),
                }
            )
            self._histories[number] = trial
            self.catalogue.put(number, self._summary(number, trial.now))
            return None

    def make_list(self, query: Query) -> int:
        """Return the number of a new list of the records that fit a query now."""
        with self._lock:
            return self.catalogue.make_list(query)

    def changed(self) -> dict[int, State]:
        """Return the records that are not as the store has them."""
        with self._lock:
            return {
                number: history.now
                for number, history in sorted(self._histories.items())
                if history.now != State.of(self._lines[number])
            }

    def digests(self, numbers: Sequence[int]) -> dict[int, str]:
        """Return the digests of records as the store had them when it was read."""
        return {number: self._lines.digest(number) for number in numbers}

    @property
    def journal(self) -> Journal:
        """Return the journal, for a merge."""
        return self._journal

    def _read(
        self,
        against: Path | None,
        reasons: Mapping[str, Sequence[str]],
        tell: Callable[[int], None],
    ) -> None:
        places: dict[str, int] = {}
        if against is not None:
            self._others = Lines()
            for place, record in enumerate(self._others.fill(against, tell)):
                places.setdefault(identity(record), place)
        for number, record in enumerate(self._lines.fill(self.store, tell)):
            if (other := places.get(identity(record))) is not None:
                self._other_of[number] = other
            if told := reasons.get(str(record.id)):
                self._reasons[number] = told
            self.catalogue.add(self._summary(number, State.of(record)))
        self._replay()
        for number, history in self._histories.items():
            self.catalogue.put(number, self._summary(number, history.now))

    def _replay(self) -> None:
        for place, line in enumerate(self._journal.take(), start=1):
            try:
                self._again(line)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise RecordError(
                    f"{self._journal.path}:{place}: this edit does not fit {self.store} ({error}). "
                    "If the store was written anew since, move the journal away"
                ) from error

    def _again(self, line: Mapping[str, Any]) -> None:
        """Make an edit of the journal."""
        number = line["record"]
        self._check(number)
        if line["base"] != self._lines.digest(number):
            raise RecordError(f"record {line['id']} is not the one that was edited")
        history = self._histories.setdefault(number, History(State.of(self._lines[number])))
        kind, now = line["edit"]["kind"], history.now.with_content(line["after"])
        if kind == "undo":
            history.undo()
        elif kind == "redo":
            history.redo()
        else:
            history.make(now)
        if history.version != line["version"] or history.now != now:
            raise RecordError(f"edits of record {line['id']} before it lead elsewhere")

    def _summary(self, number: int, state: State) -> Summary:
        other = self.other(number)
        apart = None if other is None else difference(state.record, other).amount
        return summary_of(state, self._reasons.get(number, ()), apart)

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self._lines):
            raise RecordError(f"the store has {len(self._lines)} records, so none is {number}")


def _perform(history: History, edit: Edit) -> None:
    match edit:
        case Undo():
            if not history.past:
                raise RecordError("there is nothing to undo")
            history.undo()
        case Redo():
            if not history.future:
                raise RecordError("there is nothing to redo")
            history.redo()
        case Decide():
            history.make(replace(history.now, status=Status(edit.status)))
        case _:
            record = applied(history.now.record, edit)
            if record != history.now.record:
                history.make(State(record=record, status=Status.EDITED))


def reasons_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and reason of the lines of a ledger such as `dropped.jsonl` or `errors.jsonl`."""
    for row in rows(path):
        fields = row.fields or {}
        name, reason = fields.get("id", fields.get("image")), fields.get("reason")
        if name is None or not isinstance(reason, str):
            raise RecordError(f'{row.where}: needs an object with an "id" and a text "reason"')
        yield str(name), reason
