"""The loader alone: samples a second of one core, from live scenes, tars, and files on disk."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.machine import Load
from benchmarks.training_cases import (
    FULL,
    SMALL,
    Artwork,
    Case,
    recipe_of,
    scenes_of,
    tokenizer,
)
from kosmos2.data.ledger import Ledger
from kosmos2.data.lessons import Teacher
from kosmos2.data.loader import Loading, steps
from kosmos2.data.mixture import Mixture
from kosmos2.data.opening import Reader, open_source
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import Source
from kosmos2.model import ModelConfig
from kosmos2.records.pictures import Pictures
from kosmos2.records.store import Writer
from kosmos2.training import build
from kosmos2.training.scale import PAIR_TARGETS, PAIR_TOKENS, Cluster, Work, estimate

BATCH = 16
SIDE = 504
"""Pixels at each side of stored pictures, JPEG of quality 90; the tower reads 224."""
PAPER = Work(
    samples=32, tokens=PAIR_TOKENS, targets=PAIR_TARGETS, micro_batch=32, kind="ddp",
    recompute="none",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One source, asked again and again in one process without workers."""

    name: str
    wall: tuple[float, ...]
    """Samples a second, one number a round."""
    cpu: tuple[float, ...]
    """Samples a second of this process's own time."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measure(artwork: Artwork, rounds: int, count: int, stored: int) -> dict[str, Any]:
    """Return the rates of all sources: `rounds` in turn of `count` samples each.

    `stored` pictures are written first; they are read from the system's cache of files.
    """
    words = tokenizer()
    with tempfile.TemporaryDirectory() as root, Load() as load:
        folder = Path(root)
        pixels = store(folder, artwork, stored)
        sources: dict[str, Source] = {
            "live scenes of 192 pixels, up to 6 lessons": scenes_of(_case(SMALL, 6), artwork),
            "live scenes of 224 pixels, up to 6 lessons": scenes_of(_case(FULL, 6), artwork),
        }
        for name, path, images in (
            ("records and pictures in WebDataset tars", folder / "tars", ""),
            ("records in JSON lines, pictures beside them", folder / "records.jsonl", str(folder)),
        ):
            recipe = SourceRecipe(kind="records", path=str(path), images=images)
            reader = Reader(Teacher(words, FULL.num_latents), FULL, folder / "cache")
            sources[name] = open_source(recipe, reader, seed=0)
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        for source in sources.values():
            asked(source, BATCH)  # opens files, fills caches
        for _ in range(rounds):
            for name, source in sources.items():
                seen[name].append(asked(source, count))
    lines = [
        Line(name=name, wall=tuple(w for w, _ in each), cpu=tuple(c for _, c in each)).to_dict()
        for name, each in seen.items()
    ]
    gpu = PAPER.samples / estimate(FULL, Cluster(gpus=1), PAPER).compute_seconds
    return {
        "lines": lines, "gpu_samples": gpu, "picture_kb": pixels, "others": load.others,
        "rounds": rounds, "count": count, "stored": stored,
    }  # fmt: skip


def asked(source: Source, count: int) -> tuple[float, float]:
    """Return samples a second, by the wall's clock and by the process's, of batches as trained."""
    mixture = Mixture([1.0], batch_size=BATCH, seed=0, first=0, stop=max(1, count // BATCH))
    ledger, loading = Ledger(), Loading(workers=0, multiple=16, max_tokens=4096)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in steps([source], mixture, loading, ledger):
        pass
    done = sum(ledger.used.values())
    return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)


def store(folder: Path, artwork: Artwork, count: int) -> float:
    """Write scenes as records: lines with files, and tars; return kilobytes of a picture."""
    vision = dataclasses.replace(FULL.vision, image_size=SIDE)
    recipe = recipe_of(_case(dataclasses.replace(FULL, vision=vision), 1), artwork.scenes)
    maker = build.scene_maker(recipe, recipe.sources[0], artwork.sprites, split="train")
    lines, tars = folder / "records.jsonl", folder / "tars"
    tars.mkdir()
    sizes = []
    with Writer(lines) as one, Writer(tars / "00000.tar", Pictures(folder)) as other:
        for index in range(count):
            scene = maker.scene(index)
            name = f"{index:06d}.jpg"
            Image.fromarray(scene.image).save(folder / name, quality=90)
            sizes.append((folder / name).stat().st_size / 1000)
            record = dataclasses.replace(scene.record(), image=name)
            one.write(record)
            other.write(record)
    return statistics.mean(sizes)


def _case(model: ModelConfig, lessons: int) -> Case:
    return Case(name="loader", title="", model=model, batch=BATCH, lessons=lessons, steps=1)
