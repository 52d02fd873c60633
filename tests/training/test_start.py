"""A run may begin with any model, changed to fit; its folder then says what it really is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_cases import RECIPE, changed
from safetensors.torch import load_file
from scene_shapes import shapes

from kosmos2 import Kosmos2
from kosmos2.errors import Kosmos2Error
from kosmos2.model import Network
from kosmos2.training import build, checkpoint
from kosmos2.training.loss import PatchHead
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.run import resume, run
from kosmos2.training.start import begin
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def few_words() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(build, "VOCABULARY_SCENES", 15)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder of a short run."""
    out = tmp_path_factory.mktemp("before")
    run(changed(RECIPE, "optimizer", steps=1), out, shapes(), CPU, report=lambda news: None)
    return out / "model"


def from_model(model: Path, **adapt: object) -> TrainRecipe:
    """A rate of nearly nothing shows the weights that the run begins with."""
    recipe = changed(RECIPE, "optimizer", learning_rate=1e-30, weight_decay=0.0)
    recipe = changed(recipe, "run", checkpoint_every=1)
    # Neither sizes nor vocabulary of the recipe are those of the model.
    recipe = dataclasses.replace(recipe, start_from=str(model), bins=32, num_pieces=400)
    recipe = changed(recipe, "model", num_latents=64)
    return changed(recipe, "adapt", **adapt)


def start(recipe: TrainRecipe, out: Path) -> None:
    run(recipe, out, shapes(), CPU, report=lambda news: None)


def test_a_run_from_a_model_has_its_sizes_vocabulary_and_weights(
    tmp_path: Path, model: Path
) -> None:
    start(from_model(model), tmp_path)
    stored = json.loads((tmp_path / "recipe.json").read_text())
    assert stored["bins"] == 8
    assert stored["model"]["num_latents"] == RECIPE.model.num_latents
    one, other = (folder / "tokenizer.json" for folder in (model, tmp_path))
    assert one.read_bytes() == other.read_bytes()
    one, other = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "model"))
    # What is exactly zero moves by as little as the rate lets it.
    torch.testing.assert_close(other, one, rtol=0, atol=1e-25)

    before = checkpoint.steps(tmp_path)
    resume(from_model(model), tmp_path, shapes(), CPU, report=lambda news: None)
    assert checkpoint.steps(tmp_path) == before == [2, 3]


def test_resolution_latents_and_bins_change_and_the_folder_answers(
    tmp_path: Path, model: Path
) -> None:
    start(from_model(model, image_size=48, num_latents=6, bins=10), tmp_path)
    sizes = huggingface.read_config(tmp_path / "model")
    assert (sizes.vision.image_size, sizes.num_latents) == (48, 6)
    assert Tokenizer.from_folder(tmp_path / "model").grid.bins == 10
    answer = Kosmos2.load(tmp_path / "model")
    scene = build.scene_maker(
        dataclasses.replace(RECIPE, model=sizes), RECIPE.sources[0], shapes(), split="iid"
    ).scene(0)

    assert answer.find(Image.fromarray(scene.image), scene.groups[0].expressions[0]).phrase


def test_a_new_vocabulary_is_learnt_and_known_words_keep_their_rows(
    tmp_path: Path, model: Path
) -> None:
    recipe = dataclasses.replace(from_model(model, vocabulary="learn"), num_pieces=150)
    start(recipe, tmp_path)
    old, new = Tokenizer.from_folder(model), Tokenizer.from_folder(tmp_path / "model")
    assert len(new.pieces) < len(old.pieces)
    before, after = (
        huggingface.load(folder, dtype=torch.float32, device=CPU).decoder.embedding.weight
        for folder in (model, tmp_path / "model")
    )
    for piece in set(old.pieces) & set(new.pieces):
        one, other = (4 + each.pieces.index(piece) for each in (old, new))
        assert torch.equal(before[one], after[other])


@pytest.mark.parametrize(
    ("start_from", "complaint"),
    [("", "names no model"), ("run", r"name its model, .*/model, instead")],
)
def test_adapting_nothing_or_a_run_is_refused_with_the_way_out(
    tmp_path: Path, model: Path, start_from: str, complaint: str
) -> None:
    recipe = from_model(model, image_size=48)
    folder = str(model.parent) if start_from else ""
    with pytest.raises(Kosmos2Error, match=complaint):
        start(dataclasses.replace(recipe, start_from=folder), tmp_path)


def test_first_weights_are_drawn_in_the_order_in_which_the_embedded_model_was_made() -> None:
    torch.rand(3)
    begun = begin(RECIPE, shapes())
    drawn = PatchHead(16, 3, 8).read.weight
    torch.manual_seed(RECIPE.seed)
    Network(begun.network.config)
    assert torch.equal(drawn, PatchHead(16, 3, 8).read.weight)


def test_the_embedded_model_can_be_started_from_by_name(tmp_path: Path) -> None:
    recipe = dataclasses.replace(from_model(Path("embedded")), start_from="embedded")
    recipe = changed(changed(recipe, "optimizer", steps=1), "run", evaluation_scenes=4)
    start(recipe, tmp_path)
    assert huggingface.read_config(tmp_path / "model").text.width == 256
