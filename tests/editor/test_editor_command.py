"""`kosmos2 edit` as a person runs it: a page on this machine, Ctrl+C, --apply."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from editor_cases import dog, write_store
from typer.testing import CliRunner

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from kosmos2.cli import app
from kosmos2.editor.changes import Reword
from kosmos2.editor.history import MARK
from kosmos2.editor.journal import journal_of
from kosmos2.editor.session import Decide, Session
from kosmos2.records.store import read


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["edit", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    store = write_store(tmp_path / "records.jsonl", dog(1), dog(2))
    with Session.open(store) as session:
        session.edit(0, Reword(caption="A dog in a field."), 0)
        session.edit(1, Decide(status="rejected"), 0)
    return store


def test_the_command_serves_on_loopback_and_ends_with_a_word_on_what_is_next(
    tmp_path: Path,
) -> None:
    store = write_store(tmp_path / "records.jsonl", dog(1), dog(2))
    command = [sys.executable, "-m", "kosmos2", "edit", str(store), "--no-open", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        with urllib.request.urlopen(f"{found[0]}api/store") as answer:
            assert json.load(answer)["records"] == 2
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert "--apply" in out
    assert "Traceback" not in rest


def test_apply_writes_the_store_anew_and_says_what_it_did(edited: Path) -> None:
    assert run(edited, "--apply") == (
        0,
        f"2 changed records are in {edited}; the journal is {journal_of(edited)}.1",
    )
    first, second = read(edited)
    assert (first.caption, second.extra[MARK]) == ("A dog in a field.", "rejected")
    assert run(edited, "--apply") == (
        0, f"there is nothing to write: no record of {edited} was changed"
    )  # fmt: skip


def test_apply_can_leave_rejected_records_out(edited: Path) -> None:
    code, told = run(edited, "--apply", "--drop-rejected")
    assert (code, "1 rejected records left out" in told) == (0, True)
    assert [record.id for record in read(edited)] == [1]


def test_what_cannot_be_edited_is_told_in_one_line(edited: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        '{"caption": "a dog", "noun_chunks": null, "ref_exps": [[0, 99, 0, 0, 1, 1, 1]]}\n'
    )
    for words, why in (
        ((tmp_path / "none.jsonl",), "there are no records at"),
        ((tmp_path / "dog.png",), "a store of records is a file"),
        ((bad,), "bad.jsonl:1"),
        ((edited, "--drop-rejected"), "goes with --apply"),
        ((edited, "--reasons", edited), 'needs an object with an "id"'),
    ):
        code, told = run(*words, "--no-open")
        assert code == 2
        assert told.startswith("error: ")
        assert why in told
