"""Questions a second of `kosmos2 eval` against loops of transformers that give the same answers.

    python -m benchmarks.evaluation            under six minutes; docs/results/evaluation.json, .md
    python -m benchmarks.evaluation --quick    few questions about few pictures; writes nothing
    python -m benchmarks.evaluation --page     the page again from the results

Illustrated scenes in the files of RefCOCO and of Flickr30k Entities, float32 on every side, greedy,
no repetition forbidden (`--set no_repeat=off`). Contestants take turns with the same questions,
from the files of the pictures to answers whose boxes are read; loading is left out:

    ours    what `kosmos2 eval` does between loading and scoring; predictions are written
    loop    transformers as its model card and the original's evaluators use such a model: for each
            question the picture is opened and encoded and the whole prompt read
    best    the fastest loop of transformers that we could write: each picture encoded once, and
            those of its questions in one batch whose prompts are of equal length. (Others cannot
            be: behind padding on the left transformers miscounts positions.)

Every round asks about pictures that no round before had, so that nothing is found again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import evaluation_page, peer, weights
from benchmarks.contest import Entry, race, timed
from benchmarks.evaluation_sides import EachOnce, Loop, Ours, Side, config_of, least, sides
from benchmarks.limits import Bandwidth, Products
from benchmarks.machine import ROOT, stamp
from kosmos2.evaluation.asking import pictures_of
from kosmos2.evaluation.benchmark import Problem, read_split
from kosmos2.evaluation.registry import benchmark_named
from kosmos2.model import ModelConfig, TextConfig, VisionConfig
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.pretrained import EMBEDDED, resolve

RESULTS = ROOT / "docs" / "results" / "evaluation.json"
RECIPE = "recipes/train/embedded.toml"
SPLIT = "iid"
BENCHMARKS = ("refcoco", "flickr30k")
TRAINED, RANDOM = "embedded", "a quarter of full size, random weights"
QUARTER = ModelConfig(
    text=TextConfig(width=1024, feedforward_width=4096, num_heads=16),
    vision=VisionConfig(width=640, feedforward_width=2560, num_layers=20, num_heads=10),
)
"""A quarter of the released model's parameters; the vocabulary is that of the embedded one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """One model on one benchmark: how much is asked, how often."""

    model: str
    benchmark: str
    rounds: int
    pictures: int
    """Other ones in each round."""
    tokens: int
    """At most so many are written for one answer."""


HEATS = (
    *(Heat(model=TRAINED, benchmark=b, rounds=5, pictures=24, tokens=128) for b in BENCHMARKS),
    *(Heat(model=RANDOM, benchmark=b, rounds=2, pictures=2, tokens=5) for b in BENCHMARKS),
)
QUICK = tuple(
    Heat(model=TRAINED, benchmark=b, rounds=2, pictures=4, tokens=128) for b in BENCHMARKS
)


@dataclass(frozen=True, slots=True)
class Meters:
    """What the limits are read with."""

    bandwidth: Callable[[], float]
    rates: Callable[[], Mapping[str, float]]


def run(
    heat: Heat, folder: Path, contestants: tuple[Ours, Loop, EachOnce], data: Path, meters: Meters
) -> dict[str, Any]:
    """Return the race of one heat, and how many answers are the same."""
    ours, loop, best = contestants
    benchmark = benchmark_named(heat.benchmark)
    read = read_split(benchmark, data, SPLIT, own_data=True)
    warm, *parts = rounds_of(read.problems, heat)
    pictures = pictures_of(read, read.problems)
    for side in contestants:
        side.begin(benchmark)
        side.answer(warm, pictures)

    def entry(side: Side) -> Entry:
        coming = iter(parts)
        return Entry(side.name, lambda: timed(lambda: side.answer(next(coming), pictures)), work=())

    entries = [entry(side) for side in contestants]
    found = race(entries, heat.rounds, meters.bandwidth, meters.rates)
    work = least(config_of(folder), loop, parts)
    found = replace(found, lanes=tuple(replace(lane, work=work) for lane in found.lanes))
    asked = [problem.id for part in parts for problem in part]
    said = {side.name: side.told() for side in contestants}
    return {
        **asdict(heat),
        "questions": [len(part) for part in parts],
        "written": sum(len(loop.wrote[id]) for id in asked),
        "same_prompts": sum(
            loop.read[problem.id] == best.read[problem.id] == ours.prompt(problem)
            for part in parts
            for problem in part
        ),
        "same": {
            name: sum(told[id] == said[ours.name][id] for id in asked)
            for name, told in said.items()
        },
        "race": found.to_dict(),
    }


def rounds_of(problems: Sequence[Problem], heat: Heat) -> list[list[Problem]]:
    """Return the questions about the first picture, to warm up with, and those of every round."""
    names = list(dict.fromkeys(problem.picture for problem in problems))
    needed = heat.rounds * heat.pictures + 1
    if len(names) < needed:
        raise SystemExit(f"{heat.benchmark}: {needed} pictures are needed, there are {len(names)}")
    starts = range(1, needed, heat.pictures)
    chosen = [{names[0]}, *({*names[start : start + heat.pictures]} for start in starts)]
    return [[problem for problem in problems if problem.picture in own] for own in chosen]


def make_model(folder: Path) -> None:
    """Write random weights at a quarter of the size, the same for every side."""
    tokenizer = Tokenizer.from_folder(resolve(EMBEDDED))
    text = replace(QUARTER.text, vocab_size=tokenizer.vocabulary.size)
    config = replace(QUARTER, text=text)
    network = weights.as_ours(peer.build(config).model.state_dict(), config)
    huggingface.save(network, tokenizer, folder, dtype=torch.float32)


def make_data(folder: Path, name: str, pictures: int) -> None:
    """Write scenes in the files of a benchmark."""
    words = ["scenes", "write", str(folder), "--as", name, "--recipe", RECIPE, "--split", SPLIT]
    words += ["--count", str(pictures)]
    subprocess.run(
        [sys.executable, "-m", "kosmos2", *words],
        check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def measure(heats: Sequence[Heat], work: Path, threads: int) -> dict[str, Any]:
    """Return all heats, with the moment and the machine."""
    torch.set_num_threads(threads)
    meters = Meters(Bandwidth().measure, Products().measure)
    for name in BENCHMARKS:
        # A scene without a question makes no picture: a few more than are needed.
        most = max(heat.pictures * heat.rounds for heat in heats if heat.benchmark == name)
        make_data(work / name, name, most + 8)
    found = []
    for model in dict.fromkeys(heat.model for heat in heats):
        folder = resolve(EMBEDDED)
        if model == RANDOM:
            folder = work / "quarter"
            make_model(folder)
        own = [heat for heat in heats if heat.model == model]
        contestants = sides(folder, own[0].tokens)
        torch.set_num_threads(threads)  # loading ours has chosen a number of its own
        for heat in own:
            found.append(run(heat, folder, contestants, work / heat.benchmark, meters))
            say("\n\n".join(evaluation_page.heat_lines(found[-1])) + "\n")
    command = "python -m benchmarks.evaluation"
    return {"heats": found, "command": command, "stamp": stamp().to_dict()}


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few questions; writes nothing")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on every side")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="JSON")
    options = parser.parse_args(arguments)
    if not options.page:
        with tempfile.TemporaryDirectory() as work:
            found = measure(QUICK if options.quick else HEATS, Path(work), options.threads)
        if options.quick:
            return
        evaluation_page.keep(options.results, "speed", found)
    evaluation_page.write(options.results)
    say(f"written: {options.results}, {options.results.with_suffix('.md')}")


if __name__ == "__main__":
    main()
