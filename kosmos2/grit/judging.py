"""A built folder against the truth: which of a detector's boxes are right, and so what its scores
are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kosmos2.boxes import iou
from kosmos2.errors import ConfigError, one_line
from kosmos2.grit.build import recipe_of
from kosmos2.grit.calibration import Calibration, Known, fit
from kosmos2.grit.linking import link
from kosmos2.grit.outcomes import settings_of
from kosmos2.grit.recipe import Linking
from kosmos2.grit.steps import Looked
from kosmos2.grit.worker import LOOKED, read_looked
from kosmos2.records.record import Grounded
from kosmos2.records.store import read
from kosmos2.shards import JobFolder
from kosmos2.weights.tensors import sha256

RIGHT = 0.5
"""The least IoU of a box that is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    caption: str
    entries: tuple[Grounded, ...]
    """The noun chunks; of records that have none, the referring expressions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A calibration, and how many pairs it was made from."""

    calibration: Calibration
    pairs: int
    without: int
    """Pairs that have no true record, or one of another caption: their boxes are not judged."""


def calibrate(out: Path, truth: Path, *, command: str, tell: Callable[[int, int], None]) -> Judged:
    """Return what the scores of a folder's detector are worth against records of the truth.

    Judged are all boxes above the floor that no surer one overlaps too much: `linking.nms_iou`
    does its work before any threshold does. `tell` hears units read, of all.
    """
    known = settings_of(out)
    rules = recipe_of(out).linking
    right, pairs, without = [], 0, 0
    by_id = _truth(truth)
    with JobFolder.open(out / "looked", known) as folder:
        for looked in _looked(folder, tell):
            true = by_id.get(str(looked.record.id))
            if true is None or true.caption != looked.record.caption:
                without += 1
                continue
            pairs += 1
            right += list(judge(looked, true, rules))
    if not pairs:
        raise ConfigError(
            f"no pair of {one_line(out)} has a record in {one_line(truth)}: their ids and captions "
            "must be the same"
        )
    calibration = fit(
        right,
        Known(identity=known["detector"], score=known["score"]),
        source=(
            f"{truth.name} sha256:{sha256(truth)}, {pairs} pairs; boxes of at least "
            f"{rules.floor} apart by IoU {rules.nms_iou}; right is IoU >= {RIGHT} with a true box "
            "of overlapping words"
        ),
        command=command,
    )
    return Judged(calibration=calibration, pairs=pairs, without=without)


def judge(looked: Looked, truth: Truth, rules: Linking) -> Iterator[tuple[float, bool]]:
    """Yield the score of each box that linking could keep, and whether it is right.

    Right is a box that overlaps, by at least RIGHT, a true box of words that its noun chunk shares
    a character with. A phrase that the truth is silent about has no right box.
    """
    every = replace(rules, threshold=0.0, contained="keep")
    for each in link(looked.phrases, looked.candidates, every).kept:
        start, end = looked.phrases[each.phrase].chunk
        yield (
            each.score,
            any(
                entry.start < end and start < entry.end and iou(each.box, entry.box) >= RIGHT
                for entry in truth.entries
            ),
        )


def _truth(path: Path) -> dict[str, Truth]:
    return {
        str(record.id): Truth(
            caption=record.caption,
            entries=record.entries if record.noun_chunks is None else record.noun_chunks,
        )
        for record in read(path)
    }


def _looked(folder: JobFolder, tell: Callable[[int, int], None]) -> Iterator[Looked]:
    names = list(folder.names())
    for done, name in enumerate(names, start=1):
        for each in read_looked(folder.part(name) / LOOKED):
            if isinstance(each, Looked):
                yield each
        tell(done, len(names))
