"""From a recipe to the parts of a run: vocabulary, network, sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import chain

import torch

from kosmos2.data.lessons import Teacher
from kosmos2.data.opening import Reader, data_cache, open_source, words_of
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import SceneSource, Source
from kosmos2.model.config import ModelConfig
from kosmos2.model.network import Network
from kosmos2.scenes.gallery import Sprites
from kosmos2.scenes.maker import SceneMaker
from kosmos2.scenes.recipe import Crowd, SceneRecipe
from kosmos2.training.initialise import initialise
from kosmos2.training.recipe import TrainRecipe
from kosmos2.vocab.tokenizer import Tokenizer, train_tokenizer

VOCABULARY_SCENES = 3000
"""As many scenes teach a new vocabulary its words."""
VOCABULARY_ROWS = 200_000
"""As many rows of each file do."""
PROMPTS = "It is this. Describe this image in detail: An image of"
"""What is said around every answer."""
ORDER_SEED = 7_368_787
"""Times a source's number, added to a run's seed: the seed of the source's order."""
EVALUATION_SEED = 1_000_003
"""Added to a run's seed for the scenes of every split but "train"."""


def tokenizer_for(recipe: TrainRecipe, sprites: Sprites) -> Tokenizer:
    """Return a vocabulary learnt from scenes as of their first source, and from all files."""
    texts: Iterator[str] = iter((PROMPTS, "Question: Answer:"))
    if recipe.crowds:
        maker = scene_maker(recipe, recipe.crowds[0], sprites, split="train")
        texts = _scene_texts(maker, VOCABULARY_SCENES)
    texts = chain(texts, _file_texts(recipe))
    return train_tokenizer(texts, num_pieces=recipe.num_pieces, bins=recipe.bins)


def network_for(recipe: TrainRecipe, tokenizer: Tokenizer) -> Network:
    """Return a new network with first weights of the recipe's seed."""
    text = dataclasses.replace(recipe.model.text, vocab_size=tokenizer.vocabulary.size)
    config: ModelConfig = dataclasses.replace(recipe.model, text=text)
    network = Network(config)
    initialise(network, tokenizer.vocabulary, torch.Generator().manual_seed(recipe.seed))
    return network


def sources_for(recipe: TrainRecipe, teacher: Teacher, sprites: Sprites) -> list[Source]:
    """Return the sources of the mixture, in the recipe's order."""
    return [_source(recipe, number, teacher, sprites) for number in range(len(recipe.sources))]


def scene_maker(
    recipe: TrainRecipe, source: SourceRecipe, sprites: Sprites, *, split: str
) -> SceneMaker:
    """Return the maker of a source's scenes; other splits are made with a seed of their own."""
    return SceneMaker(
        SceneRecipe(
            size=recipe.model.vision.image_size,
            nouns=recipe.scenes.nouns,
            styles=recipe.scenes.styles if split != "style" else ("openmoji",),
            seed=recipe.seed if split == "train" else recipe.seed + EVALUATION_SEED,
            split=split,
            **{each.name: getattr(source, each.name) for each in dataclasses.fields(Crowd)},
        ),
        sprites,
    )


def _source(recipe: TrainRecipe, number: int, teacher: Teacher, sprites: Sprites) -> Source:
    source = recipe.sources[number]
    if source.kind != "scenes":
        reader = Reader(teacher, recipe.model, data_cache())
        return open_source(source, reader, seed=recipe.seed + ORDER_SEED * number)
    maker = scene_maker(recipe, source, sprites, split="train")
    return SceneSource(
        maker,
        teacher,
        source,
        patches_per_side=recipe.model.vision.patches_per_side,
    )


def _file_texts(recipe: TrainRecipe) -> Iterator[str]:
    for source in recipe.sources:
        if source.kind != "scenes":
            yield from words_of(source, data_cache(), most_rows=VOCABULARY_ROWS)


def _scene_texts(maker: SceneMaker, count: int) -> Iterator[str]:
    for index in range(count):
        scene = maker.scene(index)
        yield scene.brief.text
        yield scene.detailed.text
        yield from (expression for group in scene.groups for expression in group.expressions)
        yield from (referring.expression for referring in scene.referring)
        for question in scene.questions:
            yield f"Question: {question.question} Answer: {question.answer}"
        yield PROMPTS
