"""Our side: `Trainer` as `kosmos2 train` runs it, its steps timed one by one; and both in turn.

`python -m benchmarks.training_race FOLDER` trains our side alone and prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.limits import Products
from benchmarks.machine import Load, peak_memory
from benchmarks.training_cases import Fixed, Job, network, tokenizer
from kosmos2.data.lessons import Teacher
from kosmos2.training.meter import Progress
from kosmos2.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Taken:
    """One step of either side."""

    seconds: float
    cpu: float
    """Seconds of all threads of this process."""
    loss: float
    """In nats per target, text and location tokens alike."""
    mfu: float | None = None


class Clock:
    """Reads both clocks since it was last set."""

    def __init__(self) -> None:
        self.set()

    def set(self) -> None:
        """Begin again."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def taken(self, loss: float, mfu: float | None = None) -> Taken:
        """Return a step of the time since."""
        return Taken(time.perf_counter() - self._wall, time.process_time() - self._cpu, loss, mfu)


class Stepper(Protocol):
    """A peer in a race."""

    def step(self, number: int) -> Taken:
        """Take step 0, 1, ... of the job."""
        ...


class Ours:
    """The trainer, stopped for a moment between its steps."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        words = tokenizer()
        self.trainer = Trainer(
            job.recipe,
            folder,
            network(job.case.model, words).to(job.device),
            Teacher(words, job.recipe.model.num_latents),
            [Fixed(job.rows)],
        )
        first = words.vocabulary.first_location
        self.places = range(first, first + words.vocabulary.bins**2)

    def run(self, between: Callable[[int, Taken], None]) -> None:
        """Train to the recipe's end; `between` is called after every step, and is not timed."""
        clock = Clock()

        def report(progress: Progress) -> None:
            between(progress.step - 1, clock.taken(self._loss(progress), progress.mfu))
            clock.set()

        self.trainer.train(report, lambda step, network: None)

    def _loss(self, progress: Progress) -> float:
        samples = self.job.samples(progress.step - 1)
        targets = [target for row in samples for target in row.targets]
        located = sum(target in self.places for target in targets)
        text = len(targets) - located
        return (progress.text_loss * text + progress.location_loss * located) / len(targets)


def race(job: Job, peers: Mapping[str, tuple[Stepper, int]]) -> dict[str, Any]:
    """Return the steps of all sides; a peer takes so many of the first steps, in turn with ours."""
    lanes: dict[str, list[Taken]] = {"ours": [], **{name: [] for name in peers}}

    def between(number: int, taken: Taken) -> None:
        lanes["ours"].append(taken)
        for name, (peer, steps) in peers.items():
            if number < steps:
                lanes[name].append(peer.step(number))

    rate = product_rate(job.case.precision)
    with tempfile.TemporaryDirectory() as folder, Load() as load:
        ours = Ours(job, Path(folder))
        ours.trainer.peak = rate
        ours.run(between)
    told = {name: lane(taken) for name, taken in lanes.items()}
    return {"lanes": told, "others": load.others, "product_rate": rate}


def product_rate(precision: str) -> float:
    """Return operations a second of this processor's fastest large product: the peak of MFU."""
    products = Products()
    return max(products.measure()[precision] for _ in range(5))


def lane(taken: list[Taken]) -> dict[str, Any]:
    """Return steps as lists, one a number."""
    return {
        "seconds": [each.seconds for each in taken],
        "cpu": [each.cpu for each in taken],
        "losses": [each.loss for each in taken],
        "mfu": [each.mfu for each in taken],
    }


def memory(device: torch.device) -> float:
    """Return the most gigabytes that this process ever had, on the device where it trains."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_memory()["peak"]


def say_lane(taken: list[Taken], job: Job) -> None:
    """Print what a process that trained alone has to tell."""
    found = {**lane(taken), "memory_gb": memory(torch.device(job.device))}
    sys.stdout.write(json.dumps(found) + "\n")


def main() -> None:
    job = Job.read(Path(sys.argv[1]))
    torch.set_num_threads(job.threads)
    taken: list[Taken] = []
    with tempfile.TemporaryDirectory() as folder:
        Ours(job, Path(folder)).run(lambda number, each: taken.append(each))
    say_lane(taken, job)


if __name__ == "__main__":
    main()
