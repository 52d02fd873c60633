"""How much memory a GPU needs and how long a step takes, for any number of GPUs, by arithmetic.

What is counted and what is not stands at each function; docs/training-at-scale.md has the tables
and says what they were checked against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from kosmos2.errors import TrainingError
from kosmos2.model.config import ModelConfig
from kosmos2.model.network import Network
from kosmos2.training.flops import Load, forward_flops
from kosmos2.training.lowrank import targeted
from kosmos2.training.recipe import LoraRecipe, ParallelRecipe

FP32, BF16 = 4, 2
KEPT_PER_WIDTH = 15
"""Numbers that a block keeps for the backward pass, for each position and unit of its width; those
of its feed-forward width come on top. Counted in the code of `model` under autocast."""

PAIR_TOKENS, PAIR_TARGETS = 96, 30
"""Of a picture with its caption, in the paper's mixture (215K tokens for 2,234 pairs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What there is."""

    gpus: int
    gpus_per_node: int = 8
    peak: float = 989e12
    """Dense bf16 flops a second of one GPU."""
    utilisation: float = 0.40
    """Share of the peak that the network's own arithmetic reaches on one GPU: an assumption until
    it is measured."""
    inside: float = 400e9
    """Bytes a second and GPU between the GPUs of a node, each way."""
    outside: float = 40e9
    """Bytes a second and GPU between nodes."""

    @property
    def bandwidth(self) -> float:
        """Return that of the slowest link of a ring over all GPUs."""
        return self.inside if self.gpus <= self.gpus_per_node else self.outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a step is, and how it is done."""

    samples: int
    """Of a step, over all GPUs."""
    tokens: int
    """Positions of one sample."""
    targets: int
    """Of one sample."""
    micro_batch: int
    """Samples of one batch on one GPU."""
    kind: Literal["ddp", "fsdp"]
    recompute: Literal["none", "blocks"]
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """With a rank: all other weights are frozen, without gradients and moments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one GPU."""

    state_bytes: float
    """Weights, gradients and the optimizer's moments, in fp32."""
    activation_bytes: float
    compute_seconds: float
    """Of a step."""
    exchange_seconds: float
    """Of a step, of which the backward pass hides a part."""

    @property
    def bytes(self) -> float:
        return self.state_bytes + self.activation_bytes

    @property
    def seconds(self) -> tuple[float, float]:
        """Return a step's time if all exchange is hidden, and if none is."""
        hidden = max(self.compute_seconds, self.exchange_seconds)
        return hidden, self.compute_seconds + self.exchange_seconds


def parameters(config: ModelConfig) -> int:
    """Return how many weights the network has."""
    text, vision = config.text, config.vision

    def block(width: int, feedforward: int) -> int:
        linear = 4 * width * (width + 1) + 2 * width * feedforward + feedforward + width
        return linear + 4 * width  # two norms

    decoder = text.num_layers * (
        block(text.width, text.feedforward_width) + 2 * text.width + 2 * text.feedforward_width
    )
    tower = vision.num_layers * block(vision.width, vision.feedforward_width)
    tower += vision.width * (1 + vision.num_positions + 3 * vision.patch_size**2 + 4)
    resampler = text.width * (vision.width + 1 + config.num_latents) + 4 * text.width * (
        text.width + 1
    )
    return decoder + tower + resampler + text.width * (text.vocab_size + 2)


def low_rank_parameters(config: ModelConfig, lora: LoraRecipe) -> int:
    """Return how many weights the low-rank layers of a recipe have."""
    with torch.device("meta"):
        layers = targeted(Network(config), lora)
    return sum(lora.rank * (each.in_features + each.out_features) for each in layers.values())


def state_bytes(config: ModelConfig, lora: LoraRecipe) -> float:
    """Return weights, gradients and moments in fp32; of frozen weights there are the first alone.

    What `lora.also` trains whole is not counted.
    """
    weights = parameters(config)
    if not lora.rank:
        return 4 * FP32 * weights
    return FP32 * weights + 4 * FP32 * low_rank_parameters(config, lora)


