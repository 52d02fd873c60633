"""Where the bytes of a picture lie, and how they are had from there."""

from __future__ import annotations

import itertools
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kosmos2.errors import ImageError, MissingExtraError, one_line
from kosmos2.fetch import fetch

MOST_BYTES = 1 << 30
"""A file larger than this is no picture that anyone meant."""
_ROWS = 16
"""Rows of a table that are in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file; bytes or a member of a tar; a cell of a Parquet or Arrow file; a web address."""

    path: str | None = None
    """Absolute. Of the picture, the tar or the table."""
    member: str | None = None
    """The name in a tar."""
    offset: int | None = None
    size: int | None = None
    """Bytes in the tar; None where the tar has yet to be searched for the member."""
    column: str | None = None
    """The column of a table that holds the bytes of pictures."""
    group: int = 0
    row: int = 0
    """Row group of a Parquet table or batch of an Arrow file, and the row in it."""
    url: str | None = None

    def in_record(self, base: Path) -> tuple[str | None, str | None]:
        """Return (image, shard) as records have them, paths from the folder `base` on."""
        if self.path is None or self.column is not None:
            return None, None
        path = Path(os.path.relpath(self.path, base)).as_posix()
        return (path, None) if self.member is None else (self.member, path)


Found = bytes | ImageError
"""What a picture's place held: its bytes, or why there are none."""


def gather(places: Sequence[Place]) -> list[Place | Found]:
    """Return each place, made ready for `read`; cells of tables are read here, group by group."""
    ready: list[Place | Found] = list(places)
    cells: dict[tuple[str, int, str], list[int]] = {}
    tars: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        if place.path is not None and place.column is not None:
            cells.setdefault((place.path, place.group, place.column), []).append(index)
        elif place.path is not None and place.member is not None and place.offset is None:
            tars.setdefault(place.path, []).append(index)
    for (path, group, column), wanted in cells.items():
        rows = [places[index].row for index in wanted]
        for index, found in zip(wanted, _cells(Path(path), group, column, rows), strict=True):
            ready[index] = found
    for path, wanted in tars.items():
        members = _members(Path(path))
        for index in wanted:
            ready[index] = _in_tar(places[index], members)
    return ready


def bytes_of(found: Place | Found) -> bytes:
    """Return the bytes of what `gather` left; ImageError says why there are none."""
    if isinstance(found, ImageError):
        raise found
    return found if isinstance(found, bytes) else read(found)


def read(place: Place) -> bytes:
    """Return the bytes of a picture that is no cell of a table; ImageError says why there are none.

    A message does not name the picture: whoever asks knows it.
    """
    if place.url is not None:
        return fetch(place.url)
    assert place.path is not None and place.column is None
    path = Path(place.path)
    try:
        if not path.is_file():
            raise ImageError(
                "this is no regular file" if path.exists() else "there is no such file"
            )
        size = path.stat().st_size if place.size is None else place.size
        if size > MOST_BYTES:
            raise ImageError(f"{size:,} bytes are more than a picture may have ({MOST_BYTES:,})")
        with path.open("rb") as file:
            file.seek(place.offset or 0)
            data = file.read(size)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot be read ({one_line(error)})") from error
    if len(data) < size:
        raise ImageError(f"only {len(data):,} of its {size:,} bytes are there; the tar is cut off")
    return data


def _members(path: Path) -> Mapping[str, tuple[int, int]] | ImageError:
    """Return offset and size of the files in a tar."""
    try:
        with tarfile.open(path, "r:") as tar:
            return {each.name: (each.offset_data, each.size) for each in tar if each.isfile()}
    except (OSError, tarfile.TarError) as error:
        return ImageError(f"the tar {path.name} cannot be read ({one_line(error)})")


def _in_tar(
    place: Place, members: Mapping[str, tuple[int, int]] | ImageError
) -> Place | ImageError:
    if isinstance(members, ImageError):
        return members
    if place.member is None or place.member not in members:
        return ImageError(f"the tar has no member {place.member!r}")
    offset, size = members[place.member]
    return replace(place, offset=offset, size=size)


def _cells(path: Path, group: int, column: str, rows: Sequence[int]) -> list[Found]:
    """Return the bytes in some rows of one row group; a few rows are in memory at a time."""
    arrow = arrow_library()
    try:
        with _opened(path) as file:
            column_of = _batch if path.suffix == ".arrow" else _column
            cells, wanted = enumerate(column_of(file, group, column, max(rows) + 1)), set(rows)
            found = {row: _picture_of(cell.as_py(), path) for row, cell in cells if row in wanted}
    except (OSError, arrow.ArrowException) as error:
        return [ImageError(f"the table cannot be read ({one_line(error)})") for _ in rows]
    return [found.get(row, ImageError("the table has no such row any more")) for row in rows]


def _column(file: Any, group: int, column: str, stop: int) -> Iterator[Any]:  # noqa: ANN401
    """Yield the cells of a column in one row group, the first `stop`."""
    batches = file.iter_batches(_ROWS, row_groups=[group], columns=[column])
    return itertools.islice((cell for batch in batches for cell in batch.column(0)), stop)


def _batch(file: Any, group: int, column: str, stop: int) -> Iterator[Any]:  # noqa: ANN401
    """Yield the cells of a column in one batch of an Arrow file, the first `stop`."""
    batch = next(itertools.islice(file, group, None), None)
    return iter(()) if batch is None else itertools.islice(batch.column(column), stop)


def _opened(path: Path) -> Any:  # noqa: ANN401
    if path.suffix == ".arrow":
        return open_arrow(path)
    return arrow_library().parquet.ParquetFile(path)


def open_arrow(path: Path) -> Any:  # noqa: ANN401
    """Return the batches of a file as `datasets` writes it: a stream, mapped and not read whole."""
    arrow = arrow_library()
    return arrow.ipc.open_stream(arrow.memory_map(str(path)))


def _picture_of(cell: object, table: Path) -> Found:
    """Return bytes, or those of the file that {bytes: none, path} names, from the table's on."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        return data
    named = cell.get("path") if isinstance(cell, dict) else None
    if not isinstance(named, str) or not named:
        return ImageError("the table has no picture in this row")
    try:
        return read(Place(path=str(table.parent / named)))
    except ImageError as error:
        return ImageError(f"{named}: {error}")


def arrow_library() -> Any:  # noqa: ANN401 (a module)
    """Return `pyarrow`, with its `parquet`."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            'reading Parquet needs pyarrow: pip install "kosmos2[records]"'
        ) from error
    return arrow
