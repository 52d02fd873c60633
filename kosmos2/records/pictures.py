"""The picture files that records point at."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord


class Pictures:
    """Reads the picture of a record. Paths in records start from `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._shard: tuple[str, Mapping[str, tuple[int, int]]] = ("", {})
        """The last tar, searched once: offset and size of its members."""

    def path(self, record: GroundedRecord) -> Path | None:
        """Return the picture's own file; None where it has none (a shard's member, a url)."""
        if record.image is None or record.shard is not None or record.image.startswith("scene:"):
            return None
        return self.root / record.image

    def read(self, record: GroundedRecord) -> bytes:
        """Return the bytes of the picture's file, as they are."""
        if record.image is None or record.image.startswith("scene:"):
            known = f"only its url {record.url}" if record.url else record.image or "no picture"
            raise RecordError(f"record {record.id}: no picture file is known, {known}")
        try:
            if record.shard is None:
                return (self.root / record.image).read_bytes()
            return self._member(record.shard, record.image)
        except (OSError, KeyError, tarfile.TarError) as error:
            place = f" in {record.shard}" if record.shard else ""
            raise RecordError(
                f"record {record.id}: cannot read the picture {record.image}{place}, looked for "
                f"from {self.root} ({error})"
            ) from error

    def _member(self, shard: str, name: str) -> bytes:
        path = self.root / shard
        if self._shard[0] != shard:
            with tarfile.open(path, "r:") as tar:
                members = {each.name: (each.offset_data, each.size) for each in tar}
            self._shard = (shard, members)
        offset, size = self._shard[1][name]
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def size(self, record: GroundedRecord) -> tuple[int, int]:
        """Return width and height in pixels: the record's own, or those of the picture's file."""
        if record.width is not None and record.height is not None:
            return record.width, record.height
        try:
            with Image.open(io.BytesIO(self.read(record))) as image:
                return _upright_size(image)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise RecordError(
                f"record {record.id}: neither the record nor its picture tells the size ({error})"
            ) from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    on_its_side = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (height, width) if on_its_side else (width, height)
