"""The journal of edits beside a store: one line an edit, on the disk before it is answered.

    {"record": 3, "id": 17, "base": "5f0c…", "version": 2, "time": "2026-11-23T10:00:00+00:00",
     "edit": {"kind": "move", "view": "ref_exps", "entry": 0, "corners": [0.1, 0.1, 0.4, 0.6]},
     "after": {"caption": "…", "noun_chunks": […], "ref_exps": […], "status": "edited"}}

`record` counts from 0 in the store's order, `base` is a digest of the record as the store has it,
`edit` is for people and `after` is what counts: the state is that of the record's last line. A kill
at any byte costs the line that was being written and no other. The last line of a store that is
being merged is {"merge": …}, see `merge`.

The name of the file ends in `.edits`, which no store's does: a folder of records stays one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kosmos2.errors import RecordError, one_line


def journal_of(store: Path) -> Path:
    """Return where the journal of a store lies: beside it."""
    store = store.absolute()
    return store.with_name(f"{store.name}.edits")


class Journal:
    """The locked journal of a store, at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _locked(path)
        self._end = 0
        """Behind the last whole line."""
        self._lines: list[dict[str, Any]] = []
        try:
            self._read()
        except BaseException:
            os.close(self._file)
            raise

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
        """Let go of the journal; one without a line is removed."""
        if self._end == 0 and self.path.exists():
            self.path.unlink()
        os.close(self._file)

    @property
    def last(self) -> dict[str, Any] | None:
        """Return the last line that was there when the journal was opened."""
        return self._lines[-1] if self._lines else None

    def take(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that were there when the journal was opened, once."""
        lines, self._lines = self._lines, []
        yield from lines

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line; it is on the disk when this returns, or not there at all."""
        data = (json.dumps(line) + "\n").encode()
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes fit")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            os.lseek(self._file, self._end, os.SEEK_SET)
            raise RecordError(
                f"the edit is not saved: {one_line(self.path)} cannot be written ({error})"
            ) from error
        self._end += len(data)

    def archive(self) -> Path:
        """Give the journal a name of the past, so that the next edits begin a new one."""
        number = 1
        while (old := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self.path.rename(old)
        sync_folder(old.parent)
        return old

    def _read(self) -> None:
        with os.fdopen(os.dup(self._file), "rb") as file:
            data = file.read()
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            fields = _fields(line)
            if fields is None:
                raise RecordError(
                    f"{one_line(self.path)}:{number}: this is no line of a journal, so the edits "
                    "behind it cannot be trusted. Cut the file before this line, or move it away"
                )
            self._lines.append(fields)
            self._end += len(line) + 1
        if self._end < len(data):  # what a kill left of a line; nobody was told that it is saved
            os.ftruncate(self._file, self._end)
        os.lseek(self._file, self._end, os.SEEK_SET)


def sync_folder(path: Path) -> None:
    """Have the disk hold the names in a folder."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _fields(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _locked(path: Path) -> int:
    """Return the open journal; refuse while another editor of the same store holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise RecordError(
                f"another `kosmos2 edit` is at work: it holds {one_line(path)}. Use its page, or "
                "stop it first"
            ) from None
        # Another one may have moved the file away before it was ours.
        if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
            sync_folder(path.parent)
            return file
        os.close(file)
