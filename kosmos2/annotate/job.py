"""A job from its list of pictures to its outputs; what was stopped goes on.

    OUTPUT.job/parts/inputs-1000-3f2a....jsonl   the list: how many, and its hash; written once
    OUTPUT.job/...                               finished units, see `shards.folder`

The list is cut into units of a constant number of items, and a part of the job (`--shard`) is some
of these units. So whoever does a unit, alone or with others, now or after a crash, writes the same
bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from kosmos2.annotate.asking import lacking
from kosmos2.annotate.outputs import Outputs, Written, write_outputs
from kosmos2.annotate.plan import Plan
from kosmos2.annotate.worker import Annotator
from kosmos2.errors import Kosmos2Error, RequestError, one_line
from kosmos2.shards import Done, Driver, JobFolder, Outcome, Unit, run
from kosmos2.sources.inputs import Looking, items, read_list, write_list
from kosmos2.sources.rows import Item

UNIT, SMALL_UNIT, SMALL = 64, 16, 512
"""Items of a unit; in a list that is shorter than `SMALL`, fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    source: str
    """A folder, a glob or a file, see `inputs`."""
    outputs: Outputs
    plan: Plan
    looking: Looking
    driver: Driver
    shard: tuple[int, int] = (1, 1)
    """(i, n): the i-th of n parts, from 1."""
    limit: int | None = None
    """Only so many pictures, the first ones."""
    download: bool = False
    """Pictures on the web may be fetched."""
    anew: bool = False
    """What an earlier run left is thrown away."""
    keep: bool = False
    """The folder of the job stays."""

    def __post_init__(self) -> None:
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise RequestError(f"a shard is i/n with i from 1 to n, got {part}/{parts}")
        if self.limit is not None and self.limit < 1:
            raise RequestError(f"the limit must be 1 picture or more, got {self.limit}")

    @property
    def folder(self) -> Path:
        """Return where unfinished work lies."""
        return self.outputs.records.with_name(f"{self.outputs.records.name}.job")

    def settings(self) -> dict[str, Any]:
        """Return as JSON all that the finished units depend on, besides the list."""
        return {
            **self.plan.settings(),
            "input": os.path.abspath(self.source),
            "images": str(self.looking.images),
            "limit": self.limit,
            "shard": "{}/{}".format(*self.shard),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is."""

    done: int
    total: int
    """Pictures of this part of the job."""
    failed: int
    rate: float
    """Pictures a second in this run, 0 before the first unit."""
    waiting: float
    """The share of its time that the model waited for pictures, 0 to 1."""

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a job ended with."""

    total: int
    annotated: int
    failed: int
    boxes: int
    kept: int
    """Units that earlier runs had done."""
    made: int
    """Pictures that were done in this run."""
    seconds: float
    waiting: float
    """The share of its time that the model waited for pictures, 0 to 1."""
    written: Written


def annotate(job: Job, tell: Callable[[Progress], None]) -> Report:
    """Do the job, or the rest of it, and write its outputs."""
    _refuse_taken(job)
    _refuse_inputs(job)
    begin = JobFolder.fresh if job.anew else JobFolder.open
    with begin(job.folder, job.settings()) as folder:
        path, total = _list_or_nothing(job, folder)
        unit_size = UNIT if total >= SMALL else SMALL_UNIT
        number = -(-total // unit_size)
        part, parts = job.shard
        first, stop = number * (part - 1) // parts, number * part // parts
        todo = partial(_units, path, range(first, stop), unit_size)
        watch = _Watch(min(stop * unit_size, total) - first * unit_size, job.driver.workers, tell)
        summary = run(
            todo(), partial(Annotator, job.plan), folder, driver=job.driver, on_done=watch.saw
        )
        written = write_outputs(folder, todo, job.outputs)
        if not (job.keep or summary.quarantined):
            # Without its settings the folder is no unfinished job, wherever the removal is cut.
            (folder.path / "job.json").unlink()
            folder.remove()
    return Report(
        total=watch.total,
        annotated=summary.counts.get("annotated", 0),
        failed=watch.failed,
        boxes=summary.counts.get("boxes", 0),
        kept=summary.kept,
        made=watch.made,
        seconds=summary.seconds,
        waiting=summary.waiting_share,
        written=written,
    )


def _refuse_taken(job: Job) -> None:
    """Refuse to write over what is there, unless it is of this job or shall be replaced."""
    if job.anew or (job.folder / "job.json").is_file():
        return
    JobFolder.sweep(job.folder)
    for path in (job.outputs.records, job.outputs.errors, job.outputs.page):
        if path is not None and path.exists():
            raise RequestError(
                f"{one_line(path)} is there already, and no unfinished work beside it: name "
                f"another file, or use --fresh to replace it"
            )


def _targets(job: Job) -> list[str]:
    """Return all that the job writes, by its real path."""
    out = job.outputs
    paths = (out.records, out.errors, out.drawings, out.crops, out.page)
    return [os.path.realpath(path) for path in paths if path is not None]


def _refuse_inputs(job: Job) -> None:
    """Refuse outputs in each other's place, or in the place of what is read."""
    targets = _targets(job)
    if len(set(targets)) < len(targets):
        raise RequestError(f"two outputs have one name; these are asked for: {', '.join(targets)}")
    _check_apart(os.path.realpath(job.source), job.source, targets)


def _apart(found: Iterator[Item], job: Job) -> Iterator[Item]:
    """Yield the items; refuse a job whose outputs would replace a picture that it reads."""
    targets = _targets(job)
    folder_of = lru_cache(maxsize=1024)(os.path.realpath)
    for item in found:
        if item.place is not None and item.place.path is not None:
            folder, name = os.path.split(os.path.abspath(item.place.path))
            _check_apart(os.path.join(folder_of(folder), name), item.name, targets)
        yield item


def _check_apart(path: str, name: str, targets: list[str]) -> None:
    for target in targets:
        if path == target or path.startswith(os.path.join(target, "")):
            raise RequestError(
                f"{one_line(name)} is of the input, and the output {one_line(target)} could "
                "replace it: name another place to write to"
            )


def _list_or_nothing(job: Job, folder: JobFolder) -> tuple[Path, int]:
    """Return what `_list` does; a job that is refused before its first unit leaves no folder."""
    try:
        return _list(job, folder)
    except Kosmos2Error:
        if not any(folder.names()):
            folder.remove()
        raise


def _list(job: Job, folder: JobFolder) -> tuple[Path, int]:
    """Return the list of the job and how many it has; make it where it is not there yet."""
    parts = folder.part("inputs").parent
    for path in parts.glob("inputs-*.jsonl"):
        total = int(path.stem.split("-")[1])
        for _ in _apart(read_list(path, 0, total), job):
            pass  # drawings may go elsewhere than when the list was made
        return path, total
    half = folder.making("inputs.jsonl")
    found = islice(items(job.source, job.looking), job.limit)
    count, digest = write_list(_usable(_apart(found, job), job), half)
    path = parts / f"inputs-{count}-{digest[:16]}.jsonl"
    half.rename(path)
    return path, count


def _usable(found: Iterator[Item], job: Job) -> Iterator[Item]:
    """Yield the items; refuse a list of which not one can be asked about."""
    fault, some = "", False
    for item in found:
        if item.place is not None and item.place.url is not None and not job.download:
            raise RequestError(
                f"{one_line(item.name)} lies on the web: use --fetch to download such pictures, "
                "or name a source with files"
            )
        wrong = item.problem or lacking(item, job.plan)
        some = some or not wrong
        fault = fault or f"{one_line(item.name)}: {wrong}"
        yield item
    if not some:
        raise RequestError(fault or f"there is no picture in {one_line(job.source)}")


def _units(path: Path, numbers: range, size: int) -> Iterator[Unit]:
    lines = read_list(path, numbers.start * size, numbers.stop * size)
    for number in numbers:
        yield Unit(f"{number:08d}", tuple(islice(lines, size)))


@dataclass(slots=True)
class _Watch:
    """Hears of every unit and tells how the job goes."""

    total: int
    workers: int
    tell: Callable[[Progress], None]
    done: int = 0
    failed: int = 0
    made: int = 0
    worked: float = 0.0
    begun: float = field(default=0.0)

    def saw(self, unit: Done) -> None:
        count = len(unit.unit.items)
        self.done += count
        self.failed += unit.counts.get("failed", count if unit.reason else 0)
        if unit.outcome is Outcome.MADE:
            now = time.perf_counter()
            self.begun = self.begun or now - unit.seconds
            self.made += count
            self.worked += unit.seconds
        spent = time.perf_counter() - self.begun if self.begun else 0.0
        waiting = 1 - self.worked / (spent * self.workers) if spent else 0.0
        rate = self.made / spent if spent else 0.0
        self.tell(
            Progress(
                done=self.done,
                total=self.total,
                failed=self.failed,
                rate=rate,
                waiting=min(max(waiting, 0.0), 1.0),
            )
        )
