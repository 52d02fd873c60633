"""Parquet: released GRIT without loss, columns of others with their types, row groups streamed."""

import datetime
import decimal
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples import example_records
from kosmos2.errors import RecordError
from kosmos2.records import parquet
from kosmos2.records.parquet import OVERFLOW, Columns
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.store import Writer, read, released_writer

SPANS = pa.list_(pa.list_(pa.float64()))
RELEASED = pa.schema(
    [
        ("clip_similarity_vitb32", pa.float64()),
        ("clip_similarity_vitl14", pa.float64()),
        ("id", pa.int64()),
        ("url", pa.string()),
        ("caption", pa.string()),
        ("key", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("noun_chunks", SPANS),
        ("ref_exps", SPANS),
    ]
)
ROW: dict[str, Any] = {
    "clip_similarity_vitb32": 0.353271484375,
    "clip_similarity_vitl14": 0.2958984375,
    "id": 1795296605919,
    "url": "https://example.com/customerservice-1.jpg",
    "caption": "a wire hanger with a paper cover that reads we heart our customers",
    "key": "000373938",
    "width": 1024,
    "height": 693,
    "noun_chunks": [[19.0, 32.0, 0.0196, 0.31, 0.96, 0.96, 0.79]],
    # The first contains the second.
    "ref_exps": [
        [0.0, 66.0, 0.0194, 0.02, 0.95, 0.96, 0.67],
        [19.0, 66.0, 0.0, 0.3, 1.0, 0.9, 0.7],
    ],
}


def file_of(path: Path, schema: pa.Schema, *rows: dict[str, Any]) -> pa.Table:
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, row_group_size=2)
    return table


def copied(source: Path, target: Path) -> pa.Table:
    with released_writer(target) as writer:
        for record in read(source):
            writer.write(record)
    return pq.read_table(target)


@pytest.mark.parametrize("schema", [RELEASED, RELEASED.remove(5)], ids=["key", "no-key"])
def test_released_grit_is_written_back_equal(tmp_path: Path, schema: pa.Schema) -> None:
    clipless = {**ROW, "clip_similarity_vitb32": None, "clip_similarity_vitl14": float("nan")}
    rows = [{k: v for k, v in row.items() if k in schema.names} for row in (ROW, clipless, ROW)]
    rows[1]["noun_chunks"] = None
    table = file_of(tmp_path / "coyo_0_snappy.parquet", schema, *rows)
    back = copied(tmp_path / "coyo_0_snappy.parquet", tmp_path / "back.parquet")
    assert back.schema == table.schema
    assert str(back.to_pylist()) == str(table.to_pylist())  # as text, where NaN is itself


def test_spans_of_floats_are_whole_numbers_and_nested_ones_are_kept(tmp_path: Path) -> None:
    file_of(tmp_path / "a.parquet", RELEASED, ROW)
    (record,) = read(tmp_path / "a.parquet")
    assert record.ref_exps is not None
    assert [record.caption[entry.start : entry.end] for entry in record.ref_exps] == [
        "a wire hanger with a paper cover that reads we heart our customers",
        "a paper cover that reads we heart our customers",
    ]
    assert record.extra["key"] == "000373938"


