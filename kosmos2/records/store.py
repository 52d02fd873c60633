"""Records on disk: JSON lines, read one by one, appended whole."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord


def read_jsonl(path: Path) -> Iterator[GroundedRecord]:
    """Yield the records of a file; an error names the file and the line."""
    if not path.is_file():
        raise RecordError(f"there is no file of records at {path}")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _parsed(line, f"{path}:{number}")


class RecordWriter:
    """Append records to a file. Each line is one write, so that no reader sees half of one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _end_last_line(self.path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def write(self, record: GroundedRecord) -> None:
        line = (json.dumps(record.to_dict(), ensure_ascii=False) + "\n").encode()
        written = os.write(self._file, line)
        if written < len(line):
            raise RecordError(f"{self.path}: only {written} of {len(line)} bytes fit; disk full?")


def _parsed(line: bytes, where: str) -> GroundedRecord:
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RecordError(f"{where}: no UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{where}: no JSON: {error.msg} at character {error.pos}") from error
    if not isinstance(fields, dict):
        raise RecordError(f"{where}: a record is a JSON object, got {line.decode().strip()[:40]!r}")
    try:
        return GroundedRecord.from_dict(fields)
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from error


def _end_last_line(path: Path) -> None:
    """Close a last line without its end; cut it off where a crash left it unfinished."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return
        start = content.rfind(b"\n") + 1
        try:
            json.loads(content[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.write(b"\n")
