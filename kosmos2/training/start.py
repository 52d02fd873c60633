"""What a run begins with: nothing, the weights of another run, or a model changed to fit.

A model may be whatever --model takes; its sizes and vocabulary go before those of the recipe, but
for what [adapt] changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kosmos2 import config
from kosmos2.errors import TrainingError
from kosmos2.model.network import Network
from kosmos2.scenes.gallery import Sprites
from kosmos2.training import build, checkpoint, lowrank
from kosmos2.training.adapt import with_latents, with_resolution, with_vocabulary
from kosmos2.training.recipe import LoraRecipe, TrainRecipe
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import pretrained
from kosmos2.weights.tensors import assemble, skeleton


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The parts of a run before its first step."""

    recipe: TrainRecipe
    """With the sizes and the vocabulary that the run really has."""
    network: Network
    tokenizer: Tokenizer
    first: Mapping[str, Tensor] | None = None
    """Weights of another run, its head included, that take the place of the network's."""


def begin(recipe: TrainRecipe, sprites: Sprites) -> Start:
    """Return what a new run of this recipe begins with, in fp32 on the processor."""
    if not recipe.start_from:
        _refuse_adapt(recipe, "start_from names no model")
        tokenizer = build.tokenizer_for(recipe, sprites)
        return Start(recipe=recipe, network=_new(recipe, tokenizer), tokenizer=tokenizer)
    if checkpoint.exists(Path(recipe.start_from)):
        return _from_run(recipe, Path(recipe.start_from))
    return _from_model(recipe, sprites)


def settled(recipe: TrainRecipe, stored: Mapping[str, object]) -> TrainRecipe:
    """Return the recipe of a run that goes on: the sizes of its model are stored beside it."""
    if not recipe.start_from or stored.get("start_from") != recipe.start_from:
        return recipe
    before = config.build(TrainRecipe, stored, where="the stored recipe")
    if checkpoint.exists(Path(recipe.start_from)) or recipe.adapt != before.adapt:
        return recipe
    return dataclasses.replace(
        recipe, model=before.model, bins=before.bins, num_pieces=before.num_pieces
    )


def _from_run(recipe: TrainRecipe, folder: Path) -> Start:
    _refuse_adapt(recipe, f"start_from is a run; name its model, {folder}/model, instead")
    tokenizer = Tokenizer.from_folder(folder)
    if tokenizer.grid.bins != recipe.bins:
        raise TrainingError(
            f"start_from: the run in {folder} has {tokenizer.grid.bins} bins, "
            f"this recipe {recipe.bins}"
        )
    return Start(
        recipe=recipe,
        network=_new(recipe, tokenizer),
        tokenizer=tokenizer,
        first=plain_weights(folder, checkpoint.last(folder)),
    )


def plain_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """Return the weights of a run's checkpoint, low-rank layers merged."""
    weights = checkpoint.weights(folder, step)
    if any(lowrank.is_low_rank(name) for name in weights):
        note = checkpoint.read_note(checkpoint.place(folder, step))
        lora = config.build(LoraRecipe, note["recipe"]["lora"], where="the checkpoint's recipe")
        weights = lowrank.merged(weights, lora)
    return weights


def _from_model(recipe: TrainRecipe, sprites: Sprites) -> Start:
    opened = pretrained.open_checkpoint(pretrained.resolve(recipe.start_from))
    old, adapt, sizes = opened.read_tokenizer(), recipe.adapt, opened.config
    recipe = dataclasses.replace(
        recipe,
        bins=adapt.bins or old.grid.bins,
        model=dataclasses.replace(
            sizes,
            vision=dataclasses.replace(
                sizes.vision, image_size=adapt.image_size or sizes.vision.image_size
            ),
            num_latents=adapt.num_latents or sizes.num_latents,
        ),
    )
    new = old.with_bins(recipe.bins)
    if adapt.vocabulary == "learn":
        new = build.tokenizer_for(recipe, sprites)
    text = dataclasses.replace(recipe.model.text, vocab_size=new.vocabulary.size)
    recipe = dataclasses.replace(
        recipe,
        num_pieces=new.vocabulary.num_pieces,
        model=dataclasses.replace(recipe.model, text=text),
    )

    before = assemble(
        sizes, opened.layout, opened.source, dtype=torch.float32, device=torch.device("cpu")
    )
    state: Mapping[str, Tensor] = before.state_dict()
    state = with_resolution(state, recipe.model.vision.patches_per_side)
    generator = torch.Generator().manual_seed(recipe.seed)
    state = with_latents(state, recipe.model.num_latents, generator)
    state = with_vocabulary(state, old, new)
    network = skeleton(recipe.model)
    network.load_state_dict(state, strict=True, assign=True)
    torch.manual_seed(recipe.seed)
    return Start(recipe=recipe, network=network, tokenizer=new)


def _new(recipe: TrainRecipe, tokenizer: Tokenizer) -> Network:
    """Return a new network, and leave the random state from which the patch head is drawn."""
    torch.manual_seed(recipe.seed)
    return build.network_for(recipe, tokenizer)


def _refuse_adapt(recipe: TrainRecipe, why: str) -> None:
    if recipe.adapt != type(recipe.adapt)():
        raise TrainingError(f"[adapt] changes the model of start_from, but {why}")
