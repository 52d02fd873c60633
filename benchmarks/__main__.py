"""`python -m benchmarks`: races, exactness, growth, memory, scenes; then the page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import exactness, footprint, growth, scenes
from benchmarks.limits import Bandwidth, Products
from benchmarks.lineup import Lineup, prepare_native
from benchmarks.machine import ROOT, stamp
from benchmarks.names import FP32, HEATS, is_native, is_ours
from benchmarks.page import REQUIREMENT_HEADER, markdown, page, terminal
from benchmarks.requirements import judged
from benchmarks.tables import TABLES, Setup
from kosmos2.kernels import native
from kosmos2.model import ModelConfig

RESULTS = ROOT / "docs" / "results" / "performance.json"
OTHERS = ("exactness", "growth", "memory", "scenes")
NAMES = (*(table.name for table in TABLES), *OTHERS)
QUICK = ("decode-1", "decode-8", "look", "caption", "exactness")


class Bench:
    """One run: which sections, how thoroughly, and what has been found so far."""

    def __init__(self, names: Sequence[str], *, quick: bool, results: Path | None) -> None:
        self.names = names
        self.quick = quick
        self.results = results
        self.sections: dict[str, Any] = {}

    def run(self) -> None:
        """Measure all sections; what takes much memory comes apart from the rest."""
        say(f"native kernels: {prepare_native()}")
        if [*self.names] != ["scenes"]:
            say("making weights")
            self._full_size(Lineup(ModelConfig()))
        if "scenes" in self.names:
            self._scenes()

    def _full_size(self, lineup: Lineup) -> None:
        setup = Setup(lineup, Bandwidth().measure, Products().measure, self.quick)
        exam = exactness.Exam(setup) if "exactness" in self.names else None
        for names in HEATS:
            if any(map(is_native, names)) and not native.available():
                continue
            lineup.keep_only(names)
            self._races(names, setup)
            if exam:
                self._exactness(exam, names)
            if "growth" in self.names:
                self._growth([name for name in names if is_ours(name)], setup)
        if exam:
            self.sections["exactness"]["tokens"] = [exactness.same_tokens("ours fp32", FP32, setup)]
            self._done("exactness", self.sections["exactness"])
        lineup.keep_only(())
        if "memory" in self.names:
            self._done("memory", footprint.measure(lineup.network))

    def _exactness(self, exam: exactness.Exam, names: Sequence[str]) -> None:
        found = self.sections.get("exactness", {}).get("agreement", [])
        known = {row["name"] for row in found}
        fresh = exam.agreement([name for name in names if name not in known])
        self._done("exactness", {"agreement": [*found, *fresh]})

    def _growth(self, names: Sequence[str], setup: Setup) -> None:
        found = self.sections.get("growth", {}).get("lines", [])
        known = {line["contestant"] for line in found}
        if fresh := [name for name in names if name not in known]:
            lines, others = growth.measure(fresh, setup)
            self._done("growth", {"lines": [*found, *lines], "others": others})

    def _races(self, names: Sequence[str], setup: Setup) -> None:
        for table in TABLES:
            if table.name not in self.names:
                continue
            say(f"{table.title}: {', '.join(names)}")
            if heat := table.run(names, setup):
                earlier = self.sections.get(table.name, {}).get("races", [])
                self._done(table.name, {"races": [*earlier, heat.to_dict()]})

    def _scenes(self) -> None:
        if scenes.prepared():
            self._done("scenes", scenes.measure())
        else:
            say("scenes: no artwork here, so they are left out; `kosmos2 scenes prepare` gets it")

    def _done(self, name: str, section: dict[str, Any]) -> None:
        """Print a section, and keep it with those of earlier runs."""
        self.sections[name] = {**section, "stamp": stamp().to_dict()}
        say(terminal(name, self.sections) + "\n")
        if self.results:
            kept = _read(self.results)["sections"] | self.sections
            ordered = {each: kept[each] for each in NAMES if each in kept}
            self.results.write_text(json.dumps({"sections": ordered}, indent=1) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    results: Path | None = options.results
    if results is None and not options.quick:
        results = RESULTS
    if not options.render:
        torch.set_num_threads(options.threads)
        bench = Bench(_chosen(options), quick=options.quick, results=results)
        bench.run()
        say(markdown(REQUIREMENT_HEADER, judged(bench.sections)))
    if results:
        results.with_suffix(".md").write_text(page(_read(results)), encoding="utf-8")
        say(f"written: {results}, {results.with_suffix('.md')}")
    return 0


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats, fewer sections")
    parser.add_argument("--only", metavar="A,B", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    parser.add_argument(
        "--results", type=Path, metavar="JSON", help=f"default: {RESULTS.relative_to(ROOT)}"
    )
    parser.add_argument(
        "--render", action="store_true", help="write the page again from the results; no measuring"
    )
    return parser


def _chosen(options: argparse.Namespace) -> Sequence[str]:
    if options.only is None:
        return QUICK if options.quick else NAMES
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in NAMES]:
        raise SystemExit(f"--only takes some of {','.join(NAMES)}, got {','.join(unknown)}")
    return [name for name in NAMES if name in chosen]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"sections": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


if __name__ == "__main__":
    raise SystemExit(main())
