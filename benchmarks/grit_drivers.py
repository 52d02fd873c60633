"""What a driver costs: a run of `shards` beside a plain loop over the same worker."""

from __future__ import annotations

import gzip
import hashlib
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.samples import spread
from kosmos2.shards import Driver, JobFolder, Local, Pool, Ray, Unit, run
from kosmos2.sources.places import Place, bytes_of, gather
from kosmos2.sources.rows import Item

PAIRS = 1440
"""Pairs of a unit: a minute's work of a detector that does 24 pictures a second."""
FEW, MANY = 4, 12
"""Units of a short and of a long run. Their difference is units alone, without what a run costs
once (processes, imports); even, because two workers share them."""
SHARD = 60.0
"""Seconds of the unit that overhead is a share of."""
ALLOWED = 0.02

Found = dict[str, Any]


class Reader:
    """Reads the picture of each pair, hashes it and writes a line: real files, and no detector."""

    def prepare(self, unit: Unit) -> list[bytes]:
        places = [item.place for item in unit.items]
        return [bytes_of(each) for each in gather(places)]

    def run(self, unit: Unit, prepared: Sequence[bytes], out: Path) -> Mapping[str, int]:
        with gzip.GzipFile(out / "looked.jsonl.gz", "wb", compresslevel=5, mtime=0) as file:
            for item, data in zip(unit.items, prepared, strict=True):
                row = {**asdict(item), "sha256": hashlib.sha256(data).hexdigest()}
                file.write((json.dumps(row) + "\n").encode())
        return {"pairs.in": len(unit.items), "pairs.out": len(unit.items)}


DRIVERS: Mapping[str, tuple[Driver, int]] = {
    "local": (Local(), 1),
    "pool, 1 worker": (Pool(1), 1),
    "pool, 2 workers": (Pool(2), 2),
    "ray, 1 worker": (Ray(1), 1),
}
"""Each with the number of plain loops at once that it is compared with."""


def measure(pictures: Sequence[Path], rounds: int, names: Sequence[str]) -> list[Found]:
    """Return for each driver what a unit takes beyond the plain loop, and what starting takes."""
    units = list(_units(pictures))
    seconds: dict[str, list[tuple[float, float]]] = {}
    loops = sorted({DRIVERS[name][1] for name in names})
    for _ in range(rounds):
        for count in loops:
            timed = (_plain(units[:FEW], count), _plain(units[FEW:], count))
            seconds.setdefault(f"plain {count}", []).append(timed)
        for name in names:
            driver = DRIVERS[name][0]
            timed = (_driven(units[:FEW], driver), _driven(units[FEW:], driver))
            seconds.setdefault(name, []).append(timed)
    return [overhead(name, seconds[name], seconds[f"plain {DRIVERS[name][1]}"]) for name in names]


def overhead(
    name: str, driven: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]
) -> Found:
    """Return a driver's cost from seconds of (FEW, MANY) units, its own and the plain loop's."""
    each = [(many - few) / (MANY - FEW) for few, many in driven]
    bare = [(many - few) / (MANY - FEW) for few, many in plain]
    beyond = spread([mine - loop for mine, loop in zip(each, bare, strict=True)])
    once = spread([few - FEW * unit for (few, _), unit in zip(driven, each, strict=True)])
    return {
        "driver": name,
        "unit": spread(each).median,
        "plain": spread(bare).median,
        "beyond": [beyond.median, beyond.low, beyond.high],
        "share": beyond.median / SHARD,
        "start": once.median,
        "rounds": len(driven),
    }


def _units(pictures: Sequence[Path]) -> Iterator[Unit]:
    """Yield FEW and then MANY units; each pair is one of the pictures."""
    for number in range(FEW + MANY):
        yield Unit(
            f"{number:08d}",
            tuple(
                Item(
                    id=f"{number}-{n}",
                    name=str(pictures[n % len(pictures)]),
                    place=Place(path=str(pictures[n % len(pictures)].absolute())),
                    caption="a dog beside two small red houses on a hill",
                )
                for n in range(PAIRS)
            ),
        )


def _driven(units: Sequence[Unit], driver: Driver) -> float:
    with tempfile.TemporaryDirectory() as place, JobFolder.open(Path(place), {}) as folder:
        begun = time.perf_counter()
        summary = run(units, Reader, folder, driver=driver, on_done=lambda done: None)
        assert summary.made == len(units), summary
        return time.perf_counter() - begun


def _plain(units: Sequence[Unit], loops: int) -> float:
    """Return the seconds of so many plain loops at once, each in a process, that share the units.

    Two loops disturb each other as two workers do, so that this is the machine's, not a driver's.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        processes = [
            context.Process(target=_loop, args=(units[n::loops], Path(place))) for n in range(loops)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        return time.perf_counter() - begun


def _loop(units: Sequence[Unit], place: Path) -> None:
    worker = Reader()
    for unit in units:
        out = place / unit.name
        out.mkdir()
        worker.run(unit, worker.prepare(unit), out)
