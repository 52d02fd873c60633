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
import itertools
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import evaluation_page
from benchmarks.evaluation import RECIPE, RESULTS, SPLIT
from benchmarks.evaluation_page import PICTURE
from benchmarks.machine import ROOT, stamp
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.evaluation.scene_sets import FORMATS, WITH_EXAMPLES
from kosmos2.weights.pretrained import EMBEDDED

SCENES = 300
EXAMPLES = 40
"""Scenes of training beside them, for `--shots`."""
LIMIT = 1_500
"""Questions of one command."""
FORM_OF = {
    "refcocog-reg": "refcocog",
    "refcocog-round-trip": "refcocog",
    "flickr30k-grounded": "flickr30k",
    "absent": "pope",
}
"""Benchmark → whose files it reads, where these are not its own."""
FURTHER: Mapping[str, Sequence[Sequence[str]]] = {
    "refcocog-reg": (("--shots", "2"), ("--shots", "4")),
    "vqav2": (("--shots", "4"),),
    "absent": (("--answer", "absent"),),
}
"""Benchmark → what it is run with once more."""
WITHOUT: Mapping[str, str] = {
    "classify": "scenes show several things",
    "classify-asked": "as before",
    "classify-described": "as before",
    "raven": "no row of scenes goes on",
}
"""Benchmark → why no scenes are written for it; small files made by tests stand in."""
CALIBRATED = ("refcoco", "flickr30k")
PRECISION = "fp32"
"""So that another machine gives the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is asked."""

    scenes: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command."""

    benchmark: str
    further: Sequence[str] = ()

    @property
    def name(self) -> str:
        return " ".join([self.benchmark, *self.further])

    @property
    def folder(self) -> str:
        """Return where its results go."""
        return f"results/{self.name.replace(' ', '')}"

    def words(self, size: Size) -> list[str]:
        """Return the command."""
        form = FORM_OF.get(self.benchmark, self.benchmark)
        words = ["eval", self.benchmark, "--data", form, "--split", SPLIT, "--own-data"]
        return [*words, "--dtype", PRECISION, "--limit", str(size.limit), *self.further]


def with_scenes() -> list[str]:
    """Return the benchmarks that scenes can be written for."""
    return [name for name in BENCHMARKS if FORM_OF.get(name, name) in FORMATS]


def runs_of(names: Sequence[str]) -> list[Run]:
    """Return all commands of some benchmarks."""
    return [
        Run(benchmark=name, further=further)
        for name in names
        for further in ((), *FURTHER.get(name, ()))
    ]


def scenes_words(form: str, size: Size) -> list[str]:
    """Return the command that writes scenes as somebody's files."""
    words = ["scenes", "write", form, "--as", form, "--recipe", str(ROOT / RECIPE)]
    words += ["--split", SPLIT, "--count", str(size.scenes)]
    return [*words, "--examples", str(EXAMPLES)] if form in WITH_EXAMPLES else words


def evaluate(run: Run, out: Path, model: str, size: Size) -> dict[str, Any]:
    """Run one command; return what it said and how long it took."""
    form = FORM_OF.get(run.benchmark, run.benchmark)
    if not (out / form).is_dir():
        command(out, *scenes_words(form, size))
    chosen = [] if model == EMBEDDED else ["--model", model]
    begun = time.monotonic()
    command(out, *run.words(size), "--out", run.folder, *chosen)
    results = json.loads((out / run.folder / "results.json").read_text(encoding="utf-8"))
    benchmark = BENCHMARKS[run.benchmark]
    return {
        "name": run.name,
        "command": shlex.join(["kosmos2", *run.words(size)]),
        "title": benchmark.title,
        "protocol": f"version {benchmark.version}: {benchmark.protocol}",
        "weights": results["run"]["weights"],
        "pictures": results["pictures"],
        "seconds": round(time.monotonic() - begun, 1),
        "numbers": {
            metric: {**number, "title": benchmark.titles[metric]}
            for metric, number in results["numbers"].items()
        },
    }


def calibrate(out: Path, size: Size, results: Path) -> dict[str, Any]:
    """Judge the scores of the boxes that earlier commands gave; keep the picture of it."""
    words = ["eval", "calibration", *(f"results/{name}" for name in CALIBRATED)]
    words += [word for name in CALIBRATED for word in ("--data", name)]
    words += ["--own-data", "--limit", str(size.limit), "--out", "results/calibration"]
    command(out, *words)
    folder = out / "results" / "calibration"
    picture = results.with_name(PICTURE)
    shutil.copyfile(folder / "reliability.svg", picture)
    page = (folder / "calibration.md").read_text(encoding="utf-8")
    return {"command": shlex.join(["kosmos2", *words]), "table": first_table(page)}


def first_table(page: str) -> str:
    """Return the lines of the first table of a page."""
    lines = page.split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return "\n".join(rows)


def command(folder: Path, *words: str) -> None:
    """Run `kosmos2` in a folder."""
    subprocess.run(
        [sys.executable, "-m", "kosmos2", *words], check=True, cwd=folder,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def section(runs: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """Return what the page says of all commands."""
    written = shlex.join(["kosmos2", *scenes_words("FORM", size)]).replace(f"{ROOT}/", "")
    return {
        "runs": [runs[run.name] for run in runs_of(with_scenes()) if run.name in runs],
        "split": SPLIT,
        "written": written,
        "without": dict(WITHOUT),
        "command": "python -m benchmarks.evaluation_scenes --out FOLDER "
        f"--scenes {size.scenes} --limit {size.limit}",
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
    parser.add_argument("--only", action="append", choices=with_scenes())
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="JSON")
    options = parser.parse_args(arguments)
    before = evaluation_page.read(options.results).get("scenes", {}) if options.only else {}
    told = {each["name"]: each for each in before.get("runs", ())}
    size = Size(scenes=options.scenes, limit=options.limit)
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for run in runs_of(options.only or with_scenes()):
        told[run.name] = evaluate(run, out, options.model, size)
        say(f"{run.name}: {told[run.name]['seconds']:.0f} s")
        evaluation_page.keep(options.results, "scenes", section(told, size))
    if all((out / "results" / name).is_dir() for name in CALIBRATED):
        found = calibrate(out, size, options.results)
        evaluation_page.keep(options.results, "calibration", found)
    evaluation_page.write(options.results)
    say(f"written: {options.results}, {options.results.with_suffix('.md')}")


if __name__ == "__main__":
    main()
