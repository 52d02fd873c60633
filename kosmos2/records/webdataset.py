"""Records as WebDataset tars: for each a `key.json` and the bytes of its picture, `key.jpg`.

    000000000000.png
    000000000000.json   {"id": 7, "caption": "a dog", "noun_chunks": null, "ref_exps": [...]}

Tars as img2dataset makes them are read: a caption may lie in `key.txt`, and views that the JSON
does not name are not known. A record that is read points at its picture in the tar.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from PIL import Image

from kosmos2.errors import RecordError
from kosmos2.records.jsonl import Row, text_of
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jp2")
"""Endings of members that are pictures."""
_BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error)


def rows(path: Path) -> Iterator[Row]:
    """Yield the samples of one tar in its order."""
    if not path.is_file():
        raise RecordError(f"there is no file of records at {path}")
    with _opened(path) as tar:
        try:
            for sample in _samples(tar, path):
                yield sample.row()
        except _BROKEN as error:
            problem = f"the tar breaks off in the middle ({error})"
            yield Row(str(path), None, problem, unfinished=True)


class TarWriter:
    """Write one tar with the pictures in it. It can be read when it has been closed."""

    def __init__(self, path: Path, pictures: Pictures, prefix: str) -> None:
        self.path = path
        self._pictures = pictures
        self._prefix = prefix
        self._count = 0

    def __enter__(self) -> Self:
        self._tar = tarfile.open(self.path, "w", format=tarfile.PAX_FORMAT)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()

    def write(self, record: GroundedRecord) -> None:
        """Add a record and a copy of its picture; a url or a scene stays a reference."""
        key = f"{self._prefix}{self._count:06d}"
        if record.image is not None and not record.image.startswith("scene:"):
            picture = self._pictures.read(record)
            self._add(f"{key}.{_ending(record, picture)}", picture)
            record = dataclasses.replace(record, image=None, shard=None)
        self._add(f"{key}.json", text_of(record))
        self._count += 1

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._tar.addfile(member, io.BytesIO(data))
        _forget_members(self._tar)


class _Sample:
    """The members of one key."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._json: bytes | None = None
        self._caption: bytes | None = None
        self._picture: str | None = None

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> None:
        if ending == "json":
            self._json = _data(tar, member)
        elif ending == "txt":
            self._caption = _data(tar, member)
        elif ending.rpartition(".")[2] in PICTURES and self._picture is None:
            self._picture = member.name

    def row(self) -> Row:
        where = f"{self.path}:{self.key}.json"
        try:
            fields: Any = json.loads((self._json or b"{}").decode())
            caption = None if self._caption is None else self._caption.decode()
        except (ValueError, RecursionError) as error:
            return Row(where, None, f"no JSON: {error}")
        if not isinstance(fields, dict):
            return Row(where, None, f"a record is a JSON object, got {str(fields)[:40]!r}")
        if fields.get("caption") is None and caption is not None:
            fields["caption"] = caption
        if self._picture is not None:
            fields |= {"image": self._picture, "shard": self.path.name}
        return Row(where, {"noun_chunks": None, "ref_exps": None, **fields})


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.TarFile.open(path)
    except _BROKEN as error:
        raise RecordError(f"{path}: no tar that can be read ({error})") from error


def _samples(tar: tarfile.TarFile, path: Path) -> Iterator[_Sample]:
    """Yield the samples that are all there."""
    sample = _Sample(path, "")
    while (member := tar.next()) is not None:
        _forget_members(tar)
        key, ending = _parted(member.name)
        if not ending or not member.isreg():
            continue
        if key != sample.key:
            if sample.key:
                yield sample
            sample = _Sample(path, key)
        sample.take(tar, member, ending)
    _check_end(tar)
    if sample.key:
        yield sample


def _forget_members(tar: tarfile.TarFile) -> None:
    """Let a tar file not remember each member that it has met."""
    tar.members.clear()  # type: ignore[attr-defined]


def _parted(name: str) -> tuple[str, str]:
    """Return key and ending: the name is cut at the first dot behind its last slash."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return (folder + slash + stem, ending.lower()) if stem and ending else ("", "")


def _data(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # a regular member
    data = file.read()
    if len(data) < member.size:
        raise EOFError(member.name)
    return data


def _check_end(tar: tarfile.TarFile) -> None:
    """See that a tar stops where it should, at a block of zeros: tarfile stops at any other too."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise EOFError(f"no end of archive at byte {tar.offset}")


def _ending(record: GroundedRecord, picture: bytes) -> str:
    """Return the ending that the picture's name has, or the one that its bytes ask for."""
    named = os.path.splitext(record.image or "")[1].lower().removeprefix(".")
    if named in PICTURES:
        return named
    try:
        with Image.open(io.BytesIO(picture)) as image:
            found = (image.format or "").lower()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError(f"record {record.id}: {record.image} is no picture ({error})") from error
    return "jpg" if found == "jpeg" else found