def estimate(config: ModelConfig, cluster: Cluster, work: Work) -> Estimate:
    """Return what a step needs on each of the cluster's GPUs."""
    weights, gpus = parameters(config), cluster.gpus
    shares = gpus if work.kind == "fsdp" else 1
    load = Load(
        pictures=work.samples,
        tokens=work.samples * work.tokens,
        pairs=work.samples * work.tokens**2,
        targets=work.samples * work.targets,
    )
    forward = forward_flops(config, load).total
    passes = 3 if work.recompute == "none" else 4
    batches = -(-work.samples // (gpus * work.micro_batch))
    return Estimate(
        state_bytes=state_bytes(config, work.lora) / shares,
        activation_bytes=_activations(config, work) + _gathered(config, work),
        compute_seconds=passes * forward / gpus / (cluster.peak * cluster.utilisation),
        exchange_seconds=_exchanged(weights, gpus, batches, work) / cluster.bandwidth,
    )


def fitting_tokens(
    config: ModelConfig,
    memory: float,
    gpus: int,
    parallel: ParallelRecipe,
    lora: LoraRecipe,
) -> int:
    """Return the positions of the largest batch of pairs that a GPU of so many bytes holds.

    A tenth is left for what is not counted.
    """
    kind: Literal["ddp", "fsdp"] = "fsdp" if parallel.kind == "fsdp" else "ddp"
    work = Work(
        samples=gpus,
        tokens=PAIR_TOKENS,
        targets=PAIR_TARGETS,
        micro_batch=1,
        kind=kind,
        recompute=parallel.recompute,
        lora=lora,
    )
    each = _activations(config, work)
    state = estimate(config, Cluster(gpus=gpus), work).bytes - each
    samples = int((0.9 * memory - state) / each)
    if samples < 1:
        raise TrainingError(
            f"run.max_tokens is -1, but of {memory / 1e9:.0f} GB weights and optimizer alone take "
            f"{state / 1e9:.0f} GB on each of {gpus} GPUs. Set parallel.kind=fsdp and "
            "parallel.recompute=blocks, use more GPUs, or train low-rank layers ([lora])."
        )
    return samples * PAIR_TOKENS


def _activations(config: ModelConfig, work: Work) -> float:
    """Return the bytes that the backward pass waits for, at their most, in one micro-batch.

    Attention keeps no matrix of scores (fused). Logits are kept twice in fp32.
    """
    text, vision = config.text, config.vision
    parts = (
        (work.tokens, text.width, text.feedforward_width, text.num_layers),
        (vision.num_positions, vision.width, vision.feedforward_width, vision.num_layers),
    )
    kept = 0.0
    for length, width, feedforward, layers in parts:
        inside = length * (KEPT_PER_WIDTH * width + 4 * feedforward) * BF16
        entry = length * width * FP32
        kept += layers * entry + inside if work.recompute == "blocks" else layers * inside
    return work.micro_batch * (kept + 2 * work.targets * text.vocab_size * FP32)


def _gathered(config: ModelConfig, work: Work) -> float:
    """Return the bytes that fsdp has whole for a while: two blocks, and what is no block."""
    if work.kind == "ddp":
        return 0.0
    text = config.text
    block = 4 * text.width**2 + 2 * text.width * text.feedforward_width
    return 2 * block * BF16 + 2 * text.vocab_size * text.width * FP32


def _exchanged(weights: int, gpus: int, batches: int, work: Work) -> float:
    """Return the bytes that one GPU sends in a step, round a ring.

    ddp: the gradients once, in fp32, twice round. fsdp, for every micro-batch: weights in bf16 for
    the forward and the backward pass, gradients in fp32 once round.
    """
    share = (gpus - 1) / gpus
    if work.kind == "ddp":
        return 2 * FP32 * weights * share
    return batches * (2 * BF16 + FP32) * weights * share


def table(config: ModelConfig, work: Work, gpus: tuple[int, ...]) -> str:
    """Return estimates as a table of Markdown, one row for each number of GPUs."""
    lines = [
        "| GPUs | state, GB | activations, GB | batches a GPU | compute, s | exchange, s "
        "| step, s | 60,000 steps, days |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number in gpus:
        found = estimate(config, Cluster(gpus=number), work)
        least, most = found.seconds
        batches = -(-work.samples // (number * work.micro_batch))
        lines.append(
            f"| {number:,} | {found.state_bytes / 1e9:.1f} | {found.activation_bytes / 1e9:.1f} "
            f"| {batches} | {found.compute_seconds:.2f} | {found.exchange_seconds:.2f} "
            f"| {least:.2f} to {most:.2f} | {least * 60_000 / 86_400:.1f} to "
            f"{most * 60_000 / 86_400:.1f} |"
        )
    return "\n".join(lines)
