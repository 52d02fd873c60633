import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kosmos2 import config
from kosmos2.boxes import Box
from kosmos2.errors import ConfigError
from kosmos2.grit import detect
from kosmos2.grit.detectors import Asked
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Detection, GritRecipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "grit"


def test_the_default_is_the_embedded_model() -> None:
    one = detect.load(Detection(device="cpu", dtype="fp32"))
    assert {key: one.identity[key] for key in ("detector", "model", "precision")} == {
        "detector": "kosmos2",
        "model": "embedded",
        "precision": "fp32",
    }
    assert one.identity["weights"].startswith("sha256:")


def test_the_oracle_reads_the_truth_from_records(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text(
        '{"id": "7", "image": "7.png", "caption": "a dog", '
        '"noun_chunks": [[0, 5, 0.25, 0.5, 0.75, 1.0, 0.5]], "ref_exps": []}\n'
    )
    one = detect.load(Detection(name="oracle", model=str(path)))
    asked = Asked(id="7", image=Image.new("RGB", (4, 4)), caption="the dog", spans=((0, 7),))
    assert one.detect([asked]) == [[Candidate(phrase=0, box=Box(0.25, 0.5, 0.75, 1.0), score=1.0)]]


@pytest.mark.parametrize(
    "name", ["mm-grounding-dino", "llmdet", "grounding-dino", "owlv2", "oracle"]
)
def test_a_detector_without_an_embedded_model_must_be_told_which(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"detection\.model"):
        Detection(name=name)


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("rows_per_phrase", 0), ("retries", -1), ("timeout", 0.0),
     ("timeout", float("inf"))],
)  # fmt: skip
def test_settings_that_cannot_work_are_named(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"detection\.{key}"):
        dataclasses.replace(Detection(), **{key: value})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_names_a_detector_that_needs_no_download(path: Path) -> None:
    recipe = config.load(GritRecipe, path)
    assert (recipe.detection.name, recipe.detection.model) == ("kosmos2", "embedded")
