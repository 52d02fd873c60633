"""One JSON object on disk whose parts grow side by side, so that none is held in memory."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kosmos2.errors import RecordError


class Document:
    """Write `{"images": [..], "annotations": [..]}` while both lists grow; whole at the end.

    Each part waits in a nameless file beside the target. After an error nothing is written.
    """

    def __init__(
        self, path: Path, *, lists: tuple[str, ...] = (), maps: tuple[str, ...] = ()
    ) -> None:
        self._path = path
        self._brackets = dict.fromkeys(lists, ("[", "]")) | dict.fromkeys(maps, ("{", "}"))
        self._parts: dict[str, IO[bytes]] = {}
        self._files = ExitStack()

    def __enter__(self) -> Self:
        for name in self._brackets:
            part = tempfile.TemporaryFile(dir=self._path.parent)
            self._parts[name] = self._files.enter_context(part)
        return self

    def append(self, part: str, value: object) -> None:
        """Add a value to a list."""
        self._add(part, json.dumps(value))

    def put(self, part: str, key: str, value: object) -> None:
        """Add a value to a map; nobody checks that its key is new."""
        self._add(part, f"{json.dumps(key)}: {json.dumps(value)}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._files:
            if error is None:
                self._write()

    def _add(self, part: str, text: str) -> None:
        file = self._parts[part]
        file.write(("\n" if file.tell() == 0 else ",\n").encode() + text.encode())

    def _write(self) -> None:
        with self._path.open("wb") as target:
            between = "{"
            for name, part in self._parts.items():
                opening, closing = self._brackets[name]
                target.write(f"{between}\n{json.dumps(name)}: {opening}".encode())
                part.seek(0)
                shutil.copyfileobj(part, target)
                target.write(closing.encode())
                between = ","
            target.write(b"\n}\n")


def load(path: Path) -> Mapping[str, Any]:
    """Return the JSON object of a file; whatever else it holds is refused with its place."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read {path} ({error})") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: no UTF-8 ({error})") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}: no JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise RecordError(f"{path}: must be a JSON object, got {type(value).__name__}")
    return value
