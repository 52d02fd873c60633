"""Files that hold many pictures, or say where they are: records, tables, tars -> items."""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError, one_line
from kosmos2.records import jsonl, parquet
from kosmos2.sources.places import Place, arrow_library
from kosmos2.sources.rows import IMAGE_COLUMNS, Item, Origin, carried, item_of_row

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".ico", ".heic", ".heif",
    ".jxl",
)  # fmt: skip
"""What counts as a picture in a folder; those that cannot be read are told as errors."""
_LONGEST_TEXT = 1 << 20
"""Bytes of a caption or a JSON object in a tar."""
_Sample = list[tuple[str, tarfile.TarInfo]]
"""The members of a tar that belong together, each with what follows the first dot of its name."""


def items_of_rows(rows: Iterator[jsonl.Row], origin: Origin) -> Iterator[Item]:
    """Yield the items of a file of records or of a table, from the rows as they lie there."""
    for number, row in enumerate(rows, start=1):
        name = f"{origin.shown}:{number}"
        if row.fields is None:
            yield Item(id=name, name=row.where, problem=row.problem)
        else:
            yield item_of_row(row.fields, number, name, origin)


def rows_of_csv(path: Path) -> Iterator[jsonl.Row]:
    """Yield the rows of a table of comma- or, in .tsv, tab-separated values with a first row of
    names; cells are text."""
    delimiter = "\t" if path.name.lower().endswith(".tsv") else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        for number, fields in enumerate(csv.DictReader(lines, delimiter=delimiter), start=1):
            named = {name: value for name, value in fields.items() if isinstance(name, str)}
            yield jsonl.Row(f"{path}:{number}", named)


def rows_of_table(origin: Origin) -> Iterator[Item]:
    """Yield the rows of a Parquet file; of a column of pictures only the place is taken."""
    arrow = arrow_library()
    try:
        with arrow.parquet.ParquetFile(origin.path) as file:
            yield from _items_of_table(file, arrow, origin)
    except (OSError, arrow.ArrowException) as error:
        raise RecordError(f"{one_line(origin.path)} cannot be read ({one_line(error)})") from error


def _items_of_table(
    file: Any,  # noqa: ANN401 (of a library without types)
    arrow: Any,  # noqa: ANN401
    origin: Origin,
) -> Iterator[Item]:
    if {"noun_chunks", "ref_exps"} & set(file.schema_arrow.names):
        yield from items_of_rows(parquet.rows(origin.path), origin)
        return
    yield from items_of_columns(file.schema_arrow, partial(_numbered, file), arrow, origin)


def items_of_columns(
    schema: Any,  # noqa: ANN401 (of a library without types)
    numbered: Callable[[list[str]], Iterator[tuple[int, int, dict[str, Any]]]],
    arrow: Any,  # noqa: ANN401
    origin: Origin,
) -> Iterator[Item]:
    """Yield the items of a table in columns; of a column of pictures only the place is taken.

    `numbered` yields group, number in it and values of the named columns of each row.
    """
    binary = [each.name for each in schema if _holds_bytes(arrow, each.type)]
    others = [name for name in schema.names if name not in binary]
    cells, path = _picture_column(binary, others), str(origin.path.absolute())
    for number, (group, row, fields) in enumerate(numbered(others), start=1):
        name = f"{origin.shown}:{number}"
        if cells is None:
            yield item_of_row(fields, number, name, origin)
            continue
        place = Place(path=path, column=cells, group=group, row=row)
        # The place of the cell stands for a path, so that the row is read like any other.
        item = item_of_row({**fields, "image": name}, number, name, origin)
        source = carried(fields, place)
        yield item if item.problem else replace(item, place=place, source=source)