def test_parquet_and_json_lines_of_grit_are_the_same_records(tmp_path: Path) -> None:
    file_of(tmp_path / "a.parquet", RELEASED, ROW)
    line = {
        **ROW,
        "noun_chunks": [[19, 32, *ROW["noun_chunks"][0][2:]]],
        "ref_exps": [[int(row[0]), int(row[1]), *row[2:]] for row in ROW["ref_exps"]],
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    assert list(read(tmp_path / "a.parquet")) == list(read(tmp_path / "a.jsonl"))
    with Writer(tmp_path / "b.jsonl") as writer:
        for record in read(tmp_path / "a.parquet"):
            writer.write(record)
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()


def test_json_lines_become_the_released_layout(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n")
    table = copied(tmp_path / "a.jsonl", tmp_path / "b.parquet")
    assert table.schema.equals(RELEASED)
    assert table.to_pylist() == [ROW]


STRANGE = {
    "crawled": (pa.timestamp("ns", "UTC"), 1_700_000_000_123_456_789),
    "day": (pa.date32(), datetime.date(2024, 2, 29)),
    "small": (pa.int8(), -3),
    "half": (pa.float32(), 0.1),
    "price": (pa.decimal128(9, 2), decimal.Decimal("12.50")),
    "raw": (pa.binary(), b"\x00\xff"),
    "kind": (pa.dictionary(pa.int32(), pa.string()), "photo"),
    "exif": (pa.struct([("make", pa.string()), ("iso", pa.int16())]), {"make": "K", "iso": None}),
    "tags": (pa.list_(pa.large_string()), ["a", None]),
    "pairs": (pa.map_(pa.string(), pa.int32()), [("a", 1)]),
    "empty": (pa.null(), None),
}


def test_columns_of_others_keep_their_types(tmp_path: Path) -> None:
    schema = RELEASED
    for name, (kind, _) in STRANGE.items():
        schema = schema.append(pa.field(name, kind, metadata={"unit": "of theirs"}))
    schema = schema.with_metadata({"made by": "others"})
    values = {name: value for name, (_, value) in STRANGE.items()}
    nothing = dict.fromkeys(values)
    table = file_of(tmp_path / "a.parquet", schema, {**ROW, **values}, {**ROW, **nothing})
    back = copied(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert back.schema.equals(pq.read_schema(tmp_path / "a.parquet"), check_metadata=True)
    assert back.equals(table)

    with Writer(tmp_path / "ours.parquet") as writer:
        for record in read(tmp_path / "a.parquet"):
            writer.write(record)
    ours = pq.read_table(tmp_path / "ours.parquet")
    assert {name: ours.schema.field(name).type for name in STRANGE} == {
        name: kind for name, (kind, _) in STRANGE.items()
    }
    assert ours.select(list(STRANGE)).equals(
        table.select(list(STRANGE)).cast(ours.select(list(STRANGE)).schema)
    )
    with Writer(tmp_path / "lines.jsonl") as lines:
        for record in read(tmp_path / "a.parquet"):
            lines.write(record)


def test_the_types_of_columns_travel_between_processes(tmp_path: Path) -> None:
    file_of(tmp_path / "a.parquet", RELEASED, ROW)
    (record,) = read(tmp_path / "a.parquet")
    copy = pickle.loads(pickle.dumps(record))
    assert copy == record
    assert isinstance(copy.extra, Columns)
    assert copy.extra.schema == RELEASED


def record_with(number: int, **extra: Any) -> GroundedRecord:
    return GroundedRecord(id=number, caption="a dog", noun_chunks=None, ref_exps=None, extra=extra)


ODD = [
    record_with(1, licence="MIT", size=3, share=0.5, good=True, tags=["a"], odd={"a": {}}),
    record_with(2, licence=None, size="big", share=1.5, good=1, tags=[1], odd={"b": [1, "x"]}),
    record_with(3),
    record_with(4, late="here", size=2**70, share=True, good=False, tags=[], odd=None),
    GroundedRecord(id="five", caption="", noun_chunks=(), ref_exps=()),
]


def test_what_fits_no_column_is_kept_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_GROUP", 3)
    with Writer(tmp_path / "a.parquet") as writer:
        for record in ODD:
            writer.write(record)
    back = list(read(tmp_path / "a.parquet"))
    assert back == ODD
    for ours, theirs in zip(back, ODD, strict=True):  # True is not 1 here
        assert repr(sorted(ours.extra.items())) == repr(sorted(theirs.extra.items()))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.field("licence").type == pa.string()
    assert "late" not in table.column_names


def test_spans_of_our_layout_are_named_numbers(tmp_path: Path) -> None:
    entries = (Grounded(0, 5, 0.25, 0, 1, 0.5, None), Grounded(2, 5, 0.0, 0.0, 1.0, 1.0, 0.75))
    record = GroundedRecord(id=1, caption="a dog", noun_chunks=None, ref_exps=entries)
    with Writer(tmp_path / "a.parquet") as writer:
        writer.write(record)
    first = pq.read_table(tmp_path / "a.parquet")["ref_exps"][0].as_py()[0]
    expected = {"start": 0, "end": 5, "x0": 0.25, "y0": 0, "x1": 1, "y1": 0.5, "score": None}
    assert first == expected
    assert list(read(tmp_path / "a.parquet")) == [record]


def test_what_made_a_record_can_be_asked_by_column(tmp_path: Path) -> None:
    records = example_records(tmp_path)
    with Writer(tmp_path / "a.parquet") as writer:
        for record in records:
            writer.write(record)
    table = pq.read_table(tmp_path / "a.parquet")
    made = table["provenance"].to_pylist()
    assert made[:-1] == [None] * (len(records) - 1)
    assert made[-1]["model"] == "kosmos2"
    assert json.loads(made[-1]["decoding"]) == {"beams": 1, "max_tokens": 64}


def test_the_released_layout_gets_a_column_more_only_where_records_need_it(tmp_path: Path) -> None:
    records = example_records(tmp_path)
    with released_writer(tmp_path / "a.parquet") as writer:
        for record in records:
            writer.write(record)
    assert list(read(tmp_path / "a.parquet")) == records
    assert OVERFLOW in pq.read_table(tmp_path / "a.parquet").column_names


def test_what_the_released_layout_cannot_take_any_more_is_refused_by_record_and_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_GROUP", 2)
    with (
        pytest.raises(RecordError, match=r"record 9 has \{'late': 'x'\}.*--to parquet"),
        released_writer(tmp_path / "a.parquet") as writer,
    ):
        for record in (record_with(1), record_with(2), record_with(9, late="x"), record_with(3)):
            writer.write(record)
    assert not list(tmp_path.iterdir())


def test_a_bad_row_is_named_by_file_and_row(tmp_path: Path) -> None:
    file_of(tmp_path / "a.parquet", RELEASED, ROW, {**ROW, "width": 0})
    with pytest.raises(RecordError, match=r"a\.parquet:row 2: .*width.*0"):
        list(read(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_file_that_is_no_whole_parquet_is_named(tmp_path: Path, kept: int) -> None:
    file_of(tmp_path / "a.parquet", RELEASED, ROW)
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:kept])
    with pytest.raises(RecordError, match=r"a\.parquet.*Parquet"):
        list(read(tmp_path / "a.parquet"))


def test_reading_holds_some_rows_and_no_whole_row_group(tmp_path: Path) -> None:
    number, width = 4000, 10_000
    text = pa.array([f"{n:05d}" * (width // 5) for n in range(number)])
    empty = pa.nulls(number, SPANS)
    table = pa.table({"caption": text, "noun_chunks": empty, "ref_exps": empty})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, compression="none")
    del table, text, empty
    before = pa.total_allocated_bytes()
    records = read(tmp_path / "a.parquet")
    next(records)
    assert pa.total_allocated_bytes() - before < number * width * 0.6
