"""The published schema says what a record accepts; the check names every fault by its place."""

import gzip
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from examples import example_records
from kosmos2.errors import RecordError
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord, Provenance
from kosmos2.records.schema import VERSION, Fault, check, record_schema
from kosmos2.records.store import Kind, Writer, folder_writer, parts_of

SCHEMA = record_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GOOD: dict[str, Any] = {
    "id": 7,
    "caption": "a dog and a cat",
    "noun_chunks": [[0, 5, 0.1, 0.1, 0.5, 0.5, 0.75], [10, 15, 0.5, 0.5, 1, 1, None]],
    "ref_exps": None,
    "width": 640,
    "height": 480,
    "image": "a.jpg",
    "shard": None,
    "url": "https://example.com/a.jpg",
    "sha256": "00ff",
    "provenance": {"model": "kosmos2", "decoding": {"beams": 1}, "task": None},
    "licence": "CC BY 4.0",
}

NUMBERS = st.sampled_from(
    [0, 1, 2, 5, 15, 16, -1, 1.0, 1.5, 0.25, 0.5, -0.0, 2**70, 10**400, -0.1, 1e300, True, False]
)
VALUES = st.one_of(
    st.none(),
    NUMBERS,
    st.sampled_from(["", "a", "1"]),
    st.sampled_from(["[]", "{}", "[0]", '{"a": 1}']).map(json.loads),  # each time another one
)
SHARES = st.sampled_from([0, 0.25, 0.5, 1])
SPANS = st.sampled_from([[0, 5], [10, 15.0], [2, 3]])
FINE = st.tuples(SPANS, st.lists(SHARES, min_size=4, max_size=4), st.none() | SHARES).map(
    lambda parts: [*parts[0], *sorted(parts[1][:2]), *sorted(parts[1][2:]), parts[2]]
)
ENTRIES = st.one_of(FINE, FINE, st.lists(NUMBERS, min_size=6, max_size=8), VALUES)


@st.composite
def changed(draw: st.DrawFn) -> Any:
    """Return a good record with some of its parts put in, taken out or replaced."""
    record = json.loads(json.dumps(GOOD))
    names = st.sampled_from([*GOOD, "key", "extra", "order"])
    for name in draw(st.lists(names, max_size=2)):
        record[name] = draw(VALUES)
    for name in draw(st.lists(names, max_size=1)):
        record.pop(name, None)
    if draw(st.booleans()):
        record[draw(st.sampled_from(["noun_chunks", "ref_exps"]))] = draw(
            st.lists(ENTRIES, max_size=2)
        )
    view = record.get("noun_chunks")
    if isinstance(view, list) and view and isinstance(view[0], list) and draw(st.booleans()):
        for place in draw(st.lists(st.integers(0, max(0, len(view[0]) - 1)), max_size=2)):
            view[0][place : place + 1] = [draw(VALUES)]
    made = record.get("provenance")
    if isinstance(made, dict) and draw(st.booleans()):
        made[draw(st.sampled_from([*SCHEMA["$defs"]["provenance"]["properties"], "odd"]))] = draw(
            VALUES
        )
    return record


def is_accepted(record: Any) -> bool:
    try:
        GroundedRecord.from_dict(record)
    except RecordError:
        return False
    return True


def keeps_what_no_schema_says(record: Any) -> bool:
    """Return whether spans lie in the caption and corners are in order, as the description has."""
    entries = [*(record["noun_chunks"] or ()), *(record["ref_exps"] or ())]
    return all(
        start < end <= len(record["caption"]) and x0 <= x1 and y0 <= y1
        for start, end, x0, y0, x1, y1, _ in entries
    )


def faults_of(record: Any, folder: Path) -> list[Fault]:
    path = folder / "a.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return list(check(path))


@settings(max_examples=1000)
@given(changed())
@example({**GOOD, "provenance": {}})
@example({**GOOD, "provenance": ""})
@example({**GOOD, "id": [1]})
@example({**GOOD, "width": 640.0})
@example({**GOOD, "noun_chunks": [[0, 10**400, 0, 0, 1, 1, 1]]})
def test_the_schema_and_the_record_accept_the_same(record: Any) -> None:
    valid = VALIDATOR.is_valid(record)
    assert is_accepted(record) == (valid and keeps_what_no_schema_says(record))


