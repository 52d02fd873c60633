"""`kosmos2 eval scenes`: asked and scored in one go, scored again from the folder alone."""

import json
from pathlib import Path

import pytest
from PIL import Image
from scene_shapes import NOUNS, shapes
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from kosmos2.cli import app
from kosmos2.scenes import Sprites
from kosmos2.vocab.tokenizer import Tokenizer

RECIPE = f"""
seed = 4
[model]
num_latents = 3
[model.vision]
image_size = 28
patch_size = 14
[scenes]
nouns = {json.dumps(NOUNS)}
styles = ["noto", "noto-v1"]
[[sources]]
kind = "scenes"
[optimizer]
steps = 1
warmup_steps = 0
"""


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", "scenes", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Sprites, "load", lambda *_, **__: shapes())
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_a_run_leaves_all_it_takes_to_score_it_again(
    tmp_path: Path, recipe: Path, tiny_tokenizer: Tokenizer
) -> None:
    model, out = save_tiny_model(tmp_path / "model", tiny_tokenizer), tmp_path / "out"
    code, said = run(
        *("--recipe", recipe, "--model", model, "--out", out, "--device", "cpu"),
        *("--splits", "iid,style", "--count", "2", "--figure", "1"),
    )
    assert code == 0, said
    results = json.loads((out / "results.json").read_text())
    assert list(results["splits"]) == ["iid", "style"]
    assert results["run"]["weights"].keys() == {"model.safetensors"}
    assert len(results["run"]["weights"]["model.safetensors"]) == 64
    assert results["run"]["seed"] != 4  # never that of the training scenes
    assert Image.open(out / "style.png").width > 0
    assert Image.open(out / "style-misses.png").size == Image.open(out / "style.png").size
    assert not (out / "style-hits.png").exists()  # random weights know nothing

    (out / "results.json").unlink()
    code, said = run("--score", out)
    assert code == 0, said
    assert json.loads((out / "results.json").read_text())["splits"] == results["splits"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--count", "3"], "--recipe"),
        (["--recipe", "r.toml", "--out", "o", "--splits", "iid,train"], "iid,combo"),
        (["--recipe", "missing.toml", "--out", "o"], "missing.toml"),
        (["--score", "no-such-folder"], "run.json"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], complaint: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(recipe.parent)
    recipe.rename("r.toml")
    code, said = run(*arguments)
    assert code == 2
    assert complaint in said
    assert said.count("\n") == 1
