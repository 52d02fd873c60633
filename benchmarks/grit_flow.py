"""`grit build` with the oracle from end to end: pairs a second, where time goes, peak memory.

python -m benchmarks.grit_flow build LIST TRUTH OUT      (each a process of its own)
python -m benchmarks.grit_flow select OUT
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import ROOT, peak_memory
from kosmos2 import config
from kosmos2.grit import worker
from kosmos2.grit.build import Build, build, recipe_of, select
from kosmos2.grit.detectors import Asked, Detector
from kosmos2.grit.filters import Hashes
from kosmos2.grit.language import Parser
from kosmos2.grit.phrases import Phrase, phrases
from kosmos2.grit.recipe import Detection, GritRecipe
from kosmos2.grit.select import Selection
from kosmos2.grit.steps import Discarded, Funnel, Looked, Pair, look
from kosmos2.records.jsonl import text_of
from kosmos2.shards import Local
from kosmos2.sources.inputs import Looking, items
from kosmos2.sources.places import read as bytes_at
from kosmos2.sources.rows import Item

PHOTO = (640, 480)
"""Pixels of the pictures whose pairs a second are told."""
TINY = 48
"""Pixels of the pictures of the runs whose memory is looked at."""
FILES = 256
SHORT, LONG = 512, 2560
"""Pairs of two runs; their difference is pairs alone, without loading and imports."""
TOGETHER = worker.together(GritRecipe())

Found = dict[str, Any]


# --- what is built from


def write_pictures(scenes: Path, out: Path, size: tuple[int, int], count: int) -> None:
    """Write scenes as JPEGs of a size, with grain so that they have as many bytes as photos."""
    out.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    for number, row in enumerate(islice(_rows(scenes), count)):
        image = Image.open(scenes / row["image"]).convert("RGB").resize(size)
        grain = draw.normal(0, 7, (size[1], size[0], 1))
        pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(out / f"{number:05d}.jpg", quality=88)


def write_list(
    scenes: Path, pictures: Path, out: Path, count: int, caption: Callable[[str, str], str]
) -> None:
    """Write so many pairs of scenes' captions and pictures; they come again and again.

    An id comes again with its picture, so that the oracle needs to know few. `caption` makes one
    of a scene's and of a word that no other has: a parser may not remember all words of the web.
    """
    known = list(islice(_rows(scenes), FILES))
    draw = random.Random(0)
    with out.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = known[number % len(known)]
            text = caption(row["caption"], f"x{number}{draw.choice('abcdefgh')}")
            place = str((pictures / f"{number % len(known):05d}.jpg").absolute())
            line = {"id": row["id"], "image": place, "caption": text}
            file.write(json.dumps(line) + "\n")


def whole(caption: str, word: str) -> str:
    """Return a scene's caption and the word."""
    return f"{caption} no. {word}"


def short(caption: str, word: str) -> str:
    """Return a caption of four words, so that hundreds of thousands are parsed in minutes."""
    return f"An image of {word}"


