"""Records as JSON lines, plain or compressed (.gz, .zst): read one by one, appended whole.

    {"id": 7, "caption": "a dog", "noun_chunks": [[0, 5, 0.1, 0.2, 0.5, 0.9, 0.8]], "ref_exps": []}

A plain line is one write. A compressed file is a row of whole gzip members or zstd frames, each
one write. So a kill at any byte leaves every finished line readable: readers stop with a warning
at an unfinished end, and the next writer cuts it off.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from kosmos2.errors import MissingExtraError, RecordError
from kosmos2.records.record import GroundedRecord

ENDINGS = (".jsonl", ".ndjson", ".json")
_CHUNK = 1 << 16
_MEMBER = 1 << 20
"""Bytes of text in one compressed member: what a kill may cost, against how well it packs."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as its file has it, before anything is checked."""

    where: str
    """The file and the line, row or member."""
    fields: Mapping[str, Any] | None
    """None where the text is no JSON object; `problem` says why."""
    problem: str = ""
    unfinished: bool = False
    """The end that a killed writer or a broken download left."""
    schema: Any = None
    """The types of all columns, where the file has some (a pyarrow schema)."""


def record_of(row: Row) -> GroundedRecord:
    """Return the checked record of a row; an error names the place."""
    if row.fields is None:
        raise RecordError(f"{row.where}: {row.problem}")
    try:
        return GroundedRecord.from_dict(row.fields)
    except RecordError as error:
        raise RecordError(f"{row.where}: {error}") from error


def finished(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows but for an unfinished end, of which a warning tells."""
    for row in rows:
        if row.unfinished:
            warnings.warn(f"{row.where}: {row.problem}; what is before it was read", stacklevel=2)
        else:
            yield row


def rows(path: Path) -> Iterator[Row]:
    """Yield the lines of a file that are not blank."""
    if not path.is_file():
        raise RecordError(f"there is no file of records at {path}")
    number = 0
    try:
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                yield _row(line, f"{path}:{number}")
    except _UnfinishedError as error:
        yield Row(f"{path}:{number + 1}", None, str(error), unfinished=True)


def text_of(record: GroundedRecord) -> bytes:
    """Return the line of a record, its end included.

    What JSON does not know is written as text: dates in ISO form, bytes in base64.
    """
    fields = record.to_dict()
    try:
        try:
            return (json.dumps(fields, ensure_ascii=False, default=as_json) + "\n").encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
            return (json.dumps(fields, default=as_json) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise RecordError(f"record {record.id}: JSON cannot hold it: {error}") from error


class JsonlWriter:
    """Append records to a file of lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._codec = _codec(path)
        self._text = bytearray()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _mend(self.path, self._codec)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, record: GroundedRecord) -> None:
        """Append a record: at once to a plain file, with its member to a compressed one."""
        self._text += text_of(record)
        if self._codec is None or len(self._text) >= _MEMBER:
            self.flush()

    def flush(self) -> None:
        """Write what is held back, as one member in one write."""
        if not self._text:
            return
        data = bytes(self._text) if self._codec is None else self._codec.pack(bytes(self._text))
        self._text.clear()
        written = os.write(self._file, data)
        if written < len(data):
            raise RecordError(f"{self.path}: only {written} of {len(data)} bytes fit; disk full?")


class _UnfinishedError(Exception):
    """The file ends in the middle of a line or a member."""


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Codec:
    pack: Callable[[bytes], bytes]
    """Text -> one whole member."""
    decoder: Callable[[], _Decoder]
    """Reads one member."""
    error: type[Exception]


def _codec(path: Path) -> _Codec | None:
    if path.suffix == ".gz":
        return _Codec(
            lambda text: gzip.compress(text, mtime=0), lambda: zlib.decompressobj(31), zlib.error
        )
    if path.suffix != ".zst":
        return None
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError(
            f"{path} needs the library zstandard: pip install 'kosmos2[records]'"
        ) from error
    packer = zstandard.ZstdCompressor(write_checksum=True)
    return _Codec(packer.compress, zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)


def _row(line: bytes, where: str) -> Row:
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Row(where, None, f"no UTF-8: {error.reason} at byte {error.start}")
    except json.JSONDecodeError as error:
        return Row(where, None, f"no JSON: {error.msg} at character {error.pos}")
    except (RecursionError, ValueError) as error:
        return Row(where, None, f"no JSON that can be read: {error}")
    if not isinstance(fields, dict):
        text = line.decode().strip()[:40]
        return Row(where, None, f"a record is a JSON object on a line of its own, got {text!r}")
    return Row(where, fields)


