"""What is measured on a GPU: steps, prompts, captions, each beside the limit and transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks import peer, prompts, weights, work
from benchmarks.gpu_card import Card, Probe
from benchmarks.ours import GREEDY, Ours
from benchmarks.peer import Peer
from benchmarks.samples import Spread, ratios, spread
from kosmos2.engine import Engine, Limits, Request
from kosmos2.engine.build import from_network
from kosmos2.engine.capture import CapturedRunner
from kosmos2.kernels.kind import Precision
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig

PRECISIONS = (Precision.BF16, Precision.FP16, Precision.INT8, Precision.FP8)
BYTES_PER_WEIGHT = {Precision.INT8: 1, Precision.FP8: 1}
"""Of quantised precisions; floats have two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    config: ModelConfig
    probe: Probe
    rounds: int
    past: int
    """Tokens that a row holds before the first timed step."""
    steps: int
    row_counts: tuple[int, ...]
    batch: int
    """Pictures that are encoded and prompts that are read at once."""
    captions: int
    tokens: int
    cache_bytes: int


FULL = Scale(
    config=ModelConfig(),
    probe=Probe(bytes_read=4 << 30, side=8192),
    rounds=9,
    past=100,
    steps=64,
    row_counts=(1, 2, 4, 8, 16, 32, 64, 128),
    batch=32,
    captions=1024,
    tokens=64,
    cache_bytes=24 << 30,
)
TINY = Scale(
    config=ModelConfig(
        text=TextConfig(
            vocab_size=4000, width=64, feedforward_width=128, num_layers=2, num_heads=4
        ),
        vision=VisionConfig(
            width=64, feedforward_width=128, num_layers=1, num_heads=4, image_size=28, patch_size=14
        ),
        num_latents=4,
    ),
    probe=Probe(bytes_read=1 << 20, side=64),
    rounds=1,
    past=5,
    steps=3,
    row_counts=(1, 3),
    batch=2,
    captions=3,
    tokens=2,
    cache_bytes=1 << 24,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a table."""

    name: str
    seconds: Spread
    share: float | None = None
    """Of the limit, 1 is the limit itself."""
    faster: Spread | None = None
    """How many times longer transformers took."""
    rate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the project set out to reach, and what was reached."""

    name: str
    wanted: float
    found: float
    unit: str

    @property
    def reached(self) -> bool:
        return self.found >= self.wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One subject."""

    title: str
    setting: str
    lines: tuple[Line, ...]
    goals: tuple[Goal, ...] = ()


class Sides:
    """Ours in every precision and transformers in bf16, over the same random weights."""

    def __init__(self, scale: Scale, card: Card) -> None:
        self.scale = scale
        self.card = card
        built = peer.cast(peer.build(scale.config), scale.config, "bf16")
        self._network: Network = weights.as_ours(built.model.state_dict(), scale.config)
        self._network.to(card.device)
        built.model.to(card.device)  # type: ignore[arg-type]
        self.peer: Peer = built
        self._runners: dict[Precision, CapturedRunner] = {}

    def runner(self, precision: Precision) -> CapturedRunner:
        """Return our runner, made when first asked for."""
        if precision not in self._runners:
            plain = from_network(self._network, precision)
            self._runners[precision] = CapturedRunner.of(plain)
        return self._runners[precision]

    def take_turns(
        self, work_of: Mapping[str, Callable[[], object]], times: int = 1
    ) -> dict[str, tuple[float, ...]]:
        """Return seconds of each, a number a round; every round begins with another."""
        for each in work_of.values():
            each()
        names = list(work_of)
        found: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(self.scale.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                found[name].append(self.card.seconds(work_of[name], times))
        return {name: tuple(values) for name, values in found.items()}


PEER = "transformers bf16"


def decode_one(sides: Sides) -> Table:
    """Return the time of a token for one row."""
    scale, card = sides.scale, sides.card
    works: dict[str, Callable[[], object]] = {PEER: _peer_steps(sides, 1)}
    for precision in PRECISIONS:
        works[f"ours {precision}, on the device"] = _steps(sides, precision)
        works[f"ours {precision}, each token read by the host"] = _read_steps(sides, precision)
    times = sides.take_turns(works)
    bandwidth = spread([card.bandwidth() for _ in range(scale.rounds)]).median
    lines = []
    for name, seconds in times.items():
        each = [value / scale.steps for value in seconds]
        theirs = [value / scale.steps for value in times[PEER]]
        precision = Precision(name.split()[1].rstrip(",")) if name != PEER else Precision.BF16
        least = bytes_of_step(scale.config, precision, 1, scale.past + scale.steps / 2) / bandwidth
        lines.append(
            Line(
                name=name,
                seconds=spread(each),
                share=least / spread(each).median,
                faster=spread(ratios(theirs, each)),
            )
        )
    fastest = next(line for line in lines if line.name == "ours bf16, on the device")
    assert fastest.share is not None and fastest.faster is not None
    return Table(
        title="Decoding, one row",
        setting=f"a token after {scale.past} to {scale.past + scale.steps}, mean of {scale.steps}; "
        f"share of the read bandwidth, {bandwidth / 1e9:,.0f} GB/s",
        lines=tuple(lines),
        goals=(
            Goal(name="share of bandwidth, bf16", wanted=75, found=100 * fastest.share, unit="%"),
            Goal(name="times transformers", wanted=15, found=fastest.faster.median, unit="×"),
        ),
    )


def decode_many(sides: Sides) -> Table:
    """Return the time of a step by how many rows it has."""
    scale = sides.scale
    bandwidth = spread([sides.card.bandwidth() for _ in range(scale.rounds)]).median
    lines = []
    for rows in scale.row_counts:
        for precision in (Precision.BF16, Precision.INT8):
            steps = _steps(sides, precision, rows)
            seconds = sides.take_turns({"": steps})[""]
            each = spread([value / scale.steps for value in seconds])
            past = scale.past + scale.steps / 2
            least = bytes_of_step(scale.config, precision, rows, past) / bandwidth
            lines.append(
                Line(
                    name=f"ours {precision}, {rows} rows",
                    seconds=each,
                    share=least / each.median,
                    rate=f"{rows / each.median:,.0f} tokens/s",
                )
            )
    return Table(
        title="Decoding, more rows",
        setting=f"a step after {scale.past} to {scale.past + scale.steps} tokens in every row",
        lines=tuple(lines),
    )


def read_prompts(sides: Sides) -> Table:
    """Return the time of pictures and prompts, up to the first new token."""
    scale, card, config = sides.scale, sides.card, sides.scale.config
    asked = prompts.captions(config, scale.batch)
    pixels_NCYX = prompts.pictures(config, scale.batch).to(card.device)
    works: dict[str, Callable[[], object]] = {PEER: _peer_prompts(sides, asked)}
    for precision in (Precision.BF16, Precision.INT8):
        ours = Ours(sides.runner(precision), "")
        works[f"ours {precision}"] = _prompts_by(ours, asked, pixels_NCYX)
    if card.is_gpu:
        compiled = CapturedRunner.of(sides.runner(Precision.BF16))
        compiled.vision = torch.compile(compiled.vision)  # type: ignore[assignment]
        works["ours bf16, vision by torch.compile"] = _prompts_by(
            Ours(compiled, ""), asked, pixels_NCYX
        )
    times = sides.take_turns(works)
    rate = spread([card.rate() for _ in range(scale.rounds)]).median
    operations = work.encode(config, "bf16", scale.batch).operations
    operations += work.prefill(config, "bf16", scale.batch, asked.length).operations
    lines = tuple(
        Line(
            name=name,
            seconds=spread(seconds),
            share=operations / rate / spread(seconds).median,
            faster=spread(ratios(times[PEER], seconds)),
        )
        for name, seconds in times.items()
    )
    best = max(line.share or 0 for line in lines if line.name.startswith("ours bf16"))
    return Table(
        title=f"Vision and prefill, {scale.batch} pictures",
        setting=f"pixels on the device to the first token of {asked.length}-token prompts; share "
        f"of the rate of a bf16 product, {rate / 1e12:,.0f} T/s",
        lines=lines,
        goals=(Goal(name="share of the product's rate", wanted=50, found=100 * best, unit="%"),),
    )


def caption_offline(sides: Sides) -> Table:
    """Return captions a second of many pictures, with transformers at its own batches."""
    scale, config = sides.scale, sides.scale.config
    lines, found = [], {}
    pixels_NCYX = prompts.pictures(config, scale.batch)
    asked = prompts.captions(config, scale.batch)
    with torch.device(sides.card.device):
        on_device = prompts.captions(config, scale.batch)

    def peer_captions() -> object:
        pixels = pixels_NCYX.to(sides.card.device)
        with torch.device(sides.card.device):
            return sides.peer.caption(pixels, on_device, scale.tokens)

    works: dict[str, Callable[[], object]] = {PEER: peer_captions}
    for precision in (Precision.BF16, Precision.INT8):
        works[f"ours {precision}"] = _captions_by(sides, precision, asked, pixels_NCYX)
    for name, each in works.items():
        each()
        count = scale.batch if name == PEER else scale.captions
        taken = sides.card.seconds(each) / count
        found[name] = taken
        lines.append(
            Line(
                name=name,
                seconds=spread([taken]),
                faster=spread(ratios([found[PEER]], [taken])),
                rate=f"{1 / taken:,.0f} captions/s",
            )
        )
    return Table(
        title="Captions, offline",
        setting=f"{scale.captions} pictures as pixels in the host's memory to {scale.tokens} "
        f"tokens each, by `Engine.generate` (transformers: `generate` of {scale.batch}); seconds "
        "are per caption",
        lines=tuple(lines),
        goals=(
            Goal(name="captions a second, bf16", wanted=300, found=1 / found["ours bf16"], unit=""),
        ),
    )


def bytes_of_step(config: ModelConfig, precision: Precision, rows: int, past: float) -> float:
    """Return the bytes that a step reads at least: all matrices, and each row's memory."""
    matrices = work.decoder_weights(config) + work.head_weights(config)
    memory = rows * past * 2 * config.text.width * config.text.num_layers
    return matrices * BYTES_PER_WEIGHT.get(precision, 2) + memory * 2


# --- who does it


def _steps(sides: Sides, precision: Precision, rows: int = 1) -> Callable[[], object]:
    """Return steps whose tokens stay on the device."""
    runner, scale = sides.runner(precision), sides.scale
    cache = runner.new_cache(rows, scale.past + scale.steps + 8)
    cache.memory.normal_()

    def steps() -> object:
        cache.lengths[:rows] = [scale.past] * rows
        return runner.decode_greedily(cache, 0, [5] * rows, scale.steps)

    return steps


def _read_steps(sides: Sides, precision: Precision) -> Callable[[], object]:
    """Return steps of which the host sees each token, as a scheduler does."""
    runner, scale = sides.runner(precision), sides.scale
    cache = runner.new_cache(1, scale.past + scale.steps + 8)
    cache.memory.normal_()

    def steps() -> object:
        cache.lengths[0], ids = scale.past, [5]
        for _ in range(scale.steps):
            ids = runner.decode(cache, 0, ids).ids_R.tolist()
        return ids

    return steps


def _peer_steps(sides: Sides, rows: int) -> Callable[[], object]:
    with torch.device(sides.card.device):
        state = sides.peer.filled(rows, sides.scale.past)

    def steps() -> object:
        with torch.device(sides.card.device):
            for _ in range(sides.scale.steps):
                sides.peer.step(state)
            sides.peer.rewind(state, sides.scale.past)
        return state

    return steps


def _peer_prompts(sides: Sides, asked: prompts.Prompts) -> Callable[[], object]:
    device = sides.card.device
    pixels_NCYX = prompts.pictures(sides.scale.config, len(asked.ids_BT)).to(device)
    there = prompts.Prompts(asked.ids_BT.to(device), asked.image_mask_BT.to(device))

    def read() -> object:
        with torch.device(device):
            return sides.peer.prefill(there, sides.peer.encode(pixels_NCYX))

    return read


def _prompts_by(
    ours: Ours, asked: prompts.Prompts, pixels_NCYX: torch.Tensor
) -> Callable[[], object]:
    return lambda: ours.prefill(asked, ours.encode(pixels_NCYX))


def _captions_by(
    sides: Sides, precision: Precision, asked: prompts.Prompts, pixels_NCYX: torch.Tensor
) -> Callable[[], object]:
    scale = sides.scale
    limits = Limits(
        max_rows=128,
        max_cache_bytes=scale.cache_bytes,
        max_prefix_bytes=0,
        max_prefill_tokens=scale.batch * asked.length,
    )
    engine = Engine(sides.runner(precision), prompts.vocabulary(scale.config), limits)

    def captions() -> Sequence[object]:
        latents: list[torch.Tensor] = []
        while len(latents) < scale.captions:
            latents += engine.encode_images(pixels_NCYX)
        ids, image_mask = asked.row(0)
        return engine.generate(
            [
                Request(
                    ids=ids,
                    image_mask=image_mask,
                    latents=(latents_QD,),
                    max_new_tokens=scale.tokens,
                    rules=GREEDY,
                )
                for latents_QD in latents[: scale.captions]
            ]
        )

    return captions
