"""`kosmos2 train preview`: what a recipe would teach, as a page, before anything is trained."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from run_cases import RECIPE
from scene_shapes import shapes
from typer.testing import CliRunner, Result

from kosmos2.cli import app
from kosmos2.scenes import Sprites
from kosmos2.training import build

TOML = """
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
[[sources]]
kind = "records"
path = "RECORDS"
[optimizer]
steps = 2
warmup_steps = 0
batch_size = 6
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(Sprites, "load", lambda cache, *, styles, nouns: shapes())
    monkeypatch.setattr(build, "VOCABULARY_SCENES", 15)
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (30, 20)).save(tmp_path / "dog.png")
    spans = [[0, 5, 0.5, 0.1, 0.2, 0.9, 1.0], [0, 5, 0.1, 0.1, 0.2, 0.9, 1.0]]
    row = {"image": "dog.png", "caption": "a dog", "noun_chunks": None, "ref_exps": spans}
    (tmp_path / "records.jsonl").write_text(json.dumps(row) + "\n")
    path = tmp_path / "tiny.toml"
    nouns, styles = json.dumps(RECIPE.scenes.nouns), json.dumps(RECIPE.scenes.styles)
    text = TOML.replace("NOUNS", nouns).replace("STYLES", styles)
    path.write_text(text.replace("RECORDS", str(tmp_path / "records.jsonl")))
    yield path


def preview(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", "preview", *map(str, arguments)])


def test_the_page_shows_the_first_samples_and_what_was_left_out(
    recipe: Path, tmp_path: Path
) -> None:
    result = preview(recipe, "--out", tmp_path / "new/page.html", "--steps", 1, "--samples", 4)
    assert result.exit_code == 0, result.output
    html = (tmp_path / "new/page.html").read_text()
    assert html.count("<article") == 4
    assert "box flipped" in html
    assert "1 batches" in result.stdout and "padding" in result.stdout
    assert not list(tmp_path.glob("**/checkpoint*"))


def test_the_same_recipe_has_the_same_page(recipe: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one.html", "two.html"):
        assert preview(recipe, "--out", tmp_path / name, "--steps", 1).exit_code == 0
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]


def test_train_without_the_word_preview_trains(recipe: Path, tmp_path: Path) -> None:
    # `train RECIPE` and `train --set ... RECIPE` are the command that they were.
    for arguments in ([tmp_path / "absent.toml"], ["--set", "seed=1", tmp_path / "absent.toml"]):
        result = CliRunner().invoke(app, ["train", *map(str, arguments), "--out", "x"])
        assert result.exit_code == 2
        assert "absent.toml" in result.output
    assert "--resume" in CliRunner().invoke(app, ["train", "--help"]).output