def _numbered(
    file: Any,  # noqa: ANN401 (of a library without types)
    columns: list[str],
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield row group, number in it and values of each row."""
    for group in range(file.num_row_groups):
        row = 0
        for batch in file.iter_batches(256, row_groups=[group], columns=columns):
            # Without columns a batch has rows, and no values to make dictionaries of.
            for fields in batch.to_pylist() if columns else [{}] * batch.num_rows:
                yield group, row, fields
                row += 1


def _picture_column(binary: list[str], others: list[str]) -> str | None:
    """Return the column whose cells are pictures, None where pictures are named by another."""
    known = [name for name in IMAGE_COLUMNS if name in binary]
    if known or not binary:
        return known[0] if known else None
    return None if any(name in IMAGE_COLUMNS for name in others) else binary[0]


def _holds_bytes(arrow: Any, kind: Any) -> bool:  # noqa: ANN401 (of a library without types)
    """Tell whether a column has pictures: bytes, or {bytes, path} as `datasets` writes them."""
    types = arrow.types
    if types.is_struct(kind):
        return any(kind.field(n).name == "bytes" for n in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def samples(path: Path, root: Path) -> Iterator[Item]:
    """Yield the samples of a WebDataset, or of any tar of pictures."""
    shown = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    try:
        with tarfile.open(path, "r:") as tar:
            for key, members in _grouped(tar):
                yield from _pictures_of(tar, path, shown, key, members)
    except (OSError, tarfile.TarError) as error:
        problem = f"the tar cannot be read further ({one_line(error)})"
        yield Item(id=shown, name=str(path), problem=problem)


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, _Sample]]:
    """Yield runs of members whose names are alike up to the first dot."""
    key, members = "", _Sample()
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or a large tar fills the memory
        if not member.isfile():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if members and folder + slash + stem != key:
            yield key, members
            members = []
        key = folder + slash + stem
        members.append((ending.lower(), member))
    if members:
        yield key, members
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile stops at any
        raise tarfile.ReadError(f"no end of archive at byte {tar.offset:,}")


def _pictures_of(
    tar: tarfile.TarFile,
    path: Path,
    shown: str,
    key: str,
    members: _Sample,
) -> Iterator[Item]:
    whole = [each for each in members if f".{each[0]}" in PICTURES]
    pictures = whole[:1] or [each for each in members if f".{each[0]}".endswith(PICTURES)]
    beside = {ending: member for ending, member in members if (ending, member) not in pictures}
    fields, problem = _fields(tar, beside)
    origin = Origin(path=path, images=path.parent.absolute(), shown=shown)
    if not pictures:
        problem = problem or f"the sample has no picture, only .{', .'.join(beside)}"
        yield Item(id=key, name=f"{shown}: {key}", problem=problem)
    for _, member in pictures:
        alone = len(pictures) == 1
        id = key if alone else member.name.rpartition(".")[0]
        inside = {"image": member.name, "shard": str(path.absolute())}
        row = {"id": id, **{name: value for name, value in fields.items() if value is not None}}
        item = item_of_row({**row, **inside}, 0, f"{shown}: {member.name}", origin)
        place = Place(
            path=str(path.absolute()),
            member=member.name,
            offset=member.offset_data,
            size=member.size,
        )
        yield replace(
            item,
            problem=problem or item.problem,
            place=place,
        )


def _fields(
    tar: tarfile.TarFile, beside: Mapping[str, tarfile.TarInfo]
) -> tuple[dict[str, Any], str]:
    """Return what the text files of a sample say, and what is wrong with them."""
    fields: dict[str, Any] = {}
    texts = {}
    for ending in ("json", "txt"):
        member = beside.get(ending)
        file = None if member is None or member.size > _LONGEST_TEXT else tar.extractfile(member)
        if file is not None:
            texts[ending] = file.read().decode("utf-8", errors="replace").strip()
    if "json" in texts:
        try:
            fields = json.loads(texts["json"])
        except ValueError as error:
            return {}, f"the sample's .json is no JSON ({one_line(error)})"
        if not isinstance(fields, dict):
            return {}, "the sample's .json is no object"
    if texts.get("txt"):
        fields.setdefault("caption", texts["txt"])
    return fields, ""