def _rows(scenes: Path) -> Iterator[dict[str, Any]]:
    with (scenes / "records.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _recipe(truth: Path) -> GritRecipe:
    return GritRecipe(detection=Detection(name="oracle", model=str(truth)))


# --- processes of their own


def child(*words: str) -> Found:
    """Run this file in a fresh process and return what it found."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.grit_flow", *words],
        check=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def built(source: Path, truth: Path, out: Path) -> Found:
    """Build as the command does; return seconds, the processor's seconds and the peak in GB."""
    job = Build(source=str(source), out=out, recipe=_recipe(truth), driver=Local(), anew=True)
    begun, used = time.perf_counter(), time.process_time()
    selected = build(job, lambda done: None, lambda count: None)
    return {
        "pairs": selected.funnel.pairs.entered,
        "records": selected.funnel.pairs.left,
        "units": selected.units,
        "seconds": time.perf_counter() - begun,
        "used": time.process_time() - used,
        "peak": peak_memory()["peak"],
    }


def chosen(out: Path) -> Found:
    """Choose records again as `grit select` does."""
    recipe = config.changed(recipe_of(out), ["linking.threshold=0.6"])
    begun = time.perf_counter()
    selected = select(out, recipe)
    return {
        "pairs": selected.funnel.pairs.entered,
        "seconds": time.perf_counter() - begun,
        "peak": peak_memory()["peak"],
    }


# --- sections


def rate(scenes: Path, work: Path, rounds: int) -> Found:
    """Return pairs a second, and a second of one core, with pictures like photos."""
    work.mkdir(parents=True, exist_ok=True)
    write_pictures(scenes, work / "photos", PHOTO, FILES)
    truth = scenes / "records.jsonl"
    wall, cores = [], []
    for _ in range(rounds):
        runs = []
        for count in (SHORT, LONG):
            write_list(scenes, work / "photos", work / "photos.jsonl", count, whole)
            runs.append(child("build", str(work / "photos.jsonl"), str(truth), str(work / "out")))
        short, long = runs
        wall.append((LONG - SHORT) / (long["seconds"] - short["seconds"]))
        cores.append((LONG - SHORT) / (long["used"] - short["used"]))
    return {
        "wall": wall,
        "core": cores,
        "stages": stages(work / "photos.jsonl", truth, SHORT),
        "pictures": f"JPEGs of {PHOTO[0]} x {PHOTO[1]}",
        "pairs": LONG - SHORT,
    }


def stages(source: Path, truth: Path, count: int) -> dict[str, float]:
    """Return seconds of a processor that a pair takes in each stage, one after the other."""
    recipe = _recipe(truth)
    parser, detector = Parser(recipe.language), worker.load(recipe.detection)
    list(parser.parse(["a dog"]))
    found = list(islice(items(str(source), Looking(captions=True)), count))
    timed = _Timed()
    data = timed("reading files", lambda: [bytes_at(each.place) for each in found if each.place])
    pairs = timed("decoding and hashing pictures", lambda: _pairs(found, data))
    parses = timed("parsing captions", lambda: _parsed(parser, pairs))
    spans = timed("noun chunks and expressions", lambda: [
        [each for each in phrases(parse, recipe.phrases) if isinstance(each, Phrase)]
        for parse in parses
    ])  # fmt: skip
    timed("asking the oracle", lambda: _detected(detector, pairs, spans))
    looked = _looked(pairs, recipe, parser, detector)
    timed("writing what was found", lambda: _written(looked))
    path = source.with_suffix(".gz")
    path.write_bytes(_written(looked))
    again = timed("reading it again", lambda: list(worker.read_looked(path)))
    selection = Selection(recipe, None)
    records = timed("linking", lambda: [
        selection.record(each) for each in again if isinstance(each, Looked)
    ])  # fmt: skip
    timed("writing records", lambda: [
        text_of(each) for each in records if not isinstance(each, Discarded)
    ])  # fmt: skip
    return {name: seconds / count for name, seconds in timed.seconds.items()}


class _Timed:
    """Calls functions and remembers the processor's seconds of each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        begun = time.process_time()
        result = work()
        self.seconds[name] = time.process_time() - begun
        return result


def _pairs(found: Iterable[Item], data: Iterable[bytes]) -> list[Pair]:
    made = [worker._pair(item, each, ROOT) for item, each in zip(found, data, strict=True)]
    return [each for each in made if isinstance(each, Pair)]


def _parsed(parser: Parser, pairs: Sequence[Pair]) -> list[Any]:
    """Parse as many at a time as a worker does."""
    captions = [pair.caption for pair in pairs]
    starts = range(0, len(captions), TOGETHER)
    return [parse for n in starts for parse in parser.parse(captions[n : n + TOGETHER])]


def _detected(detector: Detector, pairs: Sequence[Pair], spans: Sequence[list[Phrase]]) -> None:
    detector.detect(
        [
            Asked(
                id=pair.id,
                image=pair.image,
                caption=pair.caption,
                spans=tuple(phrase.chunk for phrase in kept),
            )
            for pair, kept in zip(pairs, spans, strict=True)
        ]
    )


def _looked(
    pairs: Sequence[Pair], recipe: GritRecipe, parser: Parser, detector: Detector
) -> list[Looked | Discarded]:
    return look(pairs, recipe, parser, detector, Funnel())


def _written(looked: Sequence[Looked | Discarded]) -> bytes:
    lines = b"".join(worker._line(each) for each in looked)
    return gzip.compress(lines, compresslevel=5, mtime=0)


def memory(scenes: Path, work: Path, counts: Sequence[int]) -> Found:
    """Return the peaks of building and of selecting so many pairs, and what they leave on disk."""
    work.mkdir(parents=True, exist_ok=True)
    write_pictures(scenes, work / "tiny", (TINY, TINY), FILES)
    rows = []
    for count in counts:
        write_list(scenes, work / "tiny", work / "tiny.jsonl", count, short)
        words = [str(work / "tiny.jsonl"), str(scenes / "records.jsonl"), str(work / "out")]
        made = child("build", *words)
        again = child("select", str(work / "out"))
        rows.append({**made, "select": again, "disk": disk(work / "out", made)})
    return {"rows": rows, "hash_bytes": {str(bits): hash_bytes(bits) for bits in (0, 4)}}


def disk(out: Path, made: Found) -> dict[str, float]:
    """Return bytes a pair in each kind of file, bytes a marker, and files and folders a unit."""
    looked, pairs = out / "looked", made["pairs"]
    markers = list((looked / "done").iterdir())
    parts = list((looked / "parts").rglob("*"))
    return {
        "list": (looked / "parts" / "pairs.jsonl").stat().st_size / pairs,
        "looked": sum(p.stat().st_size for p in parts if p.name == worker.LOOKED) / pairs,
        "records": (out / "records.jsonl").stat().st_size / max(made["records"], 1),
        "marker": sum(path.stat().st_size for path in markers) / len(markers),
        "inodes": (len(markers) + len(parts) - 2) / made["units"],
    }


def hash_bytes(bits: int, count: int = 50_000) -> float:
    """Return the bytes that remembering one picture's hash takes, to find those so near."""
    draw = random.Random(0)
    known = Hashes(bits)
    tracemalloc.start()
    for _ in range(count):
        known.add(draw.getrandbits(64))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / count


def main(words: Sequence[str]) -> None:
    """Do what a child process is asked, and print it as JSON."""
    what, *paths = words
    found = built(*map(Path, paths)) if what == "build" else chosen(Path(paths[0]))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
