"""Everything about a run. Stored beside its output; examples are in `recipes/train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kosmos2.errors import ConfigError
from kosmos2.model.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe:
    """One source of the mixture: live scenes, or a JSONL of grounded records."""

    kind: Literal["scenes", "records"]
    weight: float = 1.0
    path: str = ""
    """records: the JSONL; the pictures' paths are relative to its folder."""
    max_groups: int = 3
    max_instances: int = 3
    single_share: float = 0.5
    colour_share: float = 0.35
    min_side: float = 0.18
    """scenes: longer side of the smallest and largest things, as a share of the picture's."""
    max_side: float = 0.55
    max_single_side: float = 0.85
    max_lessons: int = 6
    """scenes: caption, phrases and questions behind one picture; 0 trains the tower alone."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRecipe:
    steps: int
    learning_rate: float = 2e-4
    warmup_steps: int = 375
    final_share: float = 0.0
    """Learning rate at the last step, as a share of the highest."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip: float = 2.0
    batch_size: int = 32
    accumulation: int = 1
    """Batches whose gradients make one step."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise ConfigError(f"optimizer.{name} ({getattr(self, name)}) must be at least 1")
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
