"""The picture of a record as a browser can show it: only what a record names, and only pictures."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from PIL import Image, ImageOps

from kosmos2.errors import ImageError, one_line
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord

AS_THEY_ARE = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}
"""What browsers show. SVG is not among these: it may hold scripts."""
CONVERTED = ("TIFF", "JPEG2000", "PPM", "DIB", "QOI", "ICO")
THUMBNAIL = 112
"""Pixels of the longer side."""
KEPT_THUMBNAILS = 2_000


class Served:
    """Pictures and thumbnails of records, whose paths start from `root`."""

    def __init__(self, root: Path) -> None:
        self._pictures = Pictures(root)
        self._lock = Lock()
        self._thumbnails: OrderedDict[int, bytes] = OrderedDict()

    def picture(self, record: GroundedRecord) -> tuple[bytes, str]:
        """Return the bytes of the upright picture's file and their media type."""
        data = self._read(record)
        image = _opened(data, record)
        if image.format in AS_THEY_ARE:
            return data, AS_THEY_ARE[image.format]
        return _jpeg(image, record, image.size, quality=92), "image/jpeg"

    def thumbnail(self, number: int, record: GroundedRecord) -> bytes:
        """Return a small JPEG of the picture of the record with this number."""
        with self._lock:
            if number in self._thumbnails:
                self._thumbnails.move_to_end(number)
                return self._thumbnails[number]
        image = _opened(self._read(record), record)
        image.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        small = _jpeg(image, record, (THUMBNAIL, THUMBNAIL), quality=82)
        with self._lock:
            self._thumbnails[number] = small
            while len(self._thumbnails) > KEPT_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return small

    def _read(self, record: GroundedRecord) -> bytes:
        with self._lock:  # `Pictures` remembers one tar at a time
            return self._pictures.read(record)


def _opened(data: bytes, record: GroundedRecord) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures: those that are too large raise
            return Image.open(io.BytesIO(data), formats=(*AS_THEY_ARE, *CONVERTED))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"record {record.id}: {one_line(record.image)} is no picture that can be shown"
        ) from error


def _jpeg(
    image: Image.Image, record: GroundedRecord, largest: tuple[int, int], quality: int
) -> bytes:
    try:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((max(largest), max(largest)))
        file = io.BytesIO()
        upright.save(file, "JPEG", quality=quality)
    except Exception as error:  # decoders raise anything, from struct.error to SyntaxError
        raise ImageError(f"record {record.id}: {one_line(record.image)} is damaged") from error
    return file.getvalue()
