"""GRIT records: round trips, refusals, grounded views."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.record import Grounded, GroundedRecord

HANGER: dict[str, Any] = {
    "id": 1795296605919,
    "caption": "a wire hanger with a paper cover that reads we heart our customers",
    "width": 1024,
    "height": 693,
    "noun_chunks": [[19, 32, 0.02, 0.31, 0.96, 0.97, 0.79], [0, 13, 0.02, 0.03, 0.96, 0.96, 0.68]],
    "ref_exps": [[19, 66, 0.02, 0.31, 0.96, 0.97, 0.79], [0, 66, 0.02, 0.03, 0.96, 0.96, 0.68]],
    "clip_similarity_vitb32": 0.353271484375,
    "key": "000373938",
}


def changed(**fields: object) -> dict[str, Any]:
    return {**HANGER, **fields}


@given(st.lists(st.from_type(Box), max_size=4), st.text(min_size=1, max_size=20), st.data())
def test_a_record_survives_json(boxes: list[Box], caption: str, data: st.DataObject) -> None:
    entries = []
    for box in boxes:
        start = data.draw(st.integers(0, len(caption) - 1))
        end = data.draw(st.integers(start + 1, len(caption)))
        entries.append(Grounded(start, end, *box.corners, 1.0))
    record = GroundedRecord(id="x", caption=caption, noun_chunks=tuple(entries), ref_exps=None)
    assert GroundedRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_fields_of_others_go_through_unchanged() -> None:
    assert GroundedRecord.from_dict(HANGER).to_dict() == HANGER


def test_the_published_records_write_back_as_they_were_read(shared_data: Path) -> None:
    lines = (shared_data / "grit-records.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        fields = json.loads(line)
        assert GroundedRecord.from_dict(fields).to_dict() == fields


def test_span_ends_of_parquet_come_back_as_whole_numbers() -> None:
    record = GroundedRecord.from_dict(changed(ref_exps=[[19.0, 66.0, 0, 0, 1, 1, 0.7]]))
    assert record.ref_exps is not None
    assert record.caption[record.ref_exps[0].start : record.ref_exps[0].end].startswith("a paper")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (changed(noun_chunks=[[0, 67, 0, 0, 1, 1, 1]]), r"noun_chunks\[0\].*\[0, 67\)"),
        (changed(noun_chunks=[[5, 5, 0, 0, 1, 1, 1]]), r"noun_chunks\[0\].*\[5, 5\)"),
        (changed(noun_chunks=[[0, 1.5, 0, 0, 1, 1, 1]]), r"noun_chunks\[0\].*1\.5"),
        (changed(noun_chunks=[[0, 1, 0, 0, 1, 1]]), r"noun_chunks\[0\]"),
        (changed(ref_exps=[[0, 1, 0.6, 0, 0.5, 1, 1]]), r"ref_exps\[0\].*0\.6"),
        (changed(ref_exps=[[0, 1, 0, 0, float("nan"), 1, 1]]), r"ref_exps\[0\].*nan"),
        (changed(ref_exps=[[0, 1, 0, 0, 40, 50, 1]]), r"ref_exps\[0\].*40"),
        (changed(ref_exps=[[0, 1, 0, 0, 1, 1, 7]]), r"ref_exps\[0\].*7"),
        (changed(ref_exps="none"), r"ref_exps.*'none'"),
        (changed(width=0), r"width.*0"),
        (changed(caption=None), r"caption.*None"),
        ({"id": 7, "caption": "a dog"}, r"record 7: missing \['noun_chunks', 'ref_exps'\]"),
    ],
)
def test_a_bad_record_is_refused_by_record_field_and_value(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecordError, match=rf"record {fields['id']}.*{named}|{named}"):
        GroundedRecord.from_dict(fields)


def test_a_view_gathers_the_boxes_of_a_span_in_text_order() -> None:
    rows = [[6, 11, 0, 0, 0.5, 1, 0.9], [0, 2, 0, 0, 1, 1, 0.8], [6, 11, 0.5, 0, 1, 1, 0.7]]
    record = GroundedRecord.from_dict(
        changed(caption="we saw birds", noun_chunks=rows, ref_exps=[])
    )
    view = record.grounded("noun_chunks")
    assert [(p.start, p.end, len(p.boxes), p.scores) for p in view.phrases] == [
        (0, 2, 1, (0.8,)),
        (6, 11, 2, (0.9, 0.7)),
    ]


def test_a_view_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RecordError, match="ref_exps"):
        GroundedRecord.from_dict(changed(ref_exps=None)).grounded("ref_exps")
