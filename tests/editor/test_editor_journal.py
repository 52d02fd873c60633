"""The journal: what was answered survives a kill at any byte, and replayed it is the state."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from editor_cases import BALL, DOG, LEFT, RIGHT, dog, edits, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos2.editor.catalogue import Summary
from kosmos2.editor.changes import Draw, Move, Reword
from kosmos2.editor.history import History, State, Status
from kosmos2.editor.journal import journal_of
from kosmos2.editor.session import Conflict, Decide, Edit, Redo, Session, Undo
from kosmos2.errors import Kosmos2Error, RecordError

MIDDLE = (0.3, 0.3, 0.5, 0.5)
SOME: tuple[tuple[int, Edit], ...] = (
    (0, Move(view="ref_exps", entry=0, corners=MIDDLE)),
    (1, Reword(caption="A dog sees a red ball – 😀.")),
    (0, Draw(view="ref_exps", span=DOG, corners=RIGHT)),
    (0, Undo()),
    (1, Decide(status="accepted")),
    (0, Redo()),
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "records.jsonl", dog(7), dog("b"), dog(9))


def make(session: Session, number: int, edit: Edit) -> None:
    assert session.edit(number, edit, session.history(number).version) is None


def states(session: Session) -> list[State]:
    return [session.state(number) for number in range(len(session))]


def make_all(store: Path, wanted: list[tuple[int, Edit]]) -> tuple[list[History], list[Summary]]:
    with Session.open(store) as session:
        for number, edit in wanted:
            with suppress(Kosmos2Error):
                make(session, number, edit)
        return (
            [session.history(number) for number in range(2)],
            [session.catalogue[number] for number in range(2)],
        )


def undo_all(session: Session) -> None:
    for number in range(len(session)):
        while session.history(number).past:
            make(session, number, Undo())


def redo_all(session: Session) -> None:
    for number in range(len(session)):
        while session.history(number).future:
            make(session, number, Redo())


@settings(max_examples=30)
@given(wanted=st.lists(st.tuples(st.integers(0, 1), edits), max_size=12))
def test_any_edits_replayed_are_the_state(wanted: list[tuple[int, Edit]]) -> None:
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "records.jsonl", dog(7), dog("b"))
        assert make_all(store, wanted) == make_all(store, [])


@settings(max_examples=30)
@given(wanted=st.lists(st.tuples(st.integers(0, 1), edits), max_size=12))
def test_undoing_all_is_the_store_and_redoing_all_is_the_end(
    wanted: list[tuple[int, Edit]],
) -> None:
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "records.jsonl", dog(7), dog("b"))
        make_all(store, wanted)
        with Session.open(store) as session:
            redo_all(session)
            before = states(session)
            undo_all(session)
            assert states(session) == [State.of(dog(7)), State.of(dog("b"))]
            assert not session.changed()
            redo_all(session)
            assert states(session) == before


def test_a_kill_at_any_byte_costs_the_edit_that_was_being_written_alone(store: Path) -> None:
    after = []
    with Session.open(store) as session:
        ends, after = [0], [states(session)]
        for number, edit in SOME:
            make(session, number, edit)
            ends.append(journal_of(store).stat().st_size)
            after.append(states(session))
    whole = journal_of(store).read_bytes()
    around = {end + step for end in ends for step in (-2, -1, 0, 1)} & set(range(len(whole) + 1))
    for length in sorted(around | set(range(0, len(whole), 61))):
        journal_of(store).write_bytes(whole[:length])
        done = max(number for number, end in enumerate(ends) if end <= length)
        with Session.open(store) as session:
            assert states(session) == after[done]
            make(session, 2, Decide(status="rejected"))
        with Session.open(store) as session:
            assert states(session)[:2] == after[done][:2]
            assert session.state(2).status is Status.REJECTED


def test_a_short_edit_behind_a_long_one_that_was_cut_off_is_all_there_is(store: Path) -> None:
    journal_of(store).write_text('{"record": 0, "edit": "' + 9_999 * "x")
    with Session.open(store) as session:
        make(session, 0, Decide(status="accepted"))
    assert len(journal_of(store).read_bytes()) < 2_000
    with Session.open(store) as session:
        assert session.state(0).status is Status.ACCEPTED


def test_an_edit_is_on_the_disk_before_it_is_answered(store: Path, synced: list[int]) -> None:
    with Session.open(store) as session:
        synced.clear()
        make(session, 1, Reword(caption="A dog."))
        assert len(synced) == 1
        [line] = map(json.loads, journal_of(store).read_text().splitlines())
    assert (line["record"], line["id"], line["version"]) == (1, "b", 1)
    assert line["edit"] == {"kind": "reword", "caption": "A dog."}
    assert line["after"]["caption"] == "A dog."
    assert store.read_bytes() == write_store(store, dog(7), dog("b"), dog(9)).read_bytes()


def test_an_edit_of_an_older_version_is_told_and_not_made(store: Path) -> None:
    with Session.open(store) as session:
        make(session, 0, Reword(caption="A dog."))
        assert session.edit(0, Reword(caption="A cat."), 0) == Conflict(version=1)
        assert session.state(0).record.caption == "A dog."
    assert len(journal_of(store).read_text().splitlines()) == 1


def test_an_edit_that_changes_nothing_is_none(store: Path) -> None:
    with Session.open(store) as session:
        for edit in (Reword(caption=dog().caption), Move(view="ref_exps", entry=0, corners=LEFT)):
            make(session, 0, edit)
        assert session.state(0).status is Status.UNTOUCHED
    assert not journal_of(store).exists()


def test_a_change_of_an_accepted_record_asks_for_another_look(store: Path) -> None:
    with Session.open(store) as session:
        make(session, 0, Decide(status="accepted"))
        make(session, 0, Draw(view="ref_exps", span=BALL, corners=MIDDLE))
        assert session.state(0).status is Status.EDITED


def test_what_was_undone_cannot_be_redone_after_another_edit(store: Path) -> None:
    with Session.open(store) as session:
        for edit in (Reword(caption="A dog."), Undo(), Reword(caption="A cat.")):
            make(session, 0, edit)
        with pytest.raises(RecordError, match="nothing to redo"):
            make(session, 0, Redo())


def test_two_editors_of_one_store_are_refused(store: Path) -> None:
    with Session.open(store), pytest.raises(RecordError, match="another `kosmos2 edit`"):
        Session.open(store)


def test_a_store_that_grows_keeps_its_edits(store: Path) -> None:
    with Session.open(store) as session:
        make(session, 1, Reword(caption="A dog."))
    write_store(store, dog(7), dog("b"), dog(9), dog(10))
    with Session.open(store) as session:
        assert session.state(1).record.caption == "A dog."
        assert len(session) == 4


def _other_record(store: Path) -> None:
    write_store(store, dog(7), dog("another"), dog(9))


def _cut_line(store: Path) -> None:
    lines = journal_of(store).read_bytes().splitlines(keepends=True)
    journal_of(store).write_bytes(lines[0][:-9] + b"\n" + lines[1])


def _lost_line(store: Path) -> None:
    journal_of(store).write_bytes(journal_of(store).read_bytes().splitlines(keepends=True)[1])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_other_record, "record b is not the one that was edited"),
        (_cut_line, r"edits:1: this is no line of a journal"),
        (_lost_line, "lead elsewhere"),
    ],
)
def test_a_journal_that_does_not_fit_is_refused_by_its_line(
    store: Path, damage: Callable[[Path], None], why: str
) -> None:
    with Session.open(store) as session:
        make(session, 1, Reword(caption="A dog."))
        make(session, 1, Reword(caption="A cat."))
    damage(store)
    with pytest.raises(RecordError, match=why):
        Session.open(store)
    with pytest.raises(RecordError, match=why):  # and the lock is free again
        Session.open(store)
