"""`kosmos2 grit build` and `select` as their users meet them: what is said, and how it ends."""

import builtins
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from polite_server import Web, serving
from typer.testing import CliRunner, Result

from kosmos2.cli import app
from kosmos2.cli.grit import grit
from kosmos2.errors import Kosmos2Error, MissingExtraError, RequestError
from kosmos2.fetch import Limits
from kosmos2.grit.build import Build, build
from kosmos2.grit.download import Download, download
from kosmos2.grit.polite import Politeness
from kosmos2.grit.recipe import Detection, GritRecipe, Linking
from kosmos2.grit.steps import LEVELS, Funnel
from kosmos2.grit.worker import LEAST_TOGETHER, MOST_TOGETHER, Looker, together
from kosmos2.shards import Local, Pool
from kosmos2.weights.pretrained import resolve, weights_hash

pytest.importorskip("spacy", reason='needs pip install "kosmos2[grit]"')

CAPTION = "A dog in a field of flowers"
CHUNKS = [[0, 5, 0.1, 0.1, 0.4, 0.5, 1.0], [9, 16, 0.0, 0.5, 1.0, 1.0, 1.0]]
EXAMPLES = Path(__file__).parents[2] / "examples"


def command(*words: object) -> Result:
    """Return how a command ended; an error of ours is in `exception`, as the program sees it."""
    return CliRunner().invoke(grit, list(map(str, words)), env={"COLUMNS": "200"})


