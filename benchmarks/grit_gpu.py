"""Pictures a second of a detector on a GPU: `python -m benchmarks.grit_gpu`, some five minutes.

A Grounding DINO of the size of its smallest checkpoint, made from its configuration with random
weights (speed does not depend on the values), through the detector of `grit build`: pictures
scaled to 800 pixels ahead in threads, fp16. Writes docs/results/grit-gpu.md. Without a GPU it says
what is missing and ends with 1; `--tiny --device cpu` walks the same code over a toy and writes
nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_card import Card, Probe, missing
from benchmarks.machine import ROOT
from benchmarks.page import markdown
from benchmarks.samples import Spread, spread
from kosmos2.grit.detect import load
from kosmos2.grit.detectors import Asked, Detector
from kosmos2.grit.recipe import Detection

PAGE = ROOT / "docs" / "results" / "grit-gpu.md"
CAPTION = "a brown dog and two small cats on the red sofa of a bright room"
PHRASES = ("a brown dog", "two small cats", "the red sofa", "a bright room")
WORDS = sorted({*CAPTION.split()})
TOKENS = 30_522
"""As many as BERT (uncased) has."""
GOALS = (("A100-class", 24.0), ("H100", 56.0))
"""Pictures a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the network and the measurement are."""

    network: dict[str, Any]
    """What differs from the smallest checkpoint's configuration, which is the library's default."""
    shortest: int
    longest: int
    """Pixels to which pictures are scaled."""
    batches: tuple[int, ...]
    pictures: int
    """Of one round."""
    rounds: int
    probe: Probe


FULL = Scale(
    network={},
    shortest=800,
    longest=1333,
    batches=(1, 4, 8, 16),
    pictures=256,
    rounds=5,
    probe=Probe(1 << 32, 8192),
)


def tiny() -> Scale:
    """Return a toy of the same make."""
    from transformers import BertConfig, SwinConfig

    network = {
        "backbone_config": SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2],
            window_size=4, out_features=["stage2", "stage3", "stage4"],
        ),
        "text_config": BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=256,
        ),
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "num_queries": 10, "disable_custom_kernels": True,
    }  # fmt: skip
    probe = Probe(1 << 20, 64)
    return Scale(
        network=network, shortest=64, longest=128, batches=(1, 2), pictures=4, rounds=2, probe=probe
    )


def save(scale: Scale, folder: Path) -> int:
    """Write network, tokenizer and processor as a checkpoint's folder; return its parameters."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
    )

    names = {number: f"[unused{number}]" for number in range(TOKENS)}
    names |= {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    names |= {1012: ".", 1029: "?"} | {2000 + n: word for n, word in enumerate(WORDS)}
    tokens = BertWordPieceTokenizer({name: n for n, name in names.items()}, lowercase=True)
    tokenizer = BertTokenizerFast(
        tokenizer_object=tokens._tokenizer, unk_token="[UNK]", sep_token="[SEP]",
        pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]",
    )  # fmt: skip
    torch.manual_seed(0)
    network = GroundingDinoForObjectDetection(GroundingDinoConfig(**scale.network))
    size = {"shortest_edge": scale.shortest, "longest_edge": scale.longest}
    for part in (network, tokenizer, GroundingDinoImageProcessorPil(size=size)):
        part.save_pretrained(folder)
    return sum(parameter.numel() for parameter in network.parameters())


def questions(count: int) -> list[Asked]:
    """Return so many pictures of 640 x 480 with the caption and its four phrases."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (count, 6, 8, 3), np.uint8)
    starts = [CAPTION.index(words) for words in PHRASES]
    spans = tuple((at, at + len(words)) for at, words in zip(starts, PHRASES, strict=True))
    return [
        Asked(
            id=str(number),
            image=Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC),
            caption=CAPTION,
            spans=spans,
        )
        for number, pixels in enumerate(coarse)
    ]


def rate(detector: Detector, asked: Sequence[Asked], card: Card, rounds: int) -> Spread:
    """Return pictures a second, after one round that is not counted."""
    seconds = []
    for _ in range(rounds + 1):
        card.wait()
        begun = time.perf_counter()
        detector.detect(asked)
        card.wait()
        seconds.append(time.perf_counter() - begun)
    return spread([len(asked) / each for each in seconds[1:]])


def busy(detector: Detector, asked: Sequence[Asked], card: Card) -> float | None:
    """Return the share of the time in which a kernel ran, 0 to 1; None where there is no GPU.

    Kernels of one stream follow one another, so that their times may be added up.
    """
    if not card.is_gpu:
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        begun = time.perf_counter()
        detector.detect(asked)
        card.wait()
        seconds = time.perf_counter() - begun
    return sum(each.self_device_time_total for each in profile.key_averages()) / 1e6 / seconds


def measure(scale: Scale, device: str, dtype: str) -> list[str]:
    """Return the page's blocks."""
    card = Card(torch.device(device), scale.probe)
    asked = questions(scale.pictures)
    rows, best = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        parameters = save(scale, Path(folder))
        for size in scale.batches:
            settings = Detection(
                name="grounding-dino", model=folder, device=device, dtype=dtype, batch_size=size
            )
            detector = load(settings)
            found, share = rate(detector, asked, card, scale.rounds), busy(detector, asked, card)
            best = max(best, found.median)
            shown = "–" if share is None else f"{share:.0%}"
            spreads = f"{found.median:.1f} ({found.low:.1f} – {found.high:.1f})"
            rows.append([str(size), spreads, shown])
    goals = [
        [name, f"≥ {goal:g}", f"{best:.1f}", "met" if best >= goal else "**missed**"]
        for name, goal in GOALS
    ]
    return [
        "# A grounding detector on a GPU, measured",
        "\n".join(f"- {line}" for line in card.facts()),
        f"Grounding DINO of {parameters / 1e6:.0f} M random parameters, {dtype}, the shorter side "
        f"{scale.shortest} pixels, {len(PHRASES)} phrases, through the detector of `grit build`; "
        f"{scale.pictures} pictures a round, {scale.rounds} rounds.",
        markdown(("batch", "pictures/s (quartiles)", "GPU busy"), rows),
        markdown(("goal for", "pictures/s", "measured", ""), goals),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grit_gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu only to walk")
    parser.add_argument("--tiny", action="store_true", help="a toy and few rounds, no page")
    parser.add_argument("--dtype", default="fp16", choices=["fp16", "bf16", "fp32"])
    options = parser.parse_args(arguments)
    is_cpu = options.device == "cpu"
    if not is_cpu and (lack := missing()):
        sys.stdout.write(f"nothing was measured: {lack}\n")
        return 1
    scale = tiny() if options.tiny else FULL
    page = "\n\n".join(measure(scale, options.device, "fp32" if is_cpu else options.dtype)) + "\n"
    sys.stdout.write(page)
    if not (is_cpu or options.tiny):
        commands = "```bash\nmake bench-grit-gpu\n```\n"
        PAGE.write_text(f"{page}\n{commands}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
