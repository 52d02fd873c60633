"""A data set from first pair to last, and records chosen again from what was looked at.

    OUT/recipe.json      what made it
    OUT/looked/          what was found in every pair, unit by unit (a job folder)
    OUT/records.jsonl    the data set
    OUT/dropped.jsonl    {"id", "reason", "detail"} of each pair that gave no record
    OUT/funnel.json      how many pairs, phrases and boxes came in, went out, and why not
    OUT/runs.jsonl       of each run that looked at pairs: when, how long, how many

Looking costs hours and depends on the source, the detector and the words that are looked for.
Choosing costs seconds and depends on thresholds and the like: other ones do not look again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import kosmos2
from kosmos2 import config
from kosmos2.errors import ConfigError, Kosmos2Error, RequestError, one_line
from kosmos2.grit import calibration, detect, quality
from kosmos2.grit.recipe import Detection, Filters, GritRecipe, Linking
from kosmos2.grit.select import Selection
from kosmos2.grit.steps import Discarded, Funnel, Looked
from kosmos2.grit.worker import LOOKED, Looker, Plan, read_looked
from kosmos2.records.jsonl import text_of
from kosmos2.records.record import Provenance
from kosmos2.shards import Done, Driver, JobFolder, Pool, Ray, Summary, Unit, run
from kosmos2.sources.inputs import Looking, items, read_list, write_list
from kosmos2.sources.rows import Item

RECIPE, RECORDS, DROPPED, FUNNEL = "recipe.json", "records.jsonl", "dropped.jsonl", "funnel.json"
RUNS = "runs.jsonl"
CHOSEN = (
    "max_nsfw", "min_similarity", "min_round_trip", "min_agreement", "second_threshold",
)  # fmt: skip
"""Of `filters`: what is compared with columns that were measured."""
UNIT = 256
"""Pairs of a unit, unless a recipe's user says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    source: str
    """A folder, a glob or a file, see `inputs`."""
    out: Path
    recipe: GritRecipe
    driver: Driver
    images: Path | None = None
    limit: int | None = None
    unit: int = UNIT
    download: bool = False
    """Pictures on the web may be fetched."""
    anew: bool = False
    """What an earlier run found is thrown away."""

    @property
    def looked(self) -> Path:
        return self.out / "looked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What choosing ended with."""

    funnel: Funnel
    units: int
    summary: Summary | None = None
    """Of the looking, where there was any."""


