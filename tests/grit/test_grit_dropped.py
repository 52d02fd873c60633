"""Dropped pairs as records: each that was looked at, once, with its reason and its boxes."""

import json
from collections import Counter
from pathlib import Path

import pytest
from test_grit_report import BAD, SILENT, make
from typer.testing import CliRunner

from kosmos2.cli import app
from kosmos2.errors import ConfigError
from kosmos2.grit.build import DROPPED
from kosmos2.grit.dropped import DROPPED_RECORDS, WHY, write_dropped
from kosmos2.records.pictures import Pictures
from kosmos2.records.store import read, root_of


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dropped"))


def silent(done: int, total: int) -> None:
    pass


def test_every_dropped_pair_that_was_looked_at_is_a_record_with_its_reason(built: Path) -> None:
    store = write_dropped(built, silent)
    told = [json.loads(line) for line in (built / DROPPED).read_text().splitlines()]
    expected = [
        (each["id"], each["reason"])
        for each in told
        if each["id"] not in (f"pair {BAD}", f"pair {SILENT}")
    ]
    records = list(read(store))
    assert [(record.id, record.extra[WHY]) for record in records] == expected
    assert len(Counter(reason for _, reason in expected)) > 1
    assert any(record.ref_exps for record in records)
    for record in records:
        assert Pictures(root_of(store)).read(record)


def test_a_store_of_dropped_pairs_that_is_being_edited_is_not_written_again(built: Path) -> None:
    store = write_dropped(built, silent)
    store.write_text("edited")
    assert write_dropped(built, silent) == store
    assert store.read_text() == "edited"


def test_the_editor_opens_dropped_pairs_by_the_folder_of_their_build(built: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    (built / DROPPED_RECORDS).unlink(missing_ok=True)
    result = CliRunner().invoke(app, ["edit", str(built), "--dropped", "--apply"])
    assert result.exit_code == 0, result.output
    assert DROPPED_RECORDS in result.output.replace("\n", "")


def test_only_the_folder_of_a_build_has_dropped_pairs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder of"):
        write_dropped(tmp_path, silent)
