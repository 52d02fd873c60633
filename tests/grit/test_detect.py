import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kosmos2 import config
from kosmos2.api import Kosmos2
from kosmos2.boxes import Box
from kosmos2.errors import ConfigError
from kosmos2.grit import detect
from kosmos2.grit.detectors import Asked
from kosmos2.grit.kosmos import Kosmos2Detector
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


def no_weights(*_: Any, **__: Any) -> None:
    raise AssertionError("weights are loaded")


def tiny(kind: str, folder: Path) -> Detection:
    """Return the settings of a detector whose files are in a folder that this fills."""
    pytest.importorskip("transformers")
    from tiny_detectors import bert_tokenizer, dino_folder

    if kind == "owlv2":
        from test_owl import owl_model, owl_processor

        for part in (owl_model(), bert_tokenizer(), owl_processor()):
            part.save_pretrained(folder)
        return Detection(name="owlv2", model=str(folder), device="cpu")
    network = "mm-grounding-dino" if kind == "llmdet" else kind
    return Detection(name=kind, model=str(dino_folder(folder, network)), device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["mm-grounding-dino", "llmdet", "grounding-dino", "owlv2"])
def test_identity_is_had_from_files_and_is_what_the_loaded_detector_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = tiny(kind, tmp_path / "tiny")
    loaded = detect.load(wanted).identity
    monkeypatch.setattr(torch.nn.Module, "__init__", no_weights)
    assert detect.identity(wanted) == loaded
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    assert detect.identity(wanted) != loaded


@pytest.mark.parametrize("dtype", ["auto", "fp32", "bf16"])
def test_identity_of_kosmos2_is_had_from_files_and_is_what_the_loaded_model_says(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Detection(device="cpu", dtype=dtype)
    loaded = detect.load(wanted)
    assert isinstance(loaded, Kosmos2Detector)
    assert loaded.identity["precision"] == str(loaded._model.engine.runner.precision)
    monkeypatch.setattr(Kosmos2, "load", no_weights)
    assert detect.identity(wanted) == loaded.identity


def test_identity_of_the_oracle_is_had_without_reading_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text('{"id": 1, "caption": "a dog", "noun_chunks": [], "ref_exps": []}\n')
    wanted = Detection(name="oracle", model=str(path))
    assert detect.identity(wanted) == detect.load(wanted).identity
    with pytest.raises(ConfigError, match=r"detection\.model"):
        detect.identity(dataclasses.replace(wanted, model=str(tmp_path / "nowhere")))


def test_a_device_of_the_workers_need_not_be_here_if_the_numbers_are_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert detect.identity(Detection(device="cuda", dtype="bf16"))["precision"] == "bf16"
    with pytest.raises(ConfigError, match=r"detection\.dtype = bf16"):
        detect.identity(Detection(device="cuda"))


def test_workers_are_told_the_numbers_that_auto_means() -> None:
    wanted = Detection(device="cpu")
    told = detect.settled(wanted, detect.identity(wanted))
    assert told.dtype in ("fp32", "bf16")
    assert detect.identity(told) == detect.identity(wanted)
    oracle = Detection(name="oracle", model="truth.jsonl")
    assert detect.settled(oracle, {"detector": "oracle"}) == oracle