@settings(max_examples=300)
@given(record=changed())
def test_a_record_has_faults_if_and_only_if_it_is_refused(
    record: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    faults = faults_of(record, tmp_path_factory.getbasetemp())
    assert bool(faults) != is_accepted(record)
    places = [fault.field for fault in faults]
    assert len(places) == len(set(places))


def test_the_schema_is_one_and_has_a_version() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == f"urn:kosmos2:grounded-record:{VERSION}"
    assert SCHEMA["title"].endswith(f"version {VERSION}")


def test_the_schema_has_the_fields_of_the_record() -> None:
    known = {item.name for item in fields(GroundedRecord)} - {"extra", "order"}
    assert set(SCHEMA["properties"]) == known
    made = {item.name for item in fields(Provenance)}
    assert set(SCHEMA["$defs"]["provenance"]["properties"]) == made


def test_what_we_write_is_valid(tmp_path: Path) -> None:
    for record in example_records(tmp_path):
        VALIDATOR.validate(record.to_dict())


def test_published_records_are_valid_and_without_fault(shared_data: Path) -> None:
    path = shared_data / "grit-records.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        VALIDATOR.validate(json.loads(line))
    assert list(check(path)) == []


def test_every_fault_of_a_record_is_told_with_its_value(tmp_path: Path) -> None:
    record = {
        "id": 7,
        "caption": "a dog",
        "noun_chunks": [[0, 5, 0, 0, 1, 1, 0.5], [3, 99, 0.9, 0, 0.1, 40, 7], "no entry"],
        "width": 0,
        "url": 5,
        "provenance": {"code": 3, "made by": "me"},
    }
    found = {fault.field: (fault.value, fault.why) for fault in faults_of(record, tmp_path)}
    known = ["model", "weights", "task", "prompt", "decoding", "code"]
    entry = "must be [start, end, x0, y0, x1, y1, score]"
    assert found == {
        "ref_exps": (None, "is missing"),
        "noun_chunks[1].span": ([3, 99], "must be a span of the 5 characters of the caption"),
        "noun_chunks[1].box": ([0.9, 0, 0.1, 40], "must be a box with 0 <= min <= max <= 1"),
        "noun_chunks[1].score": (7, "must have a score in 0..1"),
        "noun_chunks[2]": ("no entry", entry),
        "width": (0, "must be at least 1"),
        "url": (5, "must be text"),
        "provenance.code": (3, "must be text"),
        "provenance.made by": ("me", f"is no key of it; it may have {known}"),
        "provenance.model": (None, "is missing"),
    }


def test_a_fault_reads_as_place_record_field_value_and_reason(tmp_path: Path) -> None:
    (fault,) = faults_of({**GOOD, "width": 0}, tmp_path)
    assert str(fault) == f"{tmp_path / 'a.jsonl'}:1: record 7: width 0 must be at least 1"


def test_spans_are_looked_at_though_the_caption_is_no_text(tmp_path: Path) -> None:
    record = {**GOOD, "caption": None, "noun_chunks": [[5, 2, 0, 0, 1, 1, 1]]}
    assert [fault.field for fault in faults_of(record, tmp_path)] == [
        "caption",
        "noun_chunks[0].span",
    ]


def test_no_bad_line_ends_the_check(tmp_path: Path) -> None:
    good = json.dumps(GOOD).encode()
    lines = [good, b"{", b"[1]", b"", b'"\xff"', json.dumps({**GOOD, "width": 0}).encode(), good]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join([*lines, b'{"capt'])))
    found = [
        (fault.where.rpartition(":")[2], fault.why) for fault in check(tmp_path / "a.jsonl.gz")
    ]
    assert [place for place, _ in found] == ["2", "3", "5", "6", "8"]
    assert "no JSON" in found[0][1]
    assert "JSON object" in found[1][1]
    assert "no UTF-8" in found[2][1]
    assert "unfinished" in found[4][1]


@pytest.mark.parametrize("kind", Kind)
def test_one_damaged_file_of_a_folder_does_not_hide_the_faults_of_the_next(
    tmp_path: Path, kind: Kind
) -> None:
    record = GroundedRecord(id=7, caption="a dog", noun_chunks=None, ref_exps=None)
    for _ in range(3):
        with folder_writer(tmp_path, kind, Pictures(tmp_path)) as writer:
            writer.write(record)
    first, second, third = parts_of(tmp_path, kind)
    second.write_bytes(b"\x00\x01" * 700)
    third.write_bytes(first.read_bytes()[: 600 if kind is Kind.WEBDATASET else -40])
    assert {fault.where.removeprefix(str(tmp_path))[:7] for fault in check(tmp_path)} == {
        "/000001",
        "/000002",
    }


def test_rows_of_parquet_are_checked(tmp_path: Path) -> None:
    spans = pa.list_(pa.list_(pa.float64()))
    table = pa.table(
        {
            "key": ["k1", "k2"],
            "caption": ["a dog", None],
            "noun_chunks": pa.array([[[0.0, 5.5, 0, 0, 1, 1, 1]], None], spans),
            "ref_exps": pa.array([[[0.0, 5.0, 0, 0, 1, 1]], []], spans),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = [
        (fault.where.rpartition(":")[2], fault.record, fault.field)
        for fault in check(tmp_path / "a.parquet")
    ]
    assert found == [
        ("row 1", "k1", "noun_chunks[0].span"),
        ("row 1", "k1", "ref_exps[0]"),
        ("row 2", "k2", "caption"),
    ]


def test_a_store_without_faults_has_none(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.parquet") as writer:
        for record in example_records(tmp_path):
            writer.write(record)
    assert list(check(tmp_path / "a.parquet")) == []


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere"])
def test_a_missing_store_is_an_error_not_a_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match="nowhere"):
        list(check(tmp_path / name))
