"""Lists hold what fits their query, and stay as they were asked for; stores are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from editor_cases import BALL, DOG, LEFT, RIGHT, dog, records, write_store
from hypothesis import given

from kosmos2.editor.catalogue import KEPT_LISTS, Catalogue, Query, Sort, Summary, summary_of
from kosmos2.editor.changes import Draw
from kosmos2.editor.differ import Kind, difference
from kosmos2.editor.history import State, Status
from kosmos2.editor.session import Decide, Session, reasons_of
from kosmos2.errors import RecordError
from kosmos2.records.record import Grounded, GroundedRecord


def summaries(*records: GroundedRecord) -> list[Summary]:
    return [summary_of(State.of(record), (), None) for record in records]


def found(query: Query, *given: Summary) -> list[int]:
    catalogue = Catalogue()
    for summary in given:
        catalogue.add(summary)
    return list(catalogue.listed(catalogue.make_list(query)))


LARGE = replace(dog("large"), ref_exps=(Grounded(*DOG, 0, 0, 1, 1, 0.2),))
BARE = replace(dog("bare"), ref_exps=())
UNSCORED = replace(dog("none"), ref_exps=(Grounded(*BALL, *RIGHT, None),))
FAULTY = replace(
    BARE, extra={"malformed": [{"reason": "no_words", "detail": ""}], "drop_reason": "nsfw"}
)


@pytest.mark.parametrize(
    ("query", "fitting"),
    [
        (Query(), [0, 1, 2, 3, 4]),
        (Query(text="DOG"), [0, 1]),
        (Query(text="none"), [3]),
        (Query(text="red ball", min_score=0.5), []),
        (Query(text="red ball", max_score=0.5), [0]),
        (Query(max_score=0.3), [1]),
        (Query(min_area=0.5), [1]),
        (Query(max_area=0.1), [0, 3]),
        (Query(reason="no_words"), [4]),
        (Query(reason="nsfw"), [4]),
        (Query(statuses=frozenset({Status.ACCEPTED})), []),
        (Query(sort=Sort.SCORE), [1, 0, 2, 3, 4]),
        (Query(sort=Sort.SIZE), [0, 3, 1, 2, 4]),
    ],
)
def test_a_list_holds_the_records_that_fit_in_the_order_asked_for(
    query: Query, fitting: list[int]
) -> None:
    assert found(query, *summaries(dog(), LARGE, BARE, UNSCORED, FAULTY)) == fitting


def test_a_list_stays_while_its_records_are_worked_through(tmp_path: Path) -> None:
    store = write_store(tmp_path / "records.jsonl", dog(1), dog(2))
    untouched = Query(statuses=frozenset({Status.UNTOUCHED}))
    with Session.open(store) as session:
        before = session.make_list(untouched)
        session.edit(0, Decide(status="accepted"), 0)
        assert list(session.catalogue.listed(before)) == [0, 1]
        assert list(session.catalogue.listed(session.make_list(untouched))) == [1]
        assert session.catalogue.statuses()["accepted"] == 1


def test_a_list_that_was_forgotten_is_told() -> None:
    catalogue = Catalogue()
    first = catalogue.make_list(Query())
    for _ in range(KEPT_LISTS):
        catalogue.make_list(Query())
    with pytest.raises(RecordError, match="ask again"):
        catalogue.listed(first)


def test_reasons_of_a_ledger_go_to_the_records_that_it_names(tmp_path: Path) -> None:
    store = write_store(tmp_path / "records.jsonl", dog(1), dog("b"))
    ledger = tmp_path / "dropped.jsonl"
    ledger.write_text('{"id": "1", "reason": "duplicate picture"}\n{"id": "9", "reason": "x"}\n')
    told = {name: [reason] for name, reason in reasons_of(ledger)}
    with Session.open(store, reasons=told) as session:
        assert session.catalogue.reasons() == {"duplicate picture": 1}
        name = session.make_list(Query(reason="duplicate picture"))
        assert list(session.catalogue.listed(name)) == [0]


@given(one=records(), other=records())
def test_disagreement_is_a_share_and_none_with_itself(
    one: GroundedRecord, other: GroundedRecord
) -> None:
    assert 0 <= difference(one, other).amount <= 1
    same = difference(one, one)
    areas = [entry.box.area for entry in one.entries]
    assert same.amount == 0 or 0 in areas or same.amount < 1e-6
    assert all(pair.kind is Kind.SAME for pair in same.pairs)


@given(one=records(), other=records())
def test_every_box_of_two_records_is_in_one_pair(
    one: GroundedRecord, other: GroundedRecord
) -> None:
    one, other = (replace(each, noun_chunks=None) for each in (one, other))
    pairs = difference(one, other).pairs
    ours = [pair.ours for pair in pairs if pair.ours is not None]
    theirs = [pair.theirs for pair in pairs if pair.theirs is not None]
    assert sorted(ours) == list(range(len(one.ref_exps or ())))
    assert sorted(theirs) == list(range(len(other.ref_exps or ())))


def test_differences_are_named() -> None:
    other = replace(
        dog(),
        ref_exps=(
            Grounded(0, 16, 0.3, 0.2, 0.6, 0.8, 0.5),
            Grounded(24, 36, *RIGHT, 0.5),
            Grounded(9, 16, 0, 0.9, 1, 1, 0.5),
        ),
    )
    one = replace(dog(), ref_exps=(*dog().entries, Grounded(0, 5, 0, 0, 0.05, 0.05, None)))
    told = difference(one, other)
    assert sorted((str(pair.kind), pair.ours, pair.theirs) for pair in told.pairs) == [
        ("moved", 0, 0), ("ours", 2, None), ("theirs", None, 2), ("words", 1, 1)
    ]  # fmt: skip
    assert difference(dog(), replace(dog(), caption=dog().caption.upper())).amount == 0


def test_a_store_is_held_against_another_by_id(tmp_path: Path) -> None:
    store = write_store(tmp_path / "ours.jsonl", dog(1), dog(2), dog(3))
    other = write_store(tmp_path / "theirs.jsonl", LARGE, dog(3), replace(LARGE, id="2"))
    with Session.open(store, against=other) as session:
        apart = [session.catalogue[number].disagreement for number in range(3)]
        assert apart[0] is None
        assert apart[1] is not None
        assert apart[1] > 0.5
        assert apart[2] == 0
        name = session.make_list(Query(min_disagreement=0.5, sort=Sort.DISAGREEMENT))
        assert list(session.catalogue.listed(name)) == [1]
        session.edit(2, Draw(view="ref_exps", span=DOG, corners=LEFT), 0)
        assert (session.catalogue[2].disagreement or 0) > 0
