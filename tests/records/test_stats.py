"""What is counted of records: right numbers, in memory that does not grow."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Feature, features
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.stats import Histogram, Tally, count, read_reasons, whole_numbers


@given(st.lists(st.sampled_from("abcdefghijklmnop"), max_size=200), st.integers(1, 6))
def test_a_tally_is_never_too_high_and_too_low_by_at_most_what_it_says(
    words: list[str], capacity: int
) -> None:
    true, tally = Counter(words), Tally(capacity)
    for word in words:
        tally.add(word)
        assert len(tally) <= 2 * capacity
    told = dict(tally.most(100))
    for word, times in true.items():
        assert times - tally.missed <= told.get(word, 0) <= times
    assert tally.missed * (capacity + 1) <= tally.total == len(words)


def test_a_tally_with_room_for_all_words_is_exact_and_ranks_them() -> None:
    tally = Tally(3)
    for word in "babcccdbdd":
        tally.add(word)
    assert tally.missed == 0
    assert tally.most(3) == [("b", 3), ("c", 3), ("d", 3)]


def test_a_histogram_counts_edges_in_the_bar_that_they_begin() -> None:
    histogram = Histogram(edges=(0, 1, 10), labels=("0", "1-9", "10"))
    for value in (0, 0.5, 1, 9.99, 10, 1e9):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2]
    assert (histogram.n, histogram.low, histogram.high) == (6, 0, 1e9)


def test_the_last_bar_of_whole_numbers_takes_all_above() -> None:
    histogram = whole_numbers(1, 3)
    for value in (1, 2, 2, 3, 4, 50):
        histogram.add(value)
    assert dict(zip(histogram.labels, histogram.counts, strict=True)) == {"1": 1, "2": 2, "≥ 3": 3}
    assert histogram.mean == pytest.approx(62 / 6)


def test_every_number_of_a_known_record_is_right() -> None:
    # "two dogs on a mat": 8 characters, then " on ", then 5.
    dogs = [Grounded(0, 8, 0, 0, 0.5, 0.5, 0.75), Grounded(0, 8, 0.5, 0.5, 1, 1, None)]
    mat = Grounded(12, 17, 0, 0, 1, 0.02, 1.0)
    whole = Grounded(0, 17, 0, 0, 1, 1, 0.5)
    record = GroundedRecord(
        caption="two dogs on a mat",
        width=640,
        height=480,
        noun_chunks=(*dogs, mat),
        ref_exps=(whole, mat),
        extra={"license": "CC0"},
    )
    stats = count([record, record], ["no picture", "no picture", "too large"])
    assert (stats.records, stats.spans, stats.boxes, stats.dropped) == (2, 4, 4, 3)
    assert (stats.expression_words.n, stats.expression_words.total) == (4, 2 * (5 + 2))
    assert (stats.chunk_words.n, stats.chunk_words.total) == (4, 2 * (2 + 2))
    assert stats.caption_words.mean == 5
    assert stats.spans_a_record.mean == 2
    assert stats.boxes_a_span.mean == 1
    assert stats.box_shares.total == pytest.approx(2 * (100 + 2))
    assert dict(zip(stats.box_shares.labels, stats.box_shares.counts, strict=True)) == {
        "< 0.1": 0, "0.1–0.3": 0, "0.3–1": 0, "1–3": 2, "3–10": 0, "10–30": 0, "30–90": 0, "≥ 90": 2
    }  # fmt: skip
    assert stats.scores.mean == 0.75
    assert stats.phrases.most(5) == [("mat", 2), ("two dogs", 2)]
    assert stats.shapes.most(5) == [("landscape", 2)]
    assert stats.licences.most(5) == [("CC0", 2)]
    assert stats.reasons.most(5) == [("no picture", 2), ("too large", 1)]


def test_several_boxes_of_a_span_are_counted_together() -> None:
    boxes = tuple(Grounded(0, 3, 0, 0, 1, 1, None) for _ in range(3))
    stats = count([GroundedRecord(caption="ten cats", noun_chunks=boxes, ref_exps=None)])
    assert (stats.spans, stats.boxes, stats.boxes_a_span.counts[2]) == (1, 3, 1)
    assert stats.scores.n == 0


def test_features_are_counted_as_formats_see_them(examples: list[GroundedRecord]) -> None:
    stats = count(examples)
    for feature in Feature:
        assert stats.holding[feature] == sum(feature in features(record) for record in examples)


def test_reasons_are_read_with_their_step(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    rows = [{"image": "a.jpg", "reason": "no picture"}, {"step": "link", "reason": "no box"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert list(read_reasons(path)) == ["no picture", "link: no box"]


@pytest.mark.parametrize("line", ["[1]", "{", '{"image": "a.jpg"}', '{"reason": 3}'])
def test_a_line_without_a_reason_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "errors.jsonl"
    path.write_text('{"reason": "fine"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"errors\.jsonl:2"):
        list(read_reasons(path))
