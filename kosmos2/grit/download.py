"""A table of URLs -> tars of pictures in img2dataset's layout, and a census of the links.

    OUT/00000.tar           KEY.jpg, KEY.json, KEY.txt of each picture that was had
    OUT/00000_failed.jsonl  {"key", "url", "status", "error_message"} of each that was not
    OUT/00000_stats.json    how many of each status
    OUT/census.json         the same for all, when all is done
    OUT/.download/          what is done (a job folder); the tars are links to files in it

A picture that was had, and a URL that failed, are noted at once: whoever is killed and starts
again asks for neither a second time, only for what was under way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2.errors import ConfigError, RequestError, one_line
from kosmos2.grit.downloader import BYTES, SUCCESS, Columns, Downloader, Numbered, Plan
from kosmos2.grit.filters import perceptual_hash
from kosmos2.grit.polite import Politeness
from kosmos2.records import store
from kosmos2.records.jsonl import Row, finished
from kosmos2.shards import Done, Driver, JobFolder, Outcome, Quarantined, Unit, run
from kosmos2.sources.containers import rows_of_csv

UNIT = 5_000
"""Rows of a tar, unless somebody says otherwise."""
_OURS = re.compile(r"\d{5}(\.tar|_stats\.json|_failed\.jsonl)|census\.json")
_MOST_UNITS = 100_000
_TABLES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    table: Path
    """Parquet, JSON lines, records or CSV; a file, or a folder of such."""
    out: Path
    driver: Driver
    politeness: Politeness = field(default_factory=Politeness)
    """Of all workers together."""
    columns: Columns = field(default_factory=Columns)
    longest_side: int | None = None
    """Pixels to which larger pictures are shrunk; None: every picture is kept as it came."""
    threads: int = 64
    """Of each worker."""
    limit: int | None = None
    unit: int = UNIT
    anew: bool = False
    """What an earlier run downloaded is thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What became of the links."""

    statuses: Mapping[str, int]
    """"success", or why not -> how many."""
    bytes: int
    """Of the pictures as they lie in the tars."""
    quarantined: tuple[Quarantined, ...]

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())

    @property
    def successes(self) -> int:
        return self.statuses.get(SUCCESS, 0)


def download(job: Download, tell: Callable[[Done], None]) -> Census:
    """Download what was not downloaded yet, and count what became of every link."""
    perceptual_hash(Image.new("L", (8, 8)))  # says now, not in every unit, that it is missing
    job.out.mkdir(parents=True, exist_ok=True)
    begin = JobFolder.fresh if job.anew else JobFolder.open
    share = _share(job.politeness, job.driver.workers)
    with begin(job.out / ".download", _settings(job)) as folder:
        if job.anew:
            _clear(job.out)
        plan = Plan(
            politeness=share,
            columns=job.columns,
            longest_side=job.longest_side,
            threads=job.threads,
            notes=folder.path / "parts" / ".notes",
        )

        def publish(done: Done) -> None:
            if done.outcome is not Outcome.QUARANTINED:
                _link(folder.part(done.unit.name), job.out)
                shutil.rmtree(plan.notes / done.unit.name, ignore_errors=True)
            tell(done)

        summary = run(
            _units(job), partial(Downloader, plan), folder, driver=job.driver, on_done=publish
        )
    counts = Counter(summary.counts)
    size = counts.pop(BYTES, 0)
    census = Census(
        statuses=dict(counts.most_common()), bytes=size, quarantined=summary.quarantined
    )
    _write_census(census, job.out / "census.json")
    return census


def _share(politeness: Politeness, workers: int) -> Politeness:
    """Return what one of so many workers may do, so that all together keep to the limits."""
    if workers > politeness.per_host:
        raise ConfigError(
            f"{workers} workers cannot share {politeness.per_host} requests at a time to one host: "
            f"use --workers {politeness.per_host}, or --per-host {workers} if the hosts agree"
        )
    return replace(
        politeness, per_host=politeness.per_host // workers, delay=politeness.delay * workers
    )


def _settings(job: Download) -> dict[str, Any]:
    """Return as JSON what the output depends on, as far as it is ours to say."""
    if not job.table.exists():
        raise RequestError(f"there is no table at {one_line(job.table)}")
    return {
        "table": os.path.abspath(job.table),
        "files": [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in _parts(job.table)
        ],
        "columns": [list(job.columns.url), list(job.columns.caption)],
        "longest_side": job.longest_side,
        "max_bytes": job.politeness.limits.max_bytes,
        "limit": job.limit,
        "unit": job.unit,
    }


def _parts(table: Path) -> list[Path]:
    return [table] if _is_text(table) else store.parts_of(table, store.kind_of(table))


def _is_text(table: Path) -> bool:
    return table.name.lower().endswith(_TABLES)


def _units(job: Download) -> Iterator[Unit]:
    rows = islice(_rows(job.table), job.limit)
    numbered = (Numbered(at, row.fields, row.problem) for at, row in enumerate(rows))
    number = 0
    while items := tuple(islice(numbered, job.unit)):
        if number == _MOST_UNITS:
            raise ConfigError(
                f"more than {_MOST_UNITS:,} tars of {job.unit:,} rows: use a larger --shard-size"
            )
        yield Unit(f"{number:05d}", items)
        number += 1
    if number == 0:
        raise RequestError(f"there is no row in {one_line(job.table)}")


def _rows(table: Path) -> Iterator[Row]:
    return rows_of_csv(table) if _is_text(table) else finished(store.rows(table))


def _clear(out: Path) -> None:
    """Remove what an earlier run published."""
    for name in os.listdir(out):
        if _OURS.fullmatch(name):
            (out / name).unlink()


def _link(part: Path, out: Path) -> None:
    """Make the files of a unit appear whole in the folder of the data set."""
    for file in sorted(part.iterdir()):
        target, half = out / file.name, out / f".{file.name}.half"
        if target.exists() and target.samefile(file):
            continue
        half.unlink(missing_ok=True)
        try:
            os.link(file, half)
        except OSError:  # a file system that has no links
            shutil.copyfile(file, half)
        half.replace(target)


def _write_census(census: Census, path: Path) -> None:
    value = {
        "rows": census.rows,
        "successes": census.successes,
        "bytes": census.bytes,
        "statuses": dict(census.statuses),
        "quarantined": [each.name for each in census.quarantined],
    }
    half = path.with_name(f".{path.name}.half")
    half.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    half.replace(path)
