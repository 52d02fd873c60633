"""A checkpoint of a run as a model folder, at any step, in the layout that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

from kosmos2 import config
from kosmos2.errors import TrainingError
from kosmos2.training import checkpoint
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.run import RECIPE_FILE, STORED_DTYPE
from kosmos2.training.start import plain_weights
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.tensors import skeleton

_NETWORK = "network."


def export(run: Path, step: int, out: Path) -> None:
    """Write the model of a run's checkpoint; low-rank layers are merged."""
    there = checkpoint.steps(run)
    if step not in (*there, checkpoint.last(run)):
        raise TrainingError(f"{run} has no checkpoint of step {step}; it has those of {there}")
    try:
        stored = json.loads((run / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} has no {RECIPE_FILE} that can be read: {error}") from error
    recipe = config.build(TrainRecipe, stored, where=str(run / RECIPE_FILE))
    tokenizer = Tokenizer.from_folder(run)
    weights = {
        name.removeprefix(_NETWORK): tensor
        for name, tensor in plain_weights(run, step).items()
        if name.startswith(_NETWORK)
    }
    sizes = config.changed(recipe.model, [f"text.vocab_size={tokenizer.vocabulary.size}"])
    network = skeleton(sizes)
    network.load_state_dict(weights, strict=True, assign=True)
    huggingface.save(network, tokenizer, out, dtype=STORED_DTYPE)
