"""A folder of `grit build`: the same bytes however it came to be, and a ledger of all pairs."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from kosmos2 import config
from kosmos2.cli.grit import grit
from kosmos2.errors import ConfigError
from kosmos2.grit.build import DROPPED, FUNNEL, RECIPE, RECORDS, Build, Selected, build, select
from kosmos2.grit.recipe import GritRecipe
from kosmos2.grit.steps import LEVELS, Funnel
from kosmos2.shards import Driver, Local, Pool

pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')

FILES = (RECORDS, DROPPED, FUNNEL, RECIPE)
COUNT, BAD, SILENT = 9, 4, 6
"""Pairs; the one whose picture is no picture; the one without a caption."""
UNIT = 2
KILLED = """
import os, pathlib, signal, sys
from kosmos2.grit.build import Build, build
from kosmos2 import config
from kosmos2.grit.recipe import GritRecipe
from kosmos2.shards import Local
source, out, recipe, left = sys.argv[1:]
left = int(left)
def hook(event, values):
    global left
    if event in ("open", "os.rename", "os.mkdir", "os.remove") and out in str(values[0]):
        if event == "open" and not set(str(values[1])) & set("wax+"):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
made = config.load(GritRecipe, pathlib.Path(recipe), ())
build(Build(source=source, out=pathlib.Path(out), recipe=made, driver=Local(), unit=2),
      lambda done: None, lambda total: None)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pairs.jsonl, its pictures and truth.jsonl."""
    folder = tmp_path_factory.mktemp("pairs")
    caption = "A dog in a field of flowers"
    pairs, truth = [], []
    for number in range(COUNT):
        name = f"{number}.png"
        if number == BAD:
            (folder / name).write_bytes(b"no picture")
        else:
            Image.new("RGB", (32, 24), (number * 20, 80, 0)).save(folder / name)
        said = "" if number == SILENT else caption
        pairs.append({"id": str(number), "image": name, "caption": said})
        chunks = [[0, 5, 0.1, 0.1, 0.4, 0.5, 1.0], [9, 16, 0.0, 0.5, 1.0, 1.0, 1.0]]
        truth.append({"id": str(number), "caption": caption, "noun_chunks": chunks, "ref_exps": []})
    for name, rows in (("pairs", pairs), ("truth", truth)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "recipe.toml").write_text(
        f'[detection]\nname = "oracle"\nmodel = "{folder / "truth.jsonl"}"\n'
    )
    return folder


def recipe(source: Path, *changes: str) -> GritRecipe:
    return config.load(GritRecipe, source / "recipe.toml", changes)


def made(source: Path, out: Path, *changes: str, driver: Driver | None = None) -> Selected:
    job = Build(
        source=str(source / "pairs.jsonl"),
        out=out,
        recipe=recipe(source, *changes),
        driver=driver or Local(),
        unit=UNIT,
    )
    return build(job, lambda done: None, lambda total: None)


def outcome(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def quiet(source: Path) -> Path:
    """Return a folder whose making nobody disturbed."""
    made(source, source / "quiet")
    return source / "quiet"


def test_the_funnel_balances_and_counts_bad_pictures_and_rows_without_caption(quiet: Path) -> None:
    funnel = Funnel.from_counts(json.loads((quiet / FUNNEL).read_text()))
    assert all(getattr(funnel, level).balances for level in LEVELS)
    assert funnel.pairs.entered == COUNT
    assert funnel.pairs.dropped == {"no picture": 1, "no caption": 1}
    records = (quiet / RECORDS).read_text().splitlines()
    assert len(records) == funnel.pairs.left == COUNT - 2
    dropped = [json.loads(line) for line in (quiet / DROPPED).read_text().splitlines()]
    assert [row["reason"] for row in dropped] == ["no picture", "no caption"]


def test_several_processes_write_what_one_writes(source: Path, quiet: Path) -> None:
    made(source, source / "pooled", driver=Pool(2, 0))
    assert outcome(source / "pooled") == outcome(quiet)


def test_killed_anywhere_and_started_again_it_ends_with_the_same_bytes(
    source: Path, quiet: Path
) -> None:
    out, draw = source / "killed", random.Random(0)
    for _ in range(3):
        where = [source / "pairs.jsonl", out, source / "recipe.toml", draw.randint(4, 20)]
        command = [sys.executable, "-c", KILLED, *map(str, where)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    made(source, out)
    assert outcome(out) == outcome(quiet)


def test_choosing_again_equals_building_with_those_thresholds(source: Path) -> None:
    change = "linking.nms_iou=0.05"
    made(source, source / "changed", change)
    made(source, source / "chosen")
    before = outcome(source / "chosen")
    select(source / "chosen", recipe(source, change))
    assert outcome(source / "chosen") == outcome(source / "changed") != before


def test_other_phrases_need_another_look(source: Path, quiet: Path) -> None:
    before = outcome(quiet)
    with pytest.raises(ConfigError, match=r"phrases\.drop_pronouns"):
        select(quiet, recipe(source, "phrases.drop_pronouns=false"))
    assert outcome(quiet) == before


def test_the_command_ends_with_0_when_every_unit_is_done(source: Path) -> None:
    words = ["build", str(source / "pairs.jsonl"), str(source / "cli"), "--recipe"]
    result = CliRunner().invoke(grit, [*words, str(source / "recipe.toml")])
    assert result.exit_code == 0, result.output
    assert (source / "cli" / RECORDS).is_file()
