"""A worker without a model: small files that depend on the unit alone, and faults on demand.

As a script it runs a job whose folder, driver and fault are named on the command line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kosmos2.shards import Counts, Done, Driver, JobFolder, Local, Pool, Ray, Summary, Unit, run

SETTINGS = {"inputs": "toy", "threshold": 0.5}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an item: `what` happens until it has happened `times` times."""

    what: str
    notes: Path
    times: int = 1000

    def happen(self) -> None:
        seen = len(list(self.notes.glob("*")))
        if seen < self.times:
            (self.notes / f"{seen}-{os.getpid()}").touch()
            if self.what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            while self.what == "hang":
                time.sleep(1)
            raise ValueError(f"item fails, time {seen + 1}")


class Toy:
    """Writes a line for each item and a file in a folder; faults happen where they are met."""

    def prepare(self, unit: Unit) -> list[str]:
        return [sha256(f"{unit.name} {item}".encode()).hexdigest() for item in unit.items]

    def run(self, unit: Unit, prepared: list[str], out: Path) -> Counts:
        assert not list(out.iterdir())
        for item in unit.items:
            if isinstance(item, Fault):
                item.happen()
        (out / "crops").mkdir()
        with (out / "records.jsonl").open("w") as stream:
            for number, text in enumerate(prepared):
                stream.write(json.dumps({"id": f"{unit.name}:{number}", "text": text}) + "\n")
                stream.flush()
                time.sleep(0.002)
        (out / "crops" / "first.bin").write_bytes(bytes.fromhex(prepared[0]) * 100)
        return {"records": len(prepared)}


class FaultsAhead(Toy):
    """Meets its faults while it prepares."""

    def prepare(self, unit: Unit) -> list[str]:
        for item in unit.items:
            if isinstance(item, Fault):
                item.happen()
        return super().prepare(unit)

    def run(self, unit: Unit, prepared: list[str], out: Path) -> Counts:
        plain = Unit(unit.name, tuple(i for i in unit.items if not isinstance(i, Fault)))
        return super().run(plain, prepared, out)


def units(count: int = 12, faults: dict[int, Fault] | None = None) -> list[Unit]:
    """Return units of three items, some with a fault among them."""
    every = []
    for number in range(count):
        items: tuple[object, ...] = (3 * number, 3 * number + 1, 3 * number + 2)
        if faults and number in faults:
            items = (*items, faults[number])
        every.append(Unit(f"{number:06}", items))
    return every


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of the finished parts by its path."""
    parts = folder / "parts"
    return {
        path.relative_to(parts).as_posix(): path.read_bytes()
        for path in sorted(parts.rglob("*"))
        if path.is_file()
    }


def job(
    folder: Path, driver: Driver, todo: list[Unit], make_worker: type[Toy] = Toy
) -> tuple[Summary, list[Done]]:
    """Return how a run ended and all that it told."""
    told: list[Done] = []
    with JobFolder.open(folder, SETTINGS) as opened:
        summary = run(todo, make_worker, opened, driver=driver, on_done=told.append)
    return summary, told


DRIVERS: dict[str, Driver] = {"local": Local(), "pool": Pool(2), "ray": Ray(2)}


def main() -> None:
    """Run the job: FOLDER DRIVER COUNT, then nothing, "hang" or a unit to die at, unmarked."""
    folder, driver, count, *fault = sys.argv[1:]
    faults = {}
    if fault == ["hang"]:
        faults[1] = Fault("hang", Path(folder) / "parts")
    elif fault:
        mark = JobFolder._mark

        def die(self: JobFolder, marker: Path, counts: object, files: object) -> None:
            if marker.stem == fault[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            mark(self, marker, counts, files)  # type: ignore[arg-type]

        JobFolder._mark = die  # type: ignore[method-assign]
    summary, _ = job(Path(folder), DRIVERS[driver], units(int(count), faults))
    sys.stdout.write(f"{summary.made} {summary.kept} {len(summary.quarantined)}\n")


if __name__ == "__main__":
    main()