def oracle(folder: Path, ids: list[str]) -> list[str]:
    """Return the overrides of a detector that knows the truth of these ids."""
    rows = [{"id": id, "caption": CAPTION, "noun_chunks": CHUNKS, "ref_exps": []} for id in ids]
    truth = folder / "truth.jsonl"
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--set", "detection.name=oracle", "--set", f"detection.model={truth}"]


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Return a folder of five pictures with captions beside them."""
    folder = tmp_path / "captioned-pictures"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (32, 24), (number * 40, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(CAPTION)
    return folder


@pytest.fixture
def known(captioned: Path, tmp_path: Path) -> list[object]:
    """Return the words of a build that takes no model."""
    ids = [str(number) for number in range(5)]
    return ["build", captioned, tmp_path / "out", *oracle(tmp_path, ids)]


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def test_choosing_changes_the_threshold_without_looking_again(
    known: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(*known).exit_code == 0
    looked = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "looked").rglob("*.gz")}
    monkeypatch.setattr(Looker, "__init__", lambda *_: pytest.fail("it looks again"))
    result = command("select", tmp_path / "out", "--set", "linking.threshold=1.0")
    assert result.exit_code == 0, result.output
    assert records(tmp_path / "out") == [] and "no box is sure enough" in result.output
    assert command("select", tmp_path / "out", "--set", "linking.threshold=0.5").exit_code == 0
    assert len(records(tmp_path / "out")) == 5
    assert looked == {path: path.stat().st_mtime_ns for path in looked}


def test_a_unit_that_fails_every_time_is_named_and_the_code_is_3(
    known: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Looker.run

    def run(self: Looker, unit: Any, prepared: Any, out: Path) -> Any:
        if unit.name == "00000001":
            raise RuntimeError("poison")
        return whole(self, unit, prepared, out)

    monkeypatch.setattr(Looker, "run", run)
    result = command(*known, "--shard-size", 2)
    assert result.exit_code == 3
    assert re.search(r"unit 00000001 failed every time: .*poison", result.output)
    assert [row["id"] for row in records(tmp_path / "out")] == ["0", "1", "4"]
    monkeypatch.undo()
    again = command(*known, "--shard-size", 2)
    assert again.exit_code == 0 and "(5 records)" in again.output


def test_a_key_that_no_recipe_has_is_one_line_with_the_nearest_and_the_code_2(
    captioned: Path, tmp_path: Path
) -> None:
    words = ["grit", "build", str(captioned), str(tmp_path / "out"), "--set", "linking.treshold=1"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert result.exit_code == 2 and "treshold" in result.output and "threshold" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "looked").exists()


def test_a_source_without_pictures_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = oracle(tmp_path, ["0"])
    result = command("build", tmp_path / "empty", tmp_path / "out", *words)
    assert isinstance(result.exception, RequestError) and "empty" in str(result.exception)
    assert not (tmp_path / "out" / "looked").exists()


def test_a_run_that_is_done_goes_through_again_with_the_same_end(
    known: list[object], tmp_path: Path
) -> None:
    first = command(*known, "--shard-size", 2)
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    second = command(*known, "--shard-size", 2)
    assert first.exit_code == second.exit_code == 0
    assert "(5 records)" in first.output and "(5 records)" in second.output
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before
    assert len((tmp_path / "out" / "runs.jsonl").read_text().splitlines()) == 1


def test_a_language_model_that_is_not_there_is_told_with_the_way_out(
    known: list[object],
) -> None:
    result = command(*known, "--set", "language.model=en_nowhere")
    assert isinstance(result.exception, Kosmos2Error) and "en_nowhere" in str(result.exception)


def test_without_spacy_the_extra_is_named(
    known: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "spacy":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    result = command(*known)
    assert isinstance(result.exception, MissingExtraError)
    assert "kosmos2[grit]" in str(result.exception)


def test_the_example_of_the_help_runs(
    captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command("build", "--help").output
    (example,) = re.findall(r"kosmos2 grit (build .*?)[ │|]*$", said, re.MULTILINE)
    ids = [str(number) for number in range(5)]
    result = command(*shlex.split(example), *oracle(tmp_path, ids))
    assert result.exit_code == 0, result.output
    assert len(records(tmp_path / "my-grit")) == 5


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as state:
        yield state


def table(path: Path, web: Web, count: int = 3) -> Path:
    rows = [{"id": n, "url": web.url(f"/{n}.jpg"), "caption": CAPTION} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pictures_on_the_web_are_fetched_only_when_asked(web: Web, tmp_path: Path) -> None:
    words = ["build", table(tmp_path / "t.jsonl", web), tmp_path / "out"]
    words += oracle(tmp_path, ["0", "1", "2"])
    refused = command(*words)
    assert isinstance(refused.exception, RequestError)
    assert "--fetch" in str(refused.exception) and "grit download" in str(refused.exception)
    assert not web.asked and not (tmp_path / "out" / "looked").exists()


def test_private_addresses_stay_refused_when_pictures_are_fetched(web: Web, tmp_path: Path) -> None:
    words = ["build", table(tmp_path / "t.jsonl", web), tmp_path / "out", "--fetch"]
    result = command(*words, *oracle(tmp_path, ["0", "1", "2"]))
    assert result.exit_code == 0 and "3 no picture" in result.output
    assert not web.asked


def test_what_was_downloaded_is_built_into_records(web: Web, tmp_path: Path) -> None:
    web.answers = {"/1.jpg": lambda handler: handler.send_error(404)}
    limits = Limits(allow_private=True, seconds=20, max_bytes=50_000)
    manners = Politeness(limits=limits, per_host=8, backoff=0.0)
    wanted = Download(
        table=table(tmp_path / "t.jsonl", web), out=tmp_path / "tars", driver=Local(),
        politeness=manners,
    )  # fmt: skip
    download(wanted, lambda done: None)
    fetched = len(web.asked)
    keys = [path.name for path in (tmp_path / "tars").iterdir()]
    assert any(name.endswith(".tar") for name in keys)
    result = command("build", tmp_path / "tars", tmp_path / "out", *oracle(tmp_path, ["0", "2"]))
    assert result.exit_code == 0, result.output
    made = records(tmp_path / "out")
    assert [row["id"] for row in made] == [0, 2] and len(web.asked) == fetched
    assert [row["url"] for row in made] == [web.url("/0.jpg"), web.url("/2.jpg")]
    assert all(row["shard"].endswith(".tar") and row["noun_chunks"] for row in made)


def test_scenes_through_the_embedded_model_are_the_same_by_one_process_or_two(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    told = re.findall(r"- `(scene-\d)\.jpg`: (.*)", (EXAMPLES / "README.md").read_text())
    for name, caption in told:
        shutil.copy(EXAMPLES / f"{name}.jpg", folder)
        (folder / f"{name}.txt").write_text(caption)
    recipe = GritRecipe(detection=Detection(device="cpu"), linking=Linking(threshold=0.3))
    outcomes = []
    for name, driver in (("one", Local()), ("two", Pool(2, 0))):
        job = Build(source=str(folder), out=tmp_path / name, recipe=recipe, driver=driver, unit=4)
        selected = build(job, lambda done: None, lambda total: None)
        assert all(getattr(selected.funnel, level).balances for level in LEVELS)
        outcomes.append((tmp_path / name / "records.jsonl").read_bytes())
    assert outcomes[0] == outcomes[1]
    made = records(tmp_path / "one")
    assert len(made) >= len(told) // 2 and all(row["noun_chunks"] for row in made)
    weights = weights_hash(resolve("embedded"))
    assert {row["provenance"]["weights"] for row in made} == {weights}
    counted = json.loads((tmp_path / "one" / "funnel.json").read_text())
    assert Funnel.from_counts(counted).pairs.entered == len(told) == 8


def test_pairs_that_are_looked_at_together_follow_from_the_recipe_alone() -> None:
    sizes = [together(GritRecipe(detection=Detection(batch_size=n))) for n in (1, 4, 8, 16, 4096)]
    assert sizes == [LEAST_TOGETHER, LEAST_TOGETHER, 64, 128, MOST_TOGETHER]
