"""A folder of `grit build` read once: each pair, what was found in it, and what became of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from kosmos2.errors import ConfigError, RecordError, one_line
from kosmos2.grit.build import DROPPED, FUNNEL, RECIPE, RECORDS
from kosmos2.grit.linking import Candidate, link, suppress, surest_first
from kosmos2.grit.measures import columns_of_boxes, refuse_boxes
from kosmos2.grit.recipe import GritRecipe
from kosmos2.grit.select import ALL_REFUSED, UNSURE
from kosmos2.grit.steps import Discarded, Looked
from kosmos2.grit.worker import LOOKED, read_looked
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import read
from kosmos2.shards import JobFolder

STAGES = (
    "overlap",
    "under the threshold",
    "more boxes than a phrase may have",
    "contained in another expression",
)
"""Why `linking.link` drops boxes, in the order in which it does."""
_NO_LIMIT = 1 << 40

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A pair of the source, what was found in it, and what became of it."""

    number: int
    """Of the pair in the source's order, from 0 on."""
    looked: Looked | Discarded
    became: GroundedRecord | Discarded

    @property
    def is_linked(self) -> bool:
        """Whether its boxes were compared with the threshold: it was not refused before."""
        return isinstance(self.looked, Looked) and (
            isinstance(self.became, GroundedRecord) or self.became.reason in (UNSURE, ALL_REFUSED)
        )

    @property
    def id(self) -> str:
        return str(self.became.id)


def settings_of(out: Path) -> dict[str, Any]:
    """Return what the looking depended on; refuse what is no finished folder of `grit build`."""
    try:
        known: dict[str, Any] = json.loads((out / "looked" / "job.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{one_line(out)} is no folder of `kosmos2 grit build`: no looked/job.json ({error})"
        ) from error
    missing = [name for name in (RECIPE, RECORDS, DROPPED, FUNNEL) if not (out / name).is_file()]
    if missing:
        raise ConfigError(
            f"{one_line(out)} has no {', '.join(missing)}: the build there did not end. Start the "
            "same `kosmos2 grit build` again, it goes on where it stopped."
        )
    return known


def outcomes(folder: JobFolder, out: Path, tell: Callable[[int, int], None]) -> Iterator[Outcome]:
    """Yield every pair of a folder in the order of the source; `tell` hears units done, of all."""
    names = list(folder.names())
    records, dropped = _Ahead(read(out / RECORDS)), _Ahead(_dropped(out / DROPPED))
    for done, name in enumerate(names):
        tell(done, len(names))
        first = int(name) * int(folder.settings["unit"])
        for number, looked in enumerate(read_looked(folder.part(name) / LOOKED), start=first):
            if _is_of(records.next, looked):
                became: GroundedRecord | Discarded | None = records.take()
            elif dropped.next is not None and dropped.next.id == _id(looked):
                became = dropped.take()
            else:
                raise _disagree(out, f"pair {_id(looked)} is in neither")
            assert became is not None
            yield Outcome(number=number, looked=looked, became=became)
    if records.next is not None or dropped.next is not None:
        raise _disagree(out, "they have more")
    tell(len(names), len(names))


def lost(looked: Looked, recipe: GritRecipe) -> dict[str, list[Candidate]]:
    """Return the boxes of a linked pair that were dropped by reason, the surest first.

    `link` says only how many: here it is asked with one rule after the other.
    """
    rules, ordered = recipe.linking, surest_first(looked.candidates)
    loose = replace(rules, boxes_per_phrase=_NO_LIMIT, contained="keep")
    steps = (loose, replace(rules, contained="keep"), rules)
    kept: list[Sequence[Candidate]] = [suppress(ordered, rules.nms_iou)]
    kept += [link(looked.phrases, looked.candidates, each).kept for each in steps]
    found: dict[str, list[Candidate]] = {}
    for reason, before, after in zip(STAGES, [ordered, *kept], kept, strict=False):
        gone = Counter(before) - Counter(after)
        found[reason] = [each for each in before if gone[each]]
    columns = columns_of_boxes(
        looked.candidates, kept[-1], looked.measured, recipe.quality, recipe.filters
    )
    refused = refuse_boxes(columns, len(kept[-1]), recipe.filters)
    for each, reason in zip(kept[-1], refused, strict=True):
        found.setdefault(reason, []).append(each)
    return {reason: gone for reason, gone in found.items() if reason and gone}


class _Ahead(Generic[T]):
    """An iterator whose next item can be seen before it is taken."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self.next = next(items, None)

    def take(self) -> T | None:
        taken, self.next = self.next, next(self._items, None)
        return taken


def _dropped(path: Path) -> Iterator[Discarded]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield Discarded(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise RecordError(f"{path.name}:{number}: no dropped pair ({error})") from error


def _is_of(record: GroundedRecord | None, looked: Looked | Discarded) -> bool:
    """Return whether a record is what a pair became. Ids alone might not be unique."""
    if record is None or isinstance(looked, Discarded):
        return False
    mine = looked.record
    return (record.id, record.image, record.shard, record.caption) == (
        mine.id, mine.image, mine.shard, mine.caption,
    )  # fmt: skip


def _id(looked: Looked | Discarded) -> str:
    return str(looked.id if isinstance(looked, Discarded) else looked.record.id)


def _disagree(out: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{RECORDS} and {DROPPED} of {one_line(out)} were not chosen from what is in looked/: "
        f"{one_line(what)}. `kosmos2 grit select {one_line(out)}` chooses them again."
    )
