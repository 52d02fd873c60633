"""What is trained in the comparison: networks, samples of a step, and one recipe for both sides."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.machine import ROOT
from kosmos2 import config
from kosmos2.data.collate import Row
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Teacher
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import Source
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.scenes import default_cache
from kosmos2.scenes.gallery import Sprites
from kosmos2.training import build
from kosmos2.training.initialise import initialise
from kosmos2.training.recipe import (
    LossRecipe,
    OptimizerRecipe,
    ParallelRecipe,
    RunRecipe,
    ScenesRecipe,
    TrainRecipe,
)
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.pretrained import EMBEDDED_FOLDER
from kosmos2.weights.tensors import RenamedSource, StateSource, write_safetensors

RECIPE = ROOT / "recipes" / "train" / "embedded.toml"
"""Whose nouns and styles the scenes have."""
GOAL = 1.3
MOST_ROWS = 128
"""As many samples are made; a run that needs more begins again with the first."""
SMALL = ModelConfig(
    text=TextConfig(
        vocab_size=1528, width=256, feedforward_width=1024, num_layers=3, num_heads=4,
        dropout=0.0, attention_dropout=0.0,
    ),
    vision=VisionConfig(
        width=192, feedforward_width=768, num_layers=6, num_heads=3, image_size=192, patch_size=16
    ),
    num_latents=64,
)  # fmt: skip
"""The embedded model: 6 million weights."""
MIDDLE = ModelConfig(
    text=TextConfig(
        vocab_size=8192, width=512, feedforward_width=2048, num_layers=10, num_heads=8,
        dropout=0.0, attention_dropout=0.0,
    ),
    vision=VisionConfig(width=384, feedforward_width=1536, num_layers=8, num_heads=6),
)  # fmt: skip
"""52 million weights; patches, latents and the output layer's share of the weights (8 %) as at full
size, so that nothing is won by a vocabulary too large for its network."""
FULL = ModelConfig(text=TextConfig(dropout=0.0, attention_dropout=0.0))
"""The released size. No dropout in any of these: two sides cannot draw the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison."""

    name: str
    title: str
    model: ModelConfig
    batch: int
    """Pictures of a step."""
    lessons: int
    """At most so many of a picture: its caption, phrases to find, questions."""
    steps: int
    precision: Literal["fp32", "bf16"] = "bf16"
    goal: float | None = GOAL
    """How many times the peer's samples a second are required; None: shown, not judged."""
    max_tokens: int = 0
    """As `run.max_tokens`; 0: a row for each picture."""
    compiled: bool = False
    """Whether our blocks go through torch.compile."""


