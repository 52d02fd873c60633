"""Records as Parquet, a row group at a time.

Two layouts are written, and any like them are read:

    ours      every field a column; spans as list<struct<start, end, x0, y0, x1, y1, score>>
    released  as GRIT's files are: the columns that the records have; spans as list<list<double>>,
              their ends therefore floats

Boxes are normalised in both. Other columns keep their types from file to file. What fits no column
of the first row group, such as a key that comes late, is kept as a JSON object in the column
`kosmos2_extra`. An empty cell of another column means that the record does not have it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from kosmos2.errors import MissingExtraError, RecordError
from kosmos2.records.jsonl import Row, as_json
from kosmos2.records.record import Grounded, GroundedRecord, Provenance

if TYPE_CHECKING:
    import pyarrow as pa

OVERFLOW = "kosmos2_extra"
_MARK, _VERSION = b"kosmos2.records", b"1"
_VIEWS = ("noun_chunks", "ref_exps")
_TEXTS = ("image", "shard", "url", "sha256", "caption")
_MADE = "provenance"
_OURS = ("id", "image", "shard", "url", "sha256", "width", "height", "caption", *_VIEWS, _MADE)
_RELEASED = ("id", "url", "caption", "width", "height", *_VIEWS)
_READ_ROWS = 1024
_GROUP = 8192


class Layout(StrEnum):
    """How the columns are arranged."""

    OURS = "ours"
    RELEASED = "released"


class Columns(dict[str, Any]):
    """The other columns of a record, which remember the types that their file gave them."""

    def __init__(self, values: Mapping[str, Any], schema: pa.Schema) -> None:
        super().__init__(values)
        self.schema = schema
        """Of the whole file."""

    def __reduce__(self) -> tuple[type[Columns], tuple[dict[str, Any], Any]]:
        return Columns, (dict(self), self.schema)


def rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one file."""
    arrow = _arrow()
    if not path.is_file():
        raise RecordError(f"there is no file of records at {path}")
    number = 0
    try:
        for batch in _batches(path):
            for cells in _countable(batch).to_pylist():
                number += 1
                yield Row(f"{path}:row {number}", _fields(cells), schema=batch.schema)
    except (arrow.ArrowException, OSError) as error:
        raise RecordError(f"{path}: no Parquet behind row {number} ({error})") from error


class ParquetWriter:
    """Write one file. It can be read when it has been closed, not before."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        self._layout = layout
        self._arrow = _arrow()
        self._waiting: list[GroundedRecord] = []
        self._file: Any = None
        self._schema: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and (self._waiting or self._file is None):
                self._flush()
        finally:
            if self._file is not None:
                self._file.close()

    def write(self, record: GroundedRecord) -> None:
        """Add a record; it is written with its row group."""
        self._waiting.append(record)
        if len(self._waiting) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        group, self._waiting = self._waiting, []
        planned = self._schema or _planned(self._layout, group)
        cells, rest = self._cells(group, planned)
        if self._schema is None:
            if OVERFLOW not in planned.names and (self._layout is Layout.OURS or any(rest)):
                planned = planned.append(self._arrow.field(OVERFLOW, self._arrow.string()))
            self._schema = planned
            packing = "zstd" if self._layout is Layout.OURS else "snappy"
            self._file = self._arrow.parquet.ParquetWriter(self.path, planned, compression=packing)
        if OVERFLOW in self._schema.names:
            cells[OVERFLOW] = [_json(each) if each else None for each in rest]
        elif any(rest):
            self._refuse(group, rest)
        table = self._arrow.table(
            {
                name: self._arrow.array(cells[name], self._schema.field(name).type)
                for name in self._schema.names
            },
            schema=self._schema,
        )
        self._file.write_table(table)

    def _cells(
        self, group: Sequence[GroundedRecord], schema: pa.Schema
    ) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
        """Return the cells of each column, and for each record what fits none."""
        rest = [_leftover(record) for record in group]
        cells: dict[str, list[Any]] = {}
        for field in schema:
            if field.name in _VIEWS:
                views = [getattr(record, field.name) for record in group]
                cells[field.name] = [_spans(view, field.type) for view in views]
            elif field.name == _MADE and self._layout is Layout.OURS:
                cells[_MADE] = [_made(fields.pop(_MADE, None)) for fields in rest]
            elif field.name != OVERFLOW:
                cells[field.name] = _taken(rest, field.name, field.type)
        if self._layout is Layout.OURS:  # a null that was written is told from none
            for fields, record in zip(rest, group, strict=True):
                fields |= {name: None for name, value in record.extra.items() if value is None}
        return cells, rest

    def _refuse(self, group: Sequence[GroundedRecord], rest: Sequence[Mapping[str, Any]]) -> None:
        record, fields = next(pair for pair in zip(group, rest, strict=True) if pair[1])
        raise RecordError(
            f"{self.path}: record {record.id} has {dict(fields)!r}, for which the first {_GROUP} "
            f"records made no column (columns: {self._schema.names}). The layout of released "
            "GRIT has no place for it; write the layout that keeps everything: --to parquet"
        )


def _arrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401 (makes pyarrow.parquet)
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs the library pyarrow: pip install 'kosmos2[records]'"
        ) from error
    return pyarrow  # type: ignore[no-any-return]


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield some rows at a time; no more of the file is held."""
    parquet = _arrow().parquet
    with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=_READ_ROWS)


def _is_nanoseconds(kind: pa.DataType) -> bool:
    return _arrow().types.is_temporal(kind) and getattr(kind, "unit", "") == "ns"


