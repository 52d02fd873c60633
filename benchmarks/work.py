"""What each stage must read and calculate at least: bytes and operations from the sizes alone."""

from __future__ import annotations

from dataclasses import dataclass

from kosmos2.kernels.quantized import GROUP
from kosmos2.model import ModelConfig


@dataclass(frozen=True, slots=True)
class Work:
    """The least that a stage costs."""

    bytes_read: float
    operations: float
    """Multiplications and additions."""
    arithmetic: str
    """Number type of the fastest arithmetic that could be used: "fp32", "bf16" or "int8"."""

    def times(self, count: float) -> Work:
        """Return the work of doing it several times."""
        return Work(self.bytes_read * count, self.operations * count, self.arithmetic)


ARITHMETIC = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "int4": "int8"}
BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5 + 2 / GROUP}
"""A scale of int4 has two bytes; those of int8, one for a whole row, do not count."""
BYTES_PER_HEAD_WEIGHT = {**BYTES_PER_WEIGHT, "int4": 1.0}
"""The embedding keeps 8 bits."""
BYTES_PER_ACTIVATION = {"fp32": 4.0, "bf16": 2.0, "int8": 4.0, "int4": 4.0}


def decode(config: ModelConfig, precision: str, rows: int, past: float) -> Work:
    """Return the work of one more token for each row: all matrices once, each row's memory."""
    blocks, head = decoder_weights(config), head_weights(config)
    memory = rows * past * 2 * config.text.width * config.text.num_layers
    return Work(
        _weight_bytes(config, precision) + memory * BYTES_PER_ACTIVATION[precision],
        2 * rows * (blocks + head) + 2 * memory,
        ARITHMETIC[precision],
    )


def prefill(config: ModelConfig, precision: str, rows: int, length: int) -> Work:
    """Return the work of reading prompts; only their last tokens go through the head."""
    tokens = rows * length
    attention = 2 * 2 * tokens * (length + 1) / 2 * config.text.width * config.text.num_layers
    return Work(
        _weight_bytes(config, precision),
        2 * tokens * decoder_weights(config) + 2 * rows * head_weights(config) + attention,
        ARITHMETIC[precision],
    )


def encode(config: ModelConfig, precision: str, images: int) -> Work:
    """Return the work of the vision tower and the resampler."""
    vision, text = config.vision, config.text
    positions, latents = vision.num_positions, config.num_latents
    block = 4 * vision.width**2 + 2 * vision.width * vision.feedforward_width
    patches = 3 * vision.patch_size**2 * vision.width
    tower = positions * (vision.num_layers * block + patches)
    tower += 2 * positions**2 * vision.width * vision.num_layers
    memory = positions + latents
    resampler = positions * vision.width * text.width + 2 * memory * text.width**2
    resampler += 2 * latents * text.width**2 + 2 * latents * memory * text.width
    weights = vision.num_layers * block + patches + vision.width * text.width + 4 * text.width**2
    return Work(
        weights * BYTES_PER_WEIGHT[precision],
        2 * images * (tower + resampler),
        ARITHMETIC[precision],
    )


def _weight_bytes(config: ModelConfig, precision: str) -> float:
    blocks = decoder_weights(config) * BYTES_PER_WEIGHT[precision]
    return blocks + head_weights(config) * BYTES_PER_HEAD_WEIGHT[precision]


def decoder_weights(config: ModelConfig) -> int:
    """Return the numbers in the matrices of all blocks."""
    text = config.text
    return text.num_layers * (4 * text.width**2 + 2 * text.width * text.feedforward_width)


def head_weights(config: ModelConfig) -> int:
    """Return the numbers in the matrix that gives the logits."""
    return config.text.vocab_size * config.text.width
