"""Everything about a run. Stored beside its output; examples are in `recipes/train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kosmos2.data.recipe import SourceRecipe, check_at_least
from kosmos2.errors import ConfigError
from kosmos2.model.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesRecipe:
    """What live scenes are made of; without such a source nothing here is asked for."""

    nouns: tuple[str, ...] = ()
    styles: tuple[str, ...] = ("noto", "noto-v1", "fluent-emoji-flat", "fluent-3d")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecipe:
    location_weight: float = 1.0
    """Weight of a location target; a text target weighs 1."""
    location_spread: float = 0.0
    """Standard deviation, in cells, of the soft target around the true cell; 0 is one-hot."""
    patch_weight: float = 0.0
    """Weight of what every patch shows (live scenes only), a teacher for the vision tower."""

    def __post_init__(self) -> None:
        check_at_least("loss", self, 0, "location_weight", "location_spread", "patch_weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRecipe:
    steps: int
    learning_rate: float = 2e-4
    warmup_steps: int = 375
    final_share: float = 0.0
    """Where the decay of the learning rate leads (behind the last step), as a share of its top."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip: float = 2.0
    batch_size: int = 32
    accumulation: int = 1
    """Batches whose gradients make one step."""
    decayed: Literal["matrices", "all"] = "matrices"
    """What weight decay pulls on: not the norms, biases and class token, or all weights."""

    def __post_init__(self) -> None:
        check_at_least("optimizer", self, 1, "steps", "batch_size", "accumulation")
        check_at_least("optimizer", self, 0, "weight_decay", "final_share")
        for name in ("learning_rate", "eps", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"optimizer.{name} ({getattr(self, name)}) must be above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas ({self.betas}) must lie in [0, 1)")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ConfigError(
                f"optimizer.warmup_steps ({self.warmup_steps}) must lie in 0..steps ({self.steps})"
            )

    @property
    def samples(self) -> int:
        """Of one step, over all its batches and ranks."""
        return self.batch_size * self.accumulation


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRecipe:
    """What is trained, and how fast: factors of the learning rate; 0 freezes, to the bit."""

    vision: float = 1.0
    resampler: float = 1.0
    decoder: float = 1.0
    embedding: float = 1.0
    decoder_blocks: tuple[int, ...] = ()
    """First and last block that are trained, counted from 0; without: all, and the last norm."""
    embedding_rows: Literal["all", "locations"] = "all"
    """Rows of the embedding that are trained: of every token, or of the location tokens alone."""

    def __post_init__(self) -> None:
        check_at_least("parts", self, 0, "vision", "resampler", "decoder", "embedding")
        match self.decoder_blocks:
            case ():
                pass
            case (first, last) if 0 <= first <= last:
                pass
            case _:
                raise ConfigError(
                    f"parts.decoder_blocks ({list(self.decoder_blocks)}) must be the numbers of "
                    "the first and the last block that are trained, such as [20, 23]"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRecipe:
    """Low-rank layers beside frozen ones (Hu et al. 2021): W x + alpha / rank * up (down x)."""

    rank: int = 0
    """0: no such layers."""
    alpha: float = 16.0
    targets: tuple[str, ...] = ("decoder.blocks.*",)
    """Linear layers by our names, with `*` for anything: "decoder.blocks.*.query"."""
    also: tuple[Literal["vision", "resampler", "decoder", "embedding"], ...] = ()
    """Parts that are trained whole beside them, as [parts] says; all others are frozen."""

    def __post_init__(self) -> None:
        check_at_least("lora", self, 0, "rank")
        if not self.alpha > 0:
            raise ConfigError(f"lora.alpha ({self.alpha}) must be above 0")
        if self.rank and not self.targets:
            raise ConfigError("lora.targets is empty, so there is nothing for lora.rank to act on")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelRecipe:
    """How processes that torchrun started share the work, and what is traded for memory."""

    kind: Literal["none", "ddp", "fsdp"] = "none"
    """ddp: every process holds all weights; fsdp: each holds a part of every block (FSDP2)."""
    recompute: Literal["none", "blocks"] = "none"
    """blocks: activations inside a block are computed again in the backward pass, not kept."""
    compile: Literal["none", "blocks"] = "none"
    """blocks: every block goes through torch.compile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsRecipe:
    """Which of the checkpoints that `run.checkpoint_every` makes stay."""

    keep: int = 2
    """The last ones."""
    keep_every: int = 0
    """Those of every so many steps stay too; 0: none."""
    asynchronous: bool = False
    """The files are written in the background; training goes on from a copy in memory."""

    def __post_init__(self) -> None:
        check_at_least("checkpoints", self, 1, "keep")
        check_at_least("checkpoints", self, 0, "keep_every")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptRecipe:
    """How the model of `start_from` is changed before it is trained; 0 leaves it as it is."""

    image_size: int = 0
    num_latents: int = 0
    bins: int = 0
    vocabulary: Literal["keep", "learn"] = "keep"
    """learn: `num_pieces` pieces are learnt from the sources; rows of known pieces are kept."""

    def __post_init__(self) -> None:
        check_at_least("adapt", self, 0, "image_size", "num_latents", "bins")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 computes under autocast; weights and optimizer stay in fp32."""
    workers: int = 1
    log_every: int = 20
    checkpoint_every: int = 500
    evaluate_every: int = 1000
    evaluation_scenes: int = 64
    """Held-out scenes that are asked about, like those of the first source of scenes; none where
    the recipe has no such source."""
    evaluation_records: str = ""
    """A store of records that are asked about instead, as many as `evaluation_scenes` says."""
    preview_scenes: int = 8
    pad_multiple: int = 16
    """Rows are padded to a multiple of this many positions."""
    max_tokens: int = 0
    """Most positions of a batch, padding included: a rank's rows are sorted by length and cut so.
    0: batches of `optimizer.batch_size` rows; -1: what the GPU's memory holds (`scale`)."""

    def __post_init__(self) -> None:
        counts = ("log_every", "checkpoint_every", "evaluate_every", "evaluation_scenes")
        check_at_least("run", self, 1, *counts, "preview_scenes", "pad_multiple")
        check_at_least("run", self, 0, "workers")
        check_at_least("run", self, -1, "max_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    seed: int = 0
    num_pieces: int = 2048
    """Vocabulary pieces learnt from the corpus, beside the special and location tokens."""
    bins: int = 32
    model: ModelConfig = field(default_factory=ModelConfig)
    """`vocab_size` is set from the vocabulary."""
    scenes: ScenesRecipe = field(default_factory=ScenesRecipe)
    sources: tuple[SourceRecipe, ...]
    start_from: str = ""
    """Whose weights are the first ones here: the folder of a run of the same sizes, or a model as
    --model takes it, whose sizes and vocabulary then go before [model], `bins`, `num_pieces`."""
    adapt: AdaptRecipe = field(default_factory=AdaptRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimizer: OptimizerRecipe
    parts: PartsRecipe = field(default_factory=PartsRecipe)
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    parallel: ParallelRecipe = field(default_factory=ParallelRecipe)
    checkpoints: CheckpointsRecipe = field(default_factory=CheckpointsRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)

    def __post_init__(self) -> None:
        check_at_least("recipe", self, 0, "seed")
        check_at_least("recipe", self, 1, "num_pieces", "bins")
        if not self.sources:
            raise ConfigError("a recipe needs at least one of [[sources]]")
        if self.crowds and not self.scenes.nouns:
            raise ConfigError("a source of scenes needs scenes.nouns, what they show")

    @property
    def crowds(self) -> tuple[SourceRecipe, ...]:
        """Return the sources that are live scenes, which need the artwork."""
        return tuple(source for source in self.sources if source.kind == "scenes")