def _countable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose nanoseconds are whole numbers: Python's own times lack them."""
    arrow = _arrow()
    columns = [
        column.view(arrow.int64()) if _is_nanoseconds(column.type) else column
        for column in batch.columns
    ]
    return arrow.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _fields(cells: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON object that a row stands for."""
    needed = (*_VIEWS, "caption")
    fields = {name: cell for name, cell in cells.items() if cell is not None or name in needed}
    for view in _VIEWS:
        if isinstance(fields.get(view), list):
            fields[view] = [_numbers(entry) for entry in fields[view]]
    made = fields.get(_MADE)
    if isinstance(made, dict) and isinstance(made.get("decoding"), str):
        fields[_MADE] = {**made, "decoding": json.loads(made["decoding"])}
    overflow = fields.pop(OVERFLOW, None)
    return {**fields, **json.loads(overflow)} if isinstance(overflow, str) else fields


def _numbers(entry: object) -> object:
    if isinstance(entry, Mapping):
        return [entry.get(name) for name in Grounded._fields]
    return entry


def _leftover(record: GroundedRecord) -> dict[str, Any]:
    fields = record.to_dict()
    known = {name: fields.pop(name, None) for name in _OURS}
    return {
        name: value
        for name, value in {**known, **fields}.items()
        if value is not None and name not in _VIEWS
    }


def _taken(rest: Sequence[dict[str, Any]], name: str, kind: pa.DataType) -> list[Any]:
    """Return the cells of a column, taken out of the fields; what does not fit stays there."""
    values = [fields.pop(name, None) for fields in rest]
    cells = _fitting(values, kind)
    for fields, value, cell in zip(rest, values, cells, strict=True):
        if value is not None and cell is None:
            fields[name] = value
    return cells


def _planned(layout: Layout, group: Sequence[GroundedRecord]) -> pa.Schema:
    """Return the schema for records that begin with this group."""
    arrow = _arrow()
    extras = [record.extra for record in group]
    source = next(
        (extra.schema for extra in extras if isinstance(extra, Columns)), arrow.schema([])
    )
    if layout is Layout.RELEASED and source.names and not _is_ours(source):
        return source
    dicts = [_leftover(record) for record in group]
    base = _OURS if layout is Layout.OURS else _RELEASED
    typed = [name for name in source.names if name not in (*_OURS, OVERFLOW)]
    found = dict.fromkeys(name for each in dicts for name in each if name != OVERFLOW)
    wanted = dict.fromkeys((*base, *typed, *found))
    first = [name for name in (group[0].order if group else ()) if name in wanted]
    fields = []
    for name in dict.fromkeys((*first, *wanted)):
        values = [each[name] for each in dicts if each.get(name) is not None]
        kind = source.field(name).type if name in typed else _kind(layout, name, values)
        if kind is not None:
            fields.append(arrow.field(name, kind))
    metadata = {_MARK: _VERSION} if layout is Layout.OURS else None
    return arrow.schema(fields, metadata=metadata)


def _is_ours(schema: pa.Schema) -> bool:
    return _MARK in (schema.metadata or {})


def _kind(layout: Layout, name: str, values: list[Any]) -> pa.DataType | None:
    """Return the type of a column; None where JSON text must hold its values."""
    arrow = _arrow()
    if name in _VIEWS:
        return _span_kind(layout)
    if name == _MADE:
        return _made_kind() if layout is Layout.OURS else None
    if name in _TEXTS:
        return arrow.string()
    if name in ("width", "height"):
        return arrow.int64()
    try:
        kind = arrow.infer_type(values) if values else None
    except (arrow.ArrowException, OverflowError, ValueError):
        kind = None
    if name == "id":
        return arrow.int64() if kind == arrow.int64() or not values else arrow.string()
    item = kind.value_type if kind is not None and arrow.types.is_list(kind) else kind
    simple = (arrow.int64(), arrow.float64(), arrow.string(), arrow.bool_())
    return kind if item in simple else None


def _span_kind(layout: Layout) -> pa.DataType:
    arrow = _arrow()
    if layout is Layout.RELEASED:
        return arrow.list_(arrow.list_(arrow.float64()))
    names = Grounded._fields
    kinds = [arrow.int32() if name in ("start", "end") else arrow.float64() for name in names]
    return arrow.list_(arrow.struct(list(zip(names, kinds, strict=True))))


def _made_kind() -> pa.DataType:
    arrow = _arrow()
    return arrow.struct([(item.name, arrow.string()) for item in dataclasses.fields(Provenance)])


def _made(provenance: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Return the cell of a provenance; its settings are JSON text, for they differ by record."""
    if provenance is None or "decoding" not in provenance:
        return None if provenance is None else dict(provenance)
    return {**provenance, "decoding": _json(provenance["decoding"])}


def _spans(
    entries: Sequence[Grounded] | None, kind: pa.DataType
) -> list[dict[str, Any]] | list[list[Any]] | None:
    if entries is None:
        return None
    if _arrow().types.is_struct(kind.value_type):
        return [entry._asdict() for entry in entries]
    return [list(entry) for entry in entries]


def _fitting(values: list[Any], kind: pa.DataType) -> list[Any]:
    """Return the values that a column gives back as they were, None for the others."""
    if _comes_back(values, kind):
        return values
    return [value if _comes_back([value], kind) else None for value in values]


def _comes_back(values: list[Any], kind: pa.DataType) -> bool:
    arrow = _arrow()
    if kind != arrow.bool_() and any(isinstance(value, bool) for value in values):
        return False
    try:
        array = arrow.array(values, kind)
    except (arrow.ArrowException, OverflowError, ValueError, TypeError):
        return False
    if _is_nanoseconds(kind):
        array = array.view(arrow.int64())
    back = array.to_pylist()
    return all(
        ours == theirs or (ours != ours and theirs != theirs)  # NaN is not itself
        for ours, theirs in zip(values, back, strict=True)
    )


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=as_json)
