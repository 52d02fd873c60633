"""`kosmos2 train`: what it prints, and what it says of a mistake."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_cases import squares
from run_cases import RECIPE
from scene_shapes import shapes
from typer.testing import CliRunner, Result

from kosmos2.cli import app
from kosmos2.scenes import Sprites
from kosmos2.training import build

TOML = """
seed = 5
num_pieces = 300
bins = 8
[model]
num_latents = 4
[model.text]
width = 16
feedforward_width = 32
num_layers = 1
num_heads = 2
[model.vision]
width = 16
feedforward_width = 32
num_layers = 1
num_heads = 2
image_size = 32
patch_size = 8
[scenes]
nouns = NOUNS
styles = STYLES
[[sources]]
kind = "scenes"
[optimizer]
steps = 2
warmup_steps = 0
batch_size = 2
[run]
workers = 0
log_every = 1
evaluation_scenes = 3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    nouns, styles = json.dumps(RECIPE.scenes.nouns), json.dumps(RECIPE.scenes.styles)
    path.write_text(TOML.replace("NOUNS", nouns).replace("STYLES", styles))
    return path


@pytest.fixture
def artwork(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Sprites, "load", lambda cache, *, styles, nouns: shapes())
    monkeypatch.setattr(build, "VOCABULARY_SCENES", 15)
    yield


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments), "--device", "cpu"])


def refusal(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    line = " ".join(result.stderr.split())
    assert line.startswith("error: ")
    return line


@pytest.mark.usefixtures("artwork")
def test_the_command_trains_goes_on_and_names_the_model(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = train(recipe, "--out", out)
    assert first.exit_code == 0, first.output
    assert first.stdout.split() == ["trained:", str(out / "model")]
    assert "step 2: text" in first.stderr
    assert "step 2: find" in first.stderr

    longer = train(recipe, "--out", out, "--resume", "--set", "optimizer.steps=3")
    assert longer.exit_code == 0, longer.output
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").open()] == [1, 2, 3]


@pytest.mark.usefixtures("artwork")
def test_mistakes_are_one_line_with_the_way_out(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "without --resume" in refusal(train(recipe, "--out", out / "none", "--resume"))
    assert train(recipe, "--out", out).exit_code == 0
    assert "Pass --resume" in refusal(train(recipe, "--out", out))
    other = refusal(train(recipe, "--out", out, "--resume", "--set", "optimizer.clip=7"))
    assert "optimizer.clip was 2.0, is 7.0" in other


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optimizer.step=3", "unknown key 'step'. Did you mean 'steps'?"),
        ("optimizer.steps=many", "steps must be of type int, got 'many'"),
        ("run.log_every=0", "run.log_every (0) must be at least 1"),
        ('run.precision="fp8"', "must be one of fp32, bf16"),
        ("nonsense", "--set wants a.b=value"),
    ],
)
def test_a_wrong_key_or_value_is_named(
    recipe: Path, tmp_path: Path, override: str, complaint: str
) -> None:
    assert complaint in refusal(train(recipe, "--out", tmp_path / "run", "--set", override))


def test_without_artwork_the_command_says_how_to_get_it(recipe: Path, tmp_path: Path) -> None:
    refused = train(recipe, "--out", tmp_path / "run", "--cache", tmp_path / "empty")
    assert "kosmos2 scenes prepare" in refusal(refused)
    assert not (tmp_path / "run").exists()


def test_records_alone_are_trained_without_artwork(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text().replace('kind = "scenes"', 'kind = "records"\npath = "{}"')
    text = re.sub(r"\[scenes\]\nnouns = .*\nstyles = .*\n", "", text)
    recipe.write_text(text.format(squares(tmp_path / "own", 4)))
    done = train(recipe, "--out", tmp_path / "run", "--cache", tmp_path / "empty")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run/model/model.safetensors").exists()

    page = tmp_path / "preview.html"
    command = ["train", "preview", str(recipe), "--out", str(page), "--steps", "1"]
    shown = CliRunner().invoke(app, [*command, "--cache", str(tmp_path / "empty")])
    assert shown.exit_code == 0, shown.output
    assert page.exists()


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nothing.toml" in refusal(train(tmp_path / "nothing.toml", "--out", tmp_path / "run"))


@pytest.mark.usefixtures("artwork")
def test_a_checkpoint_becomes_a_model_folder_and_one_that_is_not_there_is_named(
    recipe: Path, tmp_path: Path
) -> None:
    assert train(recipe, "--out", tmp_path / "run").exit_code == 0
    command = ["train", "export", str(tmp_path / "run"), "--out", str(tmp_path / "model")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    ours, theirs = (tmp_path / each / "model.safetensors" for each in ("model", "run/model"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert "no checkpoint of step 1" in refusal(CliRunner().invoke(app, [*command, "--step", "1"]))


@pytest.mark.usefixtures("artwork")
def test_torchrun_and_a_recipe_of_one_process_do_not_go_together(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = refusal(train(recipe, "--out", tmp_path / "a", "--set", "parallel.kind=ddp"))
    assert "torchrun --nproc-per-node" in alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "parallel.kind=ddp" in refusal(train(recipe, "--out", tmp_path / "b"))
