"""Choosing records: fair samples, parts that never change, sets put together."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord
from kosmos2.records.select import Duplicates, Merge, Parts, identity, sample, share_out


def record(name: int | str | None, **others: str) -> GroundedRecord:
    return GroundedRecord(id=name, caption="a dog", noun_chunks=(), ref_exps=None, **others)


@given(st.integers(1, 30), st.integers(0, 60), st.integers(0, 5))
def test_a_sample_is_in_order_without_repeats_and_as_large_as_asked(
    count: int, available: int, seed: int
) -> None:
    chosen = sample(range(available), count, seed=seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, available)
    assert chosen == sample(iter(range(available)), count, seed=seed)


def test_every_item_is_as_likely_to_be_sampled() -> None:
    times = Counter(item for seed in range(2000) for item in sample(range(20), 5, seed=seed))
    # 500 expected of each, with a standard deviation of 19.
    assert all(400 < times[item] < 600 for item in range(20))


def test_the_item_after_a_full_sample_has_its_exact_chance() -> None:
    times = Counter(item for seed in range(2000) for item in sample(range(2), 1, seed=seed))
    # 1000 expected of each, with a standard deviation of 22; one more or less to draw from shows.
    assert all(880 < times[item] < 1120 for item in range(2))


def test_a_record_falls_into_the_same_part_in_any_company_and_order() -> None:
    parts = Parts([0.5, 0.3, 0.2])
    records = [record(number) for number in range(500)]
    alone = {one.id: parts.of(one) for one in records}
    random.Random(0).shuffle(records)
    assert {one.id: Parts([0.5, 0.3, 0.2]).of(one) for one in records[::3]}.items() <= alone.items()


def test_parts_have_about_their_shares() -> None:
    parts = Parts([0.9, 0.1])
    sizes = Counter(parts.of(record(number)) for number in range(5000))
    assert sizes[0] + sizes[1] == 5000
    assert 400 < sizes[1] < 600


def test_a_first_part_that_grows_keeps_what_it_had() -> None:
    small, large = Parts([0.2, 0.8]), Parts([0.4, 0.6])
    for number in range(300):
        if small.of(record(number)) == 0:
            assert large.of(record(number)) == 0


def test_the_part_of_a_record_is_pinned() -> None:
    # A change here moves records between people's training and test sets.
    parts = Parts([1 / 7] * 7)
    assert [parts.of(record(number)) for number in range(10)] == [1, 5, 5, 1, 4, 5, 0, 1, 3, 2]


def test_an_id_is_the_same_as_number_and_as_text() -> None:
    assert identity(record(17)) == identity(record("17"))


def test_records_without_id_are_told_apart_by_what_they_have() -> None:
    others = [
        record(None),
        record(None, image="a.jpg"),
        record(None, image="b.jpg"),
        record(None, image="a.jpg", shard="0.tar"),
        record(None, url="https://example.com/a.jpg"),
        record("a.jpg"),
    ]
    assert len({identity(one) for one in others}) == len(others)


@pytest.mark.parametrize("shares", [[], [0.5, 0.4], [0.5, 0.6], [1.2, -0.2], [0.0, 1.0], [1, 0]])
def test_shares_that_are_no_parts_of_a_whole_are_refused(shares: list[float]) -> None:
    with pytest.raises(RecordError, match="shares of parts"):
        Parts(shares)


def merged(duplicates: Duplicates) -> tuple[list[str], int]:
    merge = Merge(duplicates)
    first = [record(1, image="first"), record(2, image="first"), record(None, image="first")]
    second = [record("2", image="second"), record(3, image="second"), record(None, image="second")]
    records = list(merge.records([("first", first), ("second", second)]))
    return [f"{one.id} {one.image}" for one in records], merge.found


def test_merged_records_keep_the_order_of_their_sources() -> None:
    assert merged(Duplicates.KEEP) == (
        ["1 first", "2 first", "None first", "2 second", "3 second", "None second"],
        1,
    )


def test_a_dropped_duplicate_is_the_later_one_and_is_counted() -> None:
    assert merged(Duplicates.DROP) == (
        ["1 first", "2 first", "None first", "3 second", "None second"],
        1,
    )


def test_a_refused_duplicate_is_named_with_its_source() -> None:
    with pytest.raises(RecordError, match=r"second: record 2 .*--duplicates"):
        merged(Duplicates.REFUSE)


def shared_out(failing: int | None, source: Iterable[GroundedRecord]) -> list[list[object]]:
    """Share out into three; the writer of one part fails at its third record."""
    finished = []

    def write(part: int, records: Iterator[GroundedRecord]) -> list[object]:
        taken: list[object] = []
        for one in records:
            taken.append(one.id)
            if part == failing and len(taken) == 3:
                raise OSError("the disk is full")
        finished.append(part)
        return taken

    try:
        return share_out(source, Parts([0.5, 0.25, 0.25]), write)
    except Exception:
        assert not finished, "a part was written as if it were whole"
        raise


def test_sharing_out_hands_each_record_to_its_part_in_order() -> None:
    parts = Parts([0.5, 0.25, 0.25])
    records = [record(number) for number in range(3000)]
    expected = [[one.id for one in records if parts.of(one) == part] for part in range(3)]
    assert shared_out(None, records) == expected


@pytest.mark.parametrize("failing", range(3))
def test_an_error_of_one_writer_ends_all_and_is_told(failing: int) -> None:
    with pytest.raises(OSError, match="disk is full"):
        shared_out(failing, (record(number) for number in range(3000)))


def test_an_error_of_reading_ends_all_writers() -> None:
    def broken() -> Iterator[GroundedRecord]:
        yield from (record(number) for number in range(500))
        raise RecordError("line 501 is no record")

    with pytest.raises(RecordError, match="line 501"):
        shared_out(None, broken())