LESSONS = Case(
    name="lessons", title="6 million weights, up to 6 lessons a picture (the embedded recipe)",
    model=SMALL, batch=16, lessons=6, steps=16,
)  # fmt: skip
PAIRS = Case(
    name="pairs", title="6 million weights, a grounded caption a picture",
    model=SMALL, batch=16, lessons=1, steps=32, max_tokens=4096,
)  # fmt: skip
EXACT = dataclasses.replace(
    PAIRS, name="pairs-fp32", title=f"{PAIRS.title}, in fp32", precision="fp32", steps=12, goal=None
)
MIDDLE_LESSONS = Case(
    name="middle-lessons", title="52 million weights, up to 6 lessons a picture",
    model=MIDDLE, batch=4, lessons=6, steps=6,
)  # fmt: skip
MIDDLE_PAIRS = Case(
    name="middle-pairs", title="52 million weights, a grounded caption a picture",
    model=MIDDLE, batch=8, lessons=1, steps=10, max_tokens=4096,
)  # fmt: skip
ON_CPU = (LESSONS, PAIRS, EXACT, MIDDLE_LESSONS, MIDDLE_PAIRS)
FULL_PAIRS = Case(
    name="full-pairs", title="full size, a grounded caption a picture",
    model=FULL, batch=32, lessons=1, steps=20, goal=None, max_tokens=-1,
)  # fmt: skip
FULL_LESSONS = dataclasses.replace(
    FULL_PAIRS, name="full-lessons", title="full size, up to 6 lessons a picture",
    batch=8, lessons=6,
)  # fmt: skip
COMPILED = dataclasses.replace(
    FULL_PAIRS, name="full-pairs-compiled", title=f"{FULL_PAIRS.title}, our blocks compiled",
    compiled=True,
)  # fmt: skip
ON_GPU = (FULL_PAIRS, COMPILED, FULL_LESSONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a process needs to train: written to a folder, read by either side's own."""

    case: Case
    recipe: TrainRecipe
    rows: Sequence[Row]
    device: str
    threads: int

    def samples(self, number: int) -> list[Row]:
        """Return the samples of step 0, 1, ..."""
        size = self.recipe.optimizer.samples
        return [self.rows[at % len(self.rows)] for at in range(number * size, (number + 1) * size)]

    def write(self, folder: Path) -> None:
        """Write the job, and its first weights as transformers reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "job.pickle").write_bytes(pickle.dumps(self))
        first = network(self.case.model, tokenizer())
        state = StateSource({name: each.detach() for name, each in first.named_parameters()})
        names = {HUGGINGFACE.theirs(ours): ours for ours in state.state}
        content = huggingface.format_config(self.case.model, torch.float32)
        (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
        write_safetensors(
            folder, RenamedSource(state, names),
            max_shard_bytes=huggingface.MAX_SHARD_BYTES, on_tensor=lambda name: None,
        )  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Return what `write` wrote."""
        job = pickle.loads((folder / "job.pickle").read_bytes())
        assert isinstance(job, cls)
        return job


class Fixed:
    """Samples made before the clock runs, in their order."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def row(self, index: int) -> Row | Rejected:
        """Return sample `index`, from the first again behind the last."""
        return self.rows[index % len(self.rows)]


@dataclass(frozen=True, slots=True)
class Artwork:
    """What scenes are made of, and the drawings themselves."""

    scenes: ScenesRecipe
    sprites: Sprites

    @classmethod
    def load(cls) -> Artwork:
        """Return that of the embedded recipe, from the cache of `kosmos2 scenes prepare`."""
        scenes = config.load(TrainRecipe, RECIPE).scenes
        sprites = Sprites.load(default_cache(), styles=scenes.styles, nouns=scenes.nouns)
        return cls(scenes, sprites)


def recipe_of(case: Case, scenes: ScenesRecipe) -> TrainRecipe:
    """Return the recipe of both sides: what transformers has not (soft cells, patches) is off."""
    words = tokenizer()
    return TrainRecipe(
        bins=words.grid.bins,
        num_pieces=words.vocabulary.num_pieces,
        model=case.model,
        scenes=scenes,
        sources=(SourceRecipe(kind="scenes", max_lessons=case.lessons),),
        loss=LossRecipe(),
        optimizer=OptimizerRecipe(
            steps=case.steps,
            learning_rate=5e-4,
            warmup_steps=min(5, case.steps),
            clip=1.0,
            batch_size=case.batch,
        ),
        parallel=ParallelRecipe(compile="blocks" if case.compiled else "none"),
        run=RunRecipe(
            precision=case.precision,
            workers=0,
            log_every=1,
            checkpoint_every=case.steps,
            evaluate_every=case.steps,
            max_tokens=case.max_tokens,
        ),
    )


def job_of(case: Case, artwork: Artwork, device: str, threads: int) -> Job:
    """Return the case with its samples, made now."""
    recipe = recipe_of(case, artwork.scenes)
    source = scenes_of(case, artwork)
    count = min(MOST_ROWS, case.batch * case.steps)
    rows = [row for row in map(source.row, range(count)) if isinstance(row, Row)]
    return Job(case=case, recipe=recipe, rows=rows, device=device, threads=threads)


def scenes_of(case: Case, artwork: Artwork) -> Source:
    """Return the live scenes of a case."""
    recipe = recipe_of(case, artwork.scenes)
    teacher = Teacher(tokenizer(), case.model.num_latents)
    (source,) = build.sources_for(recipe, teacher, artwork.sprites)
    return source


def tokenizer() -> Tokenizer:
    """Return the vocabulary of the embedded model, which all cases use."""
    return Tokenizer.from_folder(EMBEDDED_FOLDER)


def network(model: ModelConfig, words: Tokenizer) -> Network:
    """Return a new network; the same one for the same sizes."""
    made = Network(model)
    initialise(made, words.vocabulary, torch.Generator().manual_seed(0))
    return made