def _lines(path: Path) -> Iterator[bytes]:
    codec = _codec(path)
    with path.open("rb") as file:
        if codec is None:
            yield from _plain_lines(file)
        else:
            yield from _split(text for text, _ in _unpacked(file, codec))


def _plain_lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if not line.endswith(b"\n") and not _is_whole(line):
            raise _UnfinishedError("the last line is unfinished")
        yield line


def _split(texts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of a text that comes in pieces, also those before an unfinished end."""
    rest: list[bytes] = []
    unfinished: _UnfinishedError | None = None
    try:
        for text in texts:
            first, *more = text.split(b"\n")
            rest.append(first)
            for piece in more:
                yield b"".join(rest)
                rest = [piece]
    except _UnfinishedError as error:
        unfinished = error
    last = b"".join(rest)
    if _is_whole(last):
        yield last
    elif last.strip():
        unfinished = unfinished or _UnfinishedError("the last line is unfinished")
    if unfinished:
        raise unfinished


def _unpacked(file: BinaryIO, codec: _Codec) -> Iterator[tuple[bytes, int | None]]:
    """Yield the text piece by piece, with the end in the file where a member ends there."""
    data = file.read(_CHUNK)
    while data := data or file.read(_CHUNK):
        decoder = codec.decoder()
        while not decoder.eof:
            if not data:
                raise _UnfinishedError("the file ends in the middle of its compressed data")
            try:
                text = decoder.decompress(data)
            except codec.error as error:
                raise RecordError(
                    f"{file.name}: damaged before byte {file.tell()} ({error})"
                ) from error
            data = decoder.unused_data if decoder.eof else file.read(_CHUNK)
            yield text, file.tell() - len(data) if decoder.eof else None
        if codec.error is zlib.error:
            data = data.lstrip(b"\0")  # gzip files may be padded


def _is_whole(line: bytes) -> bool:
    """Return whether an unended line is all of its record; a part of an object is no JSON."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _mend(path: Path, codec: _Codec | None) -> None:
    """Make a file fit for more lines: end a whole last line, cut an unfinished one off."""
    if codec is None:
        with path.open("rb+") as file:
            _mend_plain(file)
        return
    safe = _last_safe_end(path, codec)
    if safe == path.stat().st_size:
        return
    # Lines behind the last safe end are packed again; the old file stays until they are.
    fresh = path.with_name(f".{path.name}.partial")
    with path.open("rb") as old, fresh.open("wb") as new:
        _copy(old, new, safe)
        old.seek(safe)
        for text in _gathered(_split(text for text, _ in _unpacked(old, codec))):
            new.write(codec.pack(text))
        new.flush()
        os.fsync(new.fileno())
    fresh.replace(path)


def _mend_plain(file: BinaryIO) -> None:
    """Look at the last line alone, however long the file is."""
    end = start = file.seek(0, os.SEEK_END)
    last = b""
    while start and b"\n" not in last:
        length = min(_CHUNK, start)
        start -= length
        file.seek(start)
        last = file.read(length) + last
    last = last[last.rfind(b"\n") + 1 :]
    if not last:
        return
    if _is_whole(last):
        file.seek(end)
        file.write(b"\n")
    else:
        file.truncate(end - len(last))


def _last_safe_end(path: Path, codec: _Codec) -> int:
    """Return where the last whole member ends that also ends a line."""
    safe, last = 0, b"\n"
    with path.open("rb") as file, suppress(_UnfinishedError):
        for text, end in _unpacked(file, codec):
            last = text[-1:] or last
            if end is not None and last == b"\n":
                safe = end
    return safe


def _gathered(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines joined to the size of a member, until their unfinished end."""
    text = bytearray()
    with suppress(_UnfinishedError):
        for line in lines:
            text += line + b"\n"
            if len(text) >= _MEMBER:
                yield bytes(text)
                text.clear()
    if text:
        yield bytes(text)


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    source.seek(0)
    while length > 0 and (data := source.read(min(length, _CHUNK))):
        target.write(data)
        length -= len(data)


def as_json(value: object) -> object:
    """Return what JSON writes for a value that it does not know."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for a {type(value).__name__}: {value!r}")