def build(job: Build, tell: Callable[[Done], None], total: Callable[[int], None]) -> Selected:
    """Look at every pair that was not looked at yet, then choose records from all.

    `total` hears how many pairs there are, then `tell` of each unit.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    begin = JobFolder.fresh if job.anew else JobFolder.open
    looking = Looking(images=job.images, captions=True, leave_out=(job.out,))
    with begin(job.looked, _settings(job)) as folder:
        path, count = _list_or_nothing(job, looking, folder)
        total(count)
        recipe = _resolved(_settled(job.recipe, folder.settings), folder.settings)
        plan = Plan(recipe=recipe, base=job.out.absolute())
        summary = run(
            _units(path, count, job.unit),
            partial(Looker, plan),
            folder,
            driver=job.driver,
            on_done=tell,
        )
        _note_run(job, summary)
        return replace(_choose(folder, job.out, job.recipe), summary=summary)


def select(out: Path, recipe: GritRecipe) -> Selected:
    """Choose records again from what was looked at, by other thresholds and filters."""
    known = _read_json(out / "looked" / "job.json")
    if known is None:
        raise ConfigError(
            f"nothing was looked at in {one_line(out)}: it is no folder of `kosmos2 grit build`"
        )
    built = config.build(GritRecipe, known["recipe"], where=f"{out}/looked/job.json")
    if changed := _changed(_looks_with(built), _looks_with(recipe)):
        raise ConfigError(
            f"{', '.join(changed)}: what was looked at depends on these, so they need another "
            "`kosmos2 grit build`. Choosing again takes other values of linking (not its floor), "
            "of detection.calibration, and of filters.duplicate_bits, excluded, excluded_bits, "
            f"{', '.join(CHOSEN)}."
        )
    with JobFolder.open(out / "looked", known) as folder:
        return _choose(folder, out, recipe)


def recipe_of(out: Path) -> GritRecipe:
    """Return the recipe by which the records of a folder were chosen."""
    known = _read_json(out / RECIPE)
    if known is None:
        raise ConfigError(f"{one_line(out)} is no folder of `kosmos2 grit build`: no {RECIPE}")
    return config.build(GritRecipe, known, where=RECIPE)


def _settings(job: Build) -> dict[str, Any]:
    """Return as JSON all that looking depends on; no weights are loaded for it."""
    recipe = _placed(job.recipe, job.driver)
    detector = {
        "detector": dict(detect.identity(recipe.detection)),
        "score": detect.score(recipe.detection),
    }
    return {
        "recipe": config.as_tree(_looks_with(job.recipe)),
        **detector,
        "quality": dict(quality.identity(_resolved(recipe, detector))),
        "input": os.path.abspath(job.source),
        "images": str(job.images),
        "limit": job.limit,
        "unit": job.unit,
        "code": f"kosmos2 {kosmos2.__version__}",
    }


def _placed(recipe: GritRecipe, driver: Driver) -> GritRecipe:
    """Return the recipe with the device that "auto" means where the workers are.

    The head of a cluster may have no GPU.
    """
    if not (isinstance(driver, Pool | Ray) and driver.gpus):
        return recipe

    def on_gpu(settings: Detection) -> Detection:
        return replace(settings, device="cuda") if settings.device == "auto" else settings

    own, second = recipe.quality, recipe.quality.second
    return replace(
        recipe,
        detection=on_gpu(recipe.detection),
        quality=replace(
            own,
            device="cuda" if own.device == "auto" else own.device,
            second=on_gpu(second) if second else None,
        ),
    )


def _settled(recipe: GritRecipe, settings: Mapping[str, Any]) -> GritRecipe:
    """Return the recipe with the numbers that "auto" means, so that all workers compute alike."""
    told, second = settings["quality"], recipe.quality.second
    of_second = {key.removeprefix("second."): told[key] for key in told if "second." in key}
    return replace(
        recipe,
        detection=detect.settled(recipe.detection, settings["detector"]),
        quality=replace(
            recipe.quality, second=detect.settled(second, of_second) if second else None
        ),
    )


def _looks_with(recipe: GritRecipe) -> GritRecipe:
    """Return the recipe with everything at its default that looking does not depend on."""
    filters, off = recipe.filters, Filters()
    hashes = 0 if filters.needs_hashes else -1
    return replace(
        recipe,
        detection=replace(recipe.detection, calibration=""),
        linking=Linking(floor=recipe.linking.floor),
        filters=replace(
            filters,
            duplicate_bits=hashes,
            excluded=(),
            excluded_bits=0,
            **{name: getattr(off, name) for name in CHOSEN},
        ),
    )


def _resolved(recipe: GritRecipe, settings: Mapping[str, Any]) -> GritRecipe:
    """Return the recipe with the threshold that it asks for by precision, or by another's."""
    known = calibration.Known(identity=settings["detector"], score=settings["score"])
    return calibration.resolved(recipe, known)


def _changed(one: GritRecipe, other: GritRecipe) -> list[str]:
    """Return the keys in which two recipes differ, as `table.key`."""
    trees = config.as_tree(one), config.as_tree(other)
    return [
        f"{table}.{key}"
        for table, values in trees[0].items()
        for key, value in values.items()
        if trees[1][table][key] != value
    ]


