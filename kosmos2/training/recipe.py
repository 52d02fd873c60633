"""Everything about a run. Stored beside its output; examples are in `recipes/train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kosmos2.data.recipe import SourceRecipe, check_at_least
from kosmos2.errors import ConfigError
from kosmos2.model.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenesRecipe:
    """What live scenes are made of."""

    nouns: tuple[str, ...]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 computes under autocast; weights and optimizer stay in fp32."""
    workers: int = 1
    log_every: int = 20
    checkpoint_every: int = 500
    evaluate_every: int = 1000
    evaluation_scenes: int = 64
    preview_scenes: int = 8
    pad_multiple: int = 16
    """Rows are padded to a multiple of this many positions."""

    def __post_init__(self) -> None:
        counts = ("log_every", "checkpoint_every", "evaluate_every", "evaluation_scenes")
        check_at_least("run", self, 1, *counts, "preview_scenes", "pad_multiple")
        check_at_least("run", self, 0, "workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    seed: int = 0
    num_pieces: int = 2048
    """Vocabulary pieces learnt from the corpus, beside the special and location tokens."""
    bins: int = 32
    model: ModelConfig = field(default_factory=ModelConfig)
    """`vocab_size` is set from the vocabulary."""
    scenes: ScenesRecipe
    sources: tuple[SourceRecipe, ...]
    start_from: str = ""
    """Folder of a finished run of the same sizes whose weights are the first ones here."""
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimizer: OptimizerRecipe
    run: RunRecipe = field(default_factory=RunRecipe)

    def __post_init__(self) -> None:
        check_at_least("recipe", self, 0, "seed")
        check_at_least("recipe", self, 1, "num_pieces", "bins")
        if not self.sources:
            raise ConfigError("a recipe needs at least one of [[sources]]")
