"""Folders of pictures beside their labels: put there under names of their own, and found again."""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from PIL import Image

from kosmos2.errors import RecordError
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
"""Characters that file systems or readers of labels refuse in a name."""
_LONGEST_BYTES = 200


def place(record: GroundedRecord, pictures: Pictures, folder: Path) -> str:
    """Return the name under which the record's picture now lies in `folder`.

    A file is linked, which takes no room, or copied where links do not reach; its bytes stay the
    same. No two pictures of a folder share a stem, so that each has a label file of its own.
    """
    source = pictures.path(record)
    suffix = PurePath(record.image or "").suffix.lower()
    if suffix not in SUFFIXES:
        suffix = _suffix_of(record, pictures.read(record))
    target = folder / (_free_stem(record, folder) + suffix)
    if source is not None:
        try:
            os.link(source.resolve(), target)
        except OSError:
            pass  # another disk, or none of our own: copied below, or refused with the reason
        else:
            return target.name
    target.write_bytes(pictures.read(record))
    return target.name


def pictures_in(folder: Path) -> Iterator[Path]:
    """Yield the picture files of a folder and its folders, sorted by name within each."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if PurePath(name).suffix.lower() in SUFFIXES:
                yield Path(parent) / name


def _free_stem(record: GroundedRecord, folder: Path) -> str:
    """Return the file's own stem; where that is taken, with its folders or a number."""
    path = PurePath(record.image or "")
    folders = [part for part in path.parent.parts if part not in ("..", path.anchor)]
    own, within = _safe(path.stem), _safe("-".join([*folders, path.stem]))
    numbered = (f"{own}-{number}" for number in itertools.count(2))
    for stem in itertools.chain([own, within], numbered):
        if not any((folder / (stem + suffix)).exists() for suffix in SUFFIXES):
            return stem
    raise AssertionError("numbers do not end")


def _safe(name: str) -> str:
    cleaned = _UNSAFE.sub("_", name).strip(". ")
    short = cleaned.encode("utf-8", "replace")[:_LONGEST_BYTES].decode("utf-8", "ignore")
    return short or "picture"


def _suffix_of(record: GroundedRecord, content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content)) as image:
            suffix = f".{(image.format or '').lower()}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError(f"record {record.id}: {record.image} is no picture ({error})") from error
    if suffix not in SUFFIXES:
        raise RecordError(
            f"record {record.id}: {record.image} is a picture of type {suffix}, which folders of "
            f"pictures do not hold; they hold {', '.join(SUFFIXES)}"
        )
    return suffix
