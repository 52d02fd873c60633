"""The sizes of a network. They travel with the weights, never in a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from kosmos2.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    width: int = 1024
    feedforward_width: int = 4096
    num_layers: int = 24
    num_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    norm_eps: float = 1e-5
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_divisible("vision.width", self.width, "vision.num_heads", self.num_heads)
        _check_divisible("vision.image_size", self.image_size, "vision.patch_size", self.patch_size)

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def num_positions(self) -> int:
        """Patches and the class token."""
        return self.patches_per_side**2 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    vocab_size: int = 65037
    width: int = 2048
    feedforward_width: int = 8192
    num_layers: int = 24
    num_heads: int = 32
    norm_eps: float = 1e-5
    max_positions: int = 2048
    """Kept for the checkpoint formats; positions are computed, so longer texts work."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    scale_embedding: bool = True

    def __post_init__(self) -> None:
        _check_divisible("text.width", self.width, "text.num_heads", self.num_heads)
        _check_divisible("text.width", self.width, "2 (sine and cosine halves)", 2)
        if self.width < 4:
            raise ConfigError(f"text.width ({self.width}) must be at least 4")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    num_latents: int = 64
    """Image vectors the decoder reads, whatever the number of patches."""

    def __post_init__(self) -> None:
        if self.num_latents < 1:
            raise ConfigError(f"num_latents ({self.num_latents}) must be at least 1")


def _check_divisible(name: str, value: int, by_name: str, by: int) -> None:
    if value < 1 or by < 1 or value % by:
        raise ConfigError(f"{name} ({value}) must be a positive multiple of {by_name} ({by})")
