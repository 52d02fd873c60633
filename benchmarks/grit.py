"""The data-set builder, measured: `python -m benchmarks.grit`, an hour on two cores.

    python -m benchmarks.grit --scenes SCENES --work WORK
    python -m benchmarks.grit --scenes SCENES --work WORK --only language   (one part again)
    python -m benchmarks.grit --page                                       (the page alone)

Writes docs/results/grit.json, and docs/results/grit.md and its pictures from it. SCENES gets 2,000
scenes of the split `iid` where it has none; their artwork must have been fetched (`kosmos2 scenes
prepare`). Parts:

    language   captions a second beside bare spaCy
    drivers    what a run costs beside a plain loop
    rate       pairs a second from end to end, with the oracle; where the time goes
    memory     peaks of building and selecting 10,000, 50,000 and 200,000 pairs
    quality    precision and recall on the scenes; a sweep of the threshold
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import (
    grit_drivers,
    grit_flow,
    grit_language,
    grit_page,
    grit_pictures,
    grit_quality,
)
from benchmarks.machine import ROOT, Load, stamp

RESULTS = ROOT / "docs" / "results" / "grit.json"
SCENES = 2000
SEED = 5
RECIPE = "recipes/train/embedded.toml"
PUBLISHED = "grit-records.jsonl"
MEMORY = (10_000, 50_000, 200_000)
ROUNDS = {"language": 30, "forgetting": 15, "drivers": 5, "ray": 2, "rate": 2}

Found = dict[str, Any]


def language(options: argparse.Namespace) -> Found:
    """Measure on captions of scenes, and on the published ones where they are."""
    scenes = grit_language.scene_captions(options.scenes)
    sets = {"captions of scenes": scenes}
    if options.published.is_file():
        known = grit_language.grit_captions(options.published, 1000)
        sets["published captions of GRIT, varied"] = known
    rounds = ROUNDS["language"]
    return {"sets": {name: grit_language.measure(each, rounds) for name, each in sets.items()}}


def drivers(options: argparse.Namespace) -> Found:
    """Measure all drivers; Ray, which takes seconds to start, in fewer rounds."""
    pictures = options.work / "tiny"
    grit_flow.write_pictures(
        options.scenes, pictures, (grit_flow.TINY, grit_flow.TINY), grit_flow.FILES
    )
    paths = sorted(pictures.glob("*.jpg"))
    *quick, ray = grit_drivers.DRIVERS
    found = grit_drivers.measure(paths, ROUNDS["drivers"], quick)
    return {"drivers": [*found, *grit_drivers.measure(paths, ROUNDS["ray"], [ray])]}


def rate(options: argparse.Namespace) -> Found:
    """Measure pairs a second."""
    return grit_flow.rate(options.scenes, options.work, ROUNDS["rate"])


def memory(options: argparse.Namespace) -> Found:
    """Measure peaks."""
    return grit_flow.memory(options.scenes, options.work, MEMORY)


def quality(options: argparse.Namespace) -> Found:
    """Measure precision and recall; draw what is right and what is not."""
    found = grit_quality.measure(options.scenes, options.work)
    sheet = grit_pictures.sheet(options.scenes, options.work / "embedded")
    sheet.quantize(128).save(RESULTS.with_name(grit_page.SHEET), optimize=True)
    return found


PARTS: Mapping[str, Callable[[argparse.Namespace], Found]] = {
    "language": language,
    "drivers": drivers,
    "rate": rate,
    "memory": memory,
    "quality": quality,
}


def main() -> None:
    """Measure what is asked for and write the page."""
    options = _parser().parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for name in () if options.page else options.only or PARTS:
        options.work.mkdir(parents=True, exist_ok=True)
        _make_scenes(options.scenes)
        with Load() as load:
            found = PARTS[name](options)
        command = f"python -m benchmarks.grit --scenes SCENES --work WORK --only {name}"
        results[name] = {
            **found, "others": load.others, "command": command, "stamp": asdict(stamp()),
        }  # fmt: skip
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: done\n")
    if "quality" in results:
        chart = grit_pictures.chart(results["quality"]["sweep"])
        RESULTS.with_name(grit_page.CHART).write_text(chart, encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(grit_page.page(results), encoding="utf-8")


def _make_scenes(folder: Path) -> None:
    if not (folder / "records.jsonl").is_file():
        words = ["scenes", "sample", str(folder), "--count", str(SCENES), "--split", "iid"]
        words += ["--recipe", RECIPE, "--seed", str(SEED)]
        subprocess.run([sys.executable, "-m", "kosmos2", *words], check=True, cwd=ROOT)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grit", description=__doc__)
    parser.add_argument("--scenes", type=Path, default=Path("grit-scenes"))
    parser.add_argument("--work", type=Path, default=Path("grit-work"))
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument(
        "--published", type=Path, default=ROOT.parent / "shared" / "data" / PUBLISHED,
        help="records of GRIT, one JSON object with a caption a line",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
