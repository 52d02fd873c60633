"""Our trainer beside transformers in a plain loop, and the loader alone; some seven minutes.

    python -m benchmarks.training                    # on a CPU
    python -m benchmarks.training --device cuda      # full size, where there is a GPU of 80 GB
    python -m benchmarks.training --quick            # a walk through all of it that keeps nothing

Writes docs/results/training.json, training.md and training-curves.svg. What is measured anew takes
the place of what was there; the rest stays. Nobody else should use the machine meanwhile.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import training_loader
from benchmarks.machine import ROOT, stamp
from benchmarks.page import markdown
from benchmarks.scenes import prepared
from benchmarks.training_cases import ON_CPU, ON_GPU, Artwork, Case, Job, job_of
from benchmarks.training_page import EAGER, GOALS, LANES, PEER, curves, judged, lanes, page
from benchmarks.training_peer import IGNORED, Peer, examples, padded
from benchmarks.training_race import race
from kosmos2.training.scale import parameters

RESULTS = ROOT / "docs" / "results" / "training.json"
LOADER = "loader"
NAMES = (*(case.name for case in (*ON_CPU, *ON_GPU)), LOADER)
EAGER_STEPS = 6
MEMORY_STEPS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    results: Path | None = options.results or (None if options.quick else RESULTS)
    if not options.render:
        if not prepared():
            say("nothing was measured: no artwork here; `kosmos2 scenes prepare` gets it")
            return 1
        if options.device != "cpu" and not torch.cuda.is_available():
            say("nothing was measured: torch sees no GPU")
            return 1
        torch.set_num_threads(options.threads)
        quick, steps = options.quick, options.steps
        run = Run(Artwork.load(), options.device, quick=quick, steps=steps, results=results)
        run.run(_chosen(options))
    if results:
        found = read(results)
        results.with_suffix(".md").write_text(page(found), encoding="utf-8")
        if found["cases"]:
            picture = results.with_name(f"{results.stem}-curves.svg")
            picture.write_text(curves(found["cases"]), encoding="utf-8")
        say(f"written: {results.with_suffix('.md')}")
    return 0


class Run:
    """One run: where, how thoroughly, and what has been found so far."""

    def __init__(
        self, artwork: Artwork, device: str, *, quick: bool, steps: int, results: Path | None
    ) -> None:
        """`steps`: most steps of a case."""
        self.artwork = artwork
        self.steps = steps
        self.device = device
        self.quick = quick
        self.results = results
        self.found: dict[str, Any] = {"cases": {}}

    def run(self, names: Sequence[str]) -> dict[str, Any]:
        """Measure; every part is kept as soon as it is there."""
        for case in (*ON_CPU, *ON_GPU):
            if case.name in names:
                say(f"## {case.title}\n")
                self.found["cases"][case.name] = self._case(_small(case) if self.quick else case)
                say(markdown(LANES, lanes(self.found["cases"][case.name])) + "\n")
                self._keep()
        if LOADER in names:
            say("## The loader alone\n")
            rounds, count, stored = (1, 16, 32) if self.quick else (5, 64, 256)
            loader = training_loader.measure(self.artwork, rounds, count, stored)
            self.found[LOADER] = {**loader, "stamp": stamp().to_dict()}
            self._keep()
        say(markdown(GOALS, judged(self.found["cases"])))
        return self.found

    def _case(self, case: Case) -> dict[str, Any]:
        case = dataclasses.replace(case, steps=min(case.steps, self.steps))
        job = job_of(case, self.artwork, self.device, torch.get_num_threads())
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root) / "job"
            job.write(folder)
            measured = self._on_gpu(folder) if self.device != "cpu" else self._on_cpu(job, folder)
        return {**facts(job), **measured, "stamp": stamp().to_dict()}

    def _on_cpu(self, job: Job, folder: Path) -> dict[str, Any]:
        peers = {
            PEER: (Peer(job, folder, "sdpa"), job.case.steps),
            EAGER: (Peer(job, folder, "eager"), EAGER_STEPS),
        }
        found = race(job, peers)
        del peers
        if not self.quick:
            few = dataclasses.replace(job.case, steps=MEMORY_STEPS)
            job_of(few, self.artwork, self.device, job.threads).write(folder)
            alone = {name: by_itself(name, folder)["memory_gb"] for name in ("ours", PEER)}
            found["memory"] = alone
        return found

    def _on_gpu(self, folder: Path) -> dict[str, Any]:
        """Train each side in a process of its own: nobody shares a GPU, and memory is all."""
        return {
            "lanes": {name: by_itself(name, folder) for name in ("ours", PEER)},
            "card": torch.cuda.get_device_name(self.device),
        }

    def _keep(self) -> None:
        if not self.results:
            return
        before = read(self.results)
        kept = {**before, **self.found, "cases": {**before["cases"], **self.found["cases"]}}
        self.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def by_itself(name: str, folder: Path) -> dict[str, Any]:
    """Return what one side tells that trains the job of a folder in a fresh process."""
    module = "benchmarks.training_race" if name == "ours" else "benchmarks.training_peer"
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder)],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def facts(job: Job) -> dict[str, Any]:
    """Return what a case is, counted over the samples of its first step."""
    case = job.case
    rows = [each for row in job.samples(0) for each in examples(row)]
    batch = padded(rows)
    return {
        "title": case.title,
        "weights": parameters(case.model),
        "precision": case.precision,
        "batch": case.batch,
        "steps": case.steps,
        "rows": len(rows),
        "learnt": (batch.labels_BT != IGNORED).float().mean().item(),
        "padding": (batch.keep_BT == 0).float().mean().item(),
    }


def read(path: Path) -> dict[str, Any]:
    """Return the results so far."""
    if not path.is_file():
        return {"cases": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def say(text: str) -> None:
    """Write a line to the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _small(case: Case) -> Case:
    return dataclasses.replace(case, batch=2, steps=2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, or cuda, cuda:1, ...")
    parser.add_argument("--quick", action="store_true", help="two steps of two pictures")
    parser.add_argument("--only", metavar="A,B", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--steps", type=int, default=1000, help="most steps of a case")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    parser.add_argument(
        "--results", type=Path, metavar="JSON", help=f"default: {RESULTS.relative_to(ROOT)}"
    )
    parser.add_argument(
        "--render", action="store_true", help="write the page again from the results; no measuring"
    )
    return parser


def _chosen(options: argparse.Namespace) -> Sequence[str]:
    here, elsewhere = (ON_CPU, ON_GPU) if options.device == "cpu" else (ON_GPU, ON_CPU)
    if options.only is None:
        quick = here[:2] if options.quick else here
        loader = [LOADER] if options.device == "cpu" else []
        return [*(case.name for case in quick), *loader]
    chosen: list[str] = options.only.split(",")
    barred = {case.name for case in elsewhere}
    if unknown := [name for name in chosen if name not in NAMES or name in barred]:
        raise SystemExit(f"--only on {options.device} takes none of {','.join(unknown)}")
    return chosen


if __name__ == "__main__":
    raise SystemExit(main())