def _note_run(job: Build, summary: Summary) -> None:
    """Add a line about a run to its list, for the report; a run that found all done is none."""
    if not (summary.made or summary.quarantined):
        return
    told = {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(summary.seconds, 3),
        "worked": round(summary.worked, 3),
        "waited": round(summary.waited, 3),
        "workers": job.driver.workers,
        "units": summary.made,
        "kept": summary.kept,
        "quarantined": len(summary.quarantined),
    }
    with (job.out / RUNS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def _list_or_nothing(job: Build, looking: Looking, folder: JobFolder) -> tuple[Path, int]:
    """Return what `_list` does; a source that is refused leaves no folder."""
    try:
        return _list(job, looking, folder)
    except Kosmos2Error:
        if not any(folder.names()):
            folder.remove()
        raise


def _list(job: Build, looking: Looking, folder: JobFolder) -> tuple[Path, int]:
    """Return the list of pairs and their number; once written it stays as it is."""
    path = folder.path / "parts" / "pairs.jsonl"
    told = _read_json(path.with_suffix(".count"))
    if told is not None:
        return path, int(told["count"])
    found = _usable(islice(items(job.source, looking), job.limit), job)
    half = path.with_name(f"{path.name}.half")
    count, digest = write_list(found, half)
    if not count:
        raise RequestError(f"there is no picture in {one_line(job.source)}")
    half.rename(path)
    _write_json(path.with_suffix(".count"), {"count": count, "sha256": digest})
    return path, count


def _usable(found: Iterator[Item], job: Build) -> Iterator[Item]:
    """Yield the items; refuse pictures on the web unless they may be fetched."""
    for item in found:
        if item.place is not None and item.place.url is not None and not job.download:
            raise RequestError(
                f"{one_line(item.name)} lies on the web: use --fetch to download such pictures "
                "while looking, or `kosmos2 grit download` to have them as tars first, politely "
                "and once"
            )
        yield item


def _units(path: Path, count: int, size: int) -> Iterator[Unit]:
    lines = read_list(path)
    for number in range(-(-count // size)):
        yield Unit(f"{number:08d}", tuple(islice(lines, size)))


def _choose(folder: JobFolder, out: Path, recipe: GritRecipe) -> Selected:
    """Write records, what was dropped and the funnel; each file appears whole."""
    chosen = _resolved(recipe, folder.settings)
    maker = _provenance(folder, chosen, calibration.provenance(recipe))
    selection = Selection(chosen, maker)
    names = list(folder.names())
    records, dropped = out / f".{RECORDS}.half", out / f".{DROPPED}.half"
    with records.open("wb") as good, dropped.open("wb") as bad:
        for each in _all_looked(folder, names):
            made = selection.record(each) if isinstance(each, Looked) else each
            if isinstance(made, Discarded):
                row = {"id": made.id, "reason": made.reason, "detail": made.detail}
                bad.write((json.dumps(row) + "\n").encode())
            else:
                good.write(text_of(made))
        for file in (good, bad):
            file.flush()
            os.fsync(file.fileno())
    funnel = selection.funnel
    for name in names:
        funnel.add(Funnel.from_counts(folder.done(name) or {}))
    records.rename(out / RECORDS)
    dropped.rename(out / DROPPED)
    _write_json(out / RECIPE, config.as_tree(recipe))
    _write_json(out / FUNNEL, funnel.to_counts())
    return Selected(funnel=funnel, units=len(names))


def _all_looked(folder: JobFolder, names: Iterable[str]) -> Iterator[Looked | Discarded]:
    for name in names:
        yield from read_looked(folder.part(name) / LOOKED)


def _provenance(
    folder: JobFolder, recipe: GritRecipe, threshold: Mapping[str, str | float]
) -> Provenance:
    detector, second = dict(folder.settings["detector"]), recipe.quality.second
    measured = {
        name: value
        for name, value in folder.settings["quality"].items()
        if name.rpartition(".")[2] in ("detector", "model", "weights")
    }
    return Provenance(
        model=detector.pop("model", detector.get("detector", "unknown")),
        weights=detector.pop("weights", None),
        task="grit",
        decoding={
            **detector,
            "language": recipe.language.model,
            "threshold": recipe.linking.threshold,
            "nms_iou": recipe.linking.nms_iou,
            **threshold,
            **measured,
            **({"second_threshold": recipe.filters.second_threshold} if second else {}),
        },
        code=folder.settings["code"],
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value


def _write_json(path: Path, value: object) -> None:
    half = path.with_name(f".{path.name}.half")
    half.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    half.rename(path)
