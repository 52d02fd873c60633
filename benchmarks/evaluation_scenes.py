"""Every benchmark's command on illustrated scenes in the benchmark's own files.

    python -m benchmarks.evaluation_scenes --out FOLDER     some ten minutes on two cores
    python -m benchmarks.evaluation_scenes --out FOLDER --scenes 8 --limit 20 --only refcoco

Writes scenes of the split `iid`, like those that the embedded model learnt from but others, runs
`kosmos2 eval` on them, and puts what it says into docs/results/evaluation.json and .md. FOLDER
keeps all predictions, tables and galleries. Scenes that are there already are used again, and
answers of the same weights too; `--scenes` must then be the same.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import evaluation_page
from benchmarks.evaluation import RECIPE, RESULTS, SPLIT
from benchmarks.machine import ROOT, stamp
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.scene_sets import FORMATS

SCENES = 300
LIMIT = 2_000
"""Questions of one command."""
FORM_OF = {"refcocog-reg": "refcocog", "absent": "pope"}
"""Benchmark → whose files it reads, where these are not its own."""
PRECISION = "fp32"
"""So that another machine gives the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is asked."""

    scenes: int
    limit: int


def names() -> list[str]:
    """Return the benchmarks whose files scenes can be written in."""
    return [name for name in BENCHMARKS if FORM_OF.get(name, name) in FORMATS]


def write_scenes(form: str, out: Path, size: Size) -> None:
    """Write scenes as somebody's files, if they are not there."""
    if not (out / form).is_dir():
        run(out, "scenes", "write", form, "--as", form, "--recipe", str(ROOT / RECIPE),
            "--split", SPLIT, "--count", str(size.scenes))  # fmt: skip


def evaluate(name: str, out: Path, model: str, size: Size) -> dict[str, Any]:
    """Run one command; return what it said and how long it took."""
    form = FORM_OF.get(name, name)
    write_scenes(form, out, size)
    words = ["eval", name, "--data", form, "--split", SPLIT, "--own-data", "--dtype", PRECISION]
    words += ["--limit", str(size.limit)]
    chosen = [] if model == "embedded" else ["--model", model]
    begun = time.monotonic()
    run(out, *words, "--out", f"results/{name}", *chosen)
    results = json.loads((out / "results" / name / "results.json").read_text(encoding="utf-8"))
    benchmark = BENCHMARKS[name]
    return {
        "name": name,
        "command": shlex.join(["kosmos2", *words]),
        "title": benchmark.title,
        "version": benchmark.version,
        "protocol": benchmark.protocol,
        "weights": results["run"]["weights"],
        "pictures": results["pictures"],
        "seconds": round(time.monotonic() - begun, 1),
        "numbers": {
            metric: {**number, "title": benchmark.titles[metric]}
            for metric, number in results["numbers"].items()
        },
    }


def run(folder: Path, *words: str) -> None:
    """Run `kosmos2` in a folder."""
    subprocess.run(
        [sys.executable, "-m", "kosmos2", *words], check=True, cwd=folder,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def section(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page says of all commands."""
    return {
        "runs": [runs[name] for name in names() if name in runs],
        "split": SPLIT,
        "command": "python -m benchmarks.evaluation_scenes --out FOLDER",
        "stamp": stamp().to_dict(),
    }


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the commands and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation_scenes", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--only", action="append", choices=names())
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="JSON")
    options = parser.parse_args(arguments)
    before = evaluation_page.read(options.results).get("scenes", {}) if options.only else {}
    runs = {each["name"]: each for each in before.get("runs", ())}
    size = Size(scenes=options.scenes, limit=options.limit)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only or names():
        runs[name] = evaluate(name, options.out.resolve(), options.model, size)
        say(f"{name}: {runs[name]['seconds']:.0f} s")
        evaluation_page.keep(options.results, "scenes", section(runs))
    evaluation_page.write(options.results)
    say(f"written: {options.results}, {options.results.with_suffix('.md')}")


if __name__ == "__main__":
    main()
