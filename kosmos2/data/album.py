"""The pictures of a source at random: files, members of tars, and urls that tars know.

A tar is searched once. Where its pictures lie is kept as a sorted table in a cache, which all
processes read from the disk: names, and urls where each picture has a `.json` that says one, as
img2dataset writes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kosmos2 import images
from kosmos2.data.ledger import Rejected
from kosmos2.data.lines import stamp
from kosmos2.errors import Kosmos2Error, one_line
from kosmos2.sources.containers import PICTURES
from kosmos2.sources.places import Place, read

MISSING = "picture missing"
_TABLE = np.dtype([("name", "<u8"), ("offset", "<i8"), ("size", "<i8")])


class Album:
    """Opens pictures below one folder; nothing is fetched from a network."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.cache = cache
        self._tables: dict[Path, NDArray[np.void]] = {}

    def open(self, name: str, shard: str | None = None) -> Image.Image | Rejected:
        """Return the upright picture, or why there is none."""
        shown = one_line(f"{shard}: {name}" if shard else name)
        place = self._place(name, shard)
        if place is None:
            return Rejected(MISSING, f"{shown}: not found from {self.root}")
        return self.opened(place, shown)

    def opened(self, place: Place | bytes, shown: str) -> Image.Image | Rejected:
        """Return the upright picture of a place or of bytes, or why there is none."""
        try:
            return images.load(place if isinstance(place, bytes) else read(place))
        except Kosmos2Error as error:
            return Rejected("picture unreadable", f"{shown}: {one_line(error)}")

    def _place(self, name: str, shard: str | None) -> Place | None:
        if shard is not None:
            return self._in_tar(self.root / shard, name)
        path = self.root / name
        if not name.startswith(("http://", "https://")) and path.is_file():
            return Place(path=str(path))
        return next((place for tar in self._tars if (place := self._in_tar(tar, name))), None)

    @cached_property
    def _tars(self) -> list[Path]:
        if not self.root.is_dir():
            return [self.root]
        return sorted(path for path in self.root.rglob("*.tar") if path.is_file())

    def _in_tar(self, path: Path, name: str) -> Place | None:
        if not path.is_file():
            return None
        table, key = self._table(path), _hashed(name)
        at = int(np.searchsorted(table["name"], key))
        if at == len(table) or table["name"][at] != key:
            return None
        offset, size = int(table["offset"][at]), int(table["size"][at])
        return Place(path=str(path), member=name, offset=offset, size=size)

    def _table(self, path: Path) -> NDArray[np.void]:
        if path not in self._tables:
            file = self.cache / "tars" / f"{stamp([path])}.npy"
            if not file.exists():
                _save(_searched(path), file)
            self._tables[path] = np.load(file, mmap_mode="r")
        return self._tables[path]


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle square of the picture whose short side is `size` (B.3, torchvision)."""
    width, height = resized(image.width, image.height, size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    whole = image.resize((width, height), Image.Resampling.BICUBIC)
    return whole.crop((left, top, left + size, top + size))


def resized(width: int, height: int, size: int) -> tuple[int, int]:
    """Return width and height in pixels once the short side is `size`; the long one cut off."""
    short = min(width, height)
    return int(size * width / short), int(size * height / short)


def _searched(path: Path) -> NDArray[np.void]:
    """Return where the pictures of a tar lie, by names and urls."""
    table = np.array(list(_entries(path)), _TABLE)
    return np.sort(table, order="name")


def _entries(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield name or url, offset and size of each picture; a tar that is cut off ends early."""
    key, url, pictures = "", "", list[tarfile.TarInfo]()
    with suppress(tarfile.TarError, EOFError), tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # or a large tar fills the memory
            stem, _, ending = member.name.rpartition(".")
            if stem != key:
                yield from _named(url, pictures)
                key, url, pictures = stem, "", []
            if f".{ending.lower()}" in PICTURES and member.isreg():
                pictures.append(member)
                yield _hashed(member.name), member.offset_data, member.size
            elif ending == "json" and member.isreg():
                url = _url(tar, member)
    yield from _named(url, pictures)


def _named(url: str, pictures: list[tarfile.TarInfo]) -> Iterator[tuple[int, int, int]]:
    if url and pictures:
        yield _hashed(url), pictures[0].offset_data, pictures[0].size


def _url(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    try:
        fields = json.loads(file.read()) if file else {}
    except (ValueError, RecursionError):
        return ""
    found = fields.get("url") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else ""


def _save(table: NDArray[np.void], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{uuid.uuid4().hex}.npy")
    np.save(partial, table)
    os.replace(partial, file)


def _hashed(name: str) -> int:
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
