"""Any checkpoint becomes a plain model folder, which transformers reads with the same outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from blob_cases import NO_DROPOUT, trainer
from run_cases import changed
from transformers import Kosmos2ForConditionalGeneration

from kosmos2.config import as_tree
from kosmos2.errors import TrainingError
from kosmos2.training import checkpoint
from kosmos2.training.export import export
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.run import RECIPE_FILE
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface

RECIPE = changed(changed(NO_DROPOUT, "run", checkpoint_every=2), "optimizer", steps=6)


def finished(recipe: TrainRecipe, folder: Path, tokenizer: Tokenizer) -> None:
    run = trainer(recipe, folder, tokenizer)
    tokenizer.save(folder)
    (folder / RECIPE_FILE).write_text(json.dumps(as_tree(recipe)))
    run.train(lambda progress: None, lambda step, network: None)


@pytest.mark.parametrize("rank", [0, 2], ids=["plain", "low-rank"])
def test_any_checkpoint_is_exported_and_transformers_reads_it(
    tmp_path: Path, tiny_tokenizer: Tokenizer, rank: int
) -> None:
    finished(changed(RECIPE, "lora", rank=rank), tmp_path / "run", tiny_tokenizer)
    assert checkpoint.steps(tmp_path / "run") == [4, 6]
    export(tmp_path / "run", 4, tmp_path / "fourth")
    export(tmp_path / "run", 6, tmp_path / "sixth")

    one, other = (tmp_path / name / "model.safetensors" for name in ("fourth", "sixth"))
    assert one.read_bytes() != other.read_bytes()
    network = huggingface.load(tmp_path / "sixth", dtype=torch.float32, device=torch.device("cpu"))
    theirs = Kosmos2ForConditionalGeneration.from_pretrained(
        tmp_path / "sixth", dtype=torch.float32
    )
    ids = torch.arange(4, 24).view(2, 10)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    slots = torch.zeros(2, 10, dtype=torch.bool)
    slots[:, 2:6] = True
    with torch.no_grad():
        ours = network(ids, pixels_NCYX=pixels, image_mask_BT=slots).logits_BTV
        expected = theirs(
            input_ids=ids,
            pixel_values=pixels,
            image_embeds_position_mask=slots.long(),
            attention_mask=torch.ones_like(ids),
        ).logits
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_step_without_a_checkpoint_is_refused_with_those_that_there_are(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    finished(RECIPE, tmp_path / "run", tiny_tokenizer)
    with pytest.raises(TrainingError, match=r"no checkpoint of step 5; .*\[4, 6\]"):
        export(tmp_path / "run", 5, tmp_path / "model")
