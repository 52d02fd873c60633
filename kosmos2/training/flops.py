"""How many floating-point operations a step costs, by the sizes of the network alone.

A product of an m x k and a k x n matrix counts 2 m k n; all else (norms, softmax, the optimizer)
is left out, as usual for the share of a device's peak ("model FLOPs utilisation", PaLM, app. B).
What activation checkpointing computes twice counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kosmos2.data.collate import PADDING_LESSON, Batch
from kosmos2.model.config import ModelConfig, TextConfig, VisionConfig

# Dense bf16 products, flops a second, as the makers state them; first name found in the device's.
PEAKS = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165e12),
    ("V100", 125e12),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Of one forward pass, by part."""

    vision: float
    resampler: float
    decoder: float
    """With the output layer."""

    @property
    def total(self) -> float:
        return self.vision + self.resampler + self.decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the network is given."""

    pictures: int
    tokens: int
    """Positions of the decoder, without padding."""
    pairs: float
    """Pairs of positions in one sequence, over all sequences: tokens x length."""
    targets: int
    """Positions whose logits are computed."""


def load_of(batches: Sequence[Batch]) -> Load:
    """Return what these batches bring."""
    kept = [int((batch.lesson_BT != PADDING_LESSON).sum()) for batch in batches]
    lengths = [batch.ids_BT.shape[1] for batch in batches]
    return Load(
        pictures=sum(len(batch.pixels_ICYX) for batch in batches),
        tokens=sum(kept),
        pairs=sum(tokens * length for tokens, length in zip(kept, lengths, strict=True)),
        targets=sum(len(batch.target_L) for batch in batches),
    )


def forward_flops(config: ModelConfig, load: Load) -> Flops:
    """Return the operations of a forward pass; a batch without targets stops at the tower."""
    text, vision = config.text, config.vision
    decoder = load.tokens * _token(text) + load.pairs * 4 * text.width * text.num_layers
    read = load.targets > 0
    return Flops(
        vision=float(load.pictures * _tower(vision)),
        resampler=float(load.pictures * _resampler(config) * read),
        decoder=float((decoder + load.targets * 2 * text.width * text.vocab_size) * read),
    )


def training_flops(flops: Flops, *, vision: bool, resampler: bool, decoder: bool) -> float:
    """Return the operations of a training step whose parts are trained, or frozen.

    The backward pass costs a part as much as the forward pass for the gradients of what comes in,
    which stops below the lowest part that is trained, and as much for those of its weights.
    """
    below, total = False, 0.0
    for cost, trained in (
        (flops.vision, vision),
        (flops.resampler, resampler),
        (flops.decoder, decoder),
    ):
        total += cost * (1 + (1 if trained or below else 0) + (1 if trained else 0))
        below = below or trained
    return total


def peak_of(device: torch.device) -> float | None:
    """Return the flops a second of the device in bf16; None for a processor or one not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS if part in name), None)


def _tower(config: VisionConfig) -> int:
    """Return the operations for one picture."""
    width, places = config.width, config.num_positions
    products = 4 * 2 * width**2 + 2 * 2 * width * config.feedforward_width
    block = places * products + 4 * places**2 * width
    patches = 2 * (places - 1) * 3 * config.patch_size**2 * width
    return patches + config.num_layers * block


def _resampler(config: ModelConfig) -> int:
    """Return the operations for one picture."""
    width, latents, places = config.text.width, config.num_latents, config.vision.num_positions
    memory = places + latents
    return (
        2 * places * config.vision.width * width
        + 2 * (2 * latents + 2 * memory) * width**2
        + 4 * latents * memory * width
    )


def _token(config: TextConfig) -> int:
    """Return the operations of all blocks for one position, without attention's pairs."""
    block = 4 * 2 * config.width**2 + 2 * 2 * config.width * config.feedforward_width
    return config.num_layers * block
