"""The pairs that a build dropped, as records with the boxes that were found: to look at and mend.

{"id": "pair 7", "caption": …, "ref_exps": […], "drop_reason": "no box is sure enough"}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kosmos2.grit.build import recipe_of
from kosmos2.grit.linking import link
from kosmos2.grit.outcomes import outcomes, settings_of
from kosmos2.grit.recipe import Linking
from kosmos2.grit.steps import Discarded, Looked
from kosmos2.records.jsonl import JsonlWriter
from kosmos2.records.record import GroundedRecord
from kosmos2.shards import JobFolder

DROPPED_RECORDS = "dropped-records.jsonl"
"""In the folder of the build, so that its pictures are found."""
WHY = "drop_reason"


def write_dropped(out: Path, tell: Callable[[int, int], None]) -> Path:
    """Write the records of a build's dropped pairs into its folder; what is there already stays.

    `tell` hears of units read, and of how many.
    """
    target = out / DROPPED_RECORDS
    if target.exists():  # somebody may be editing it
        return target
    half = out / f".{DROPPED_RECORDS}.partial.jsonl"
    half.unlink(missing_ok=True)
    with JsonlWriter(half) as writer:
        for record in dropped_records(out, tell):
            writer.write(record)
    return half.rename(target)


def dropped_records(out: Path, tell: Callable[[int, int], None]) -> Iterator[GroundedRecord]:
    """Yield a record for each pair that was looked at and then dropped, in the source's order.

    Its boxes are all that were found, whatever their scores, but for overlaps. A pair that was
    dropped before anything was looked for, such as one without a picture, has no record.
    """
    known, rules = settings_of(out), replace(recipe_of(out).linking, threshold=0.0)
    with JobFolder.open(out / "looked", known) as folder:
        for outcome in outcomes(folder, out, tell):
            looked, became = outcome.looked, outcome.became
            if isinstance(looked, Looked) and isinstance(became, Discarded):
                yield _record(looked, became, rules)


def _record(looked: Looked, dropped: Discarded, rules: Linking) -> GroundedRecord:
    found = link(looked.phrases, looked.candidates, rules)
    return replace(
        looked.record,
        noun_chunks=found.noun_chunks,
        ref_exps=found.ref_exps,
        extra={**looked.record.extra, WHY: dropped.reason},
    )
