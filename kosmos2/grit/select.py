"""The last steps, which need no model: duplicates, overlaps, thresholds, records.

They read what a run has looked at (`steps.Looked`), so that other rules cost seconds, not a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

from kosmos2.grit.filters import Hashes, read_hashes
from kosmos2.grit.linking import Linked, link
from kosmos2.grit.measures import (
    columns_of_boxes,
    columns_of_pair,
    refuse_boxes,
    refuse_measured,
)
from kosmos2.grit.recipe import GritRecipe
from kosmos2.grit.steps import Discarded, Funnel, Looked
from kosmos2.records.record import GroundedRecord, Provenance

DUPLICATE = "duplicate picture"
EXCLUDED = "picture of an evaluation set"
UNSURE = "no box is sure enough"
ALL_REFUSED = "every box was refused"


class Selection:
    """Makes records one after the other, in the order of the source; remembers pictures."""

    def __init__(self, recipe: GritRecipe, made: Provenance | None) -> None:
        filters = recipe.filters
        self._recipe = recipe
        self._made = made
        self._finds_duplicates = filters.duplicate_bits >= 0
        self._seen = Hashes(max(filters.duplicate_bits, 0))
        self._excluded = read_hashes(map(Path, filters.excluded), max(filters.excluded_bits, 0))
        self.funnel = Funnel()

    def record(self, looked: Looked) -> GroundedRecord | Discarded:
        """Return the record of what was found, or why there is none; count every part of it."""
        reason = self._why_not(looked)
        if reason:
            self.funnel.phrases.dropped[reason] += len(looked.phrases)
            if looked.candidates:
                self.funnel.boxes.dropped[reason] += len(looked.candidates)
            return self._discarded(looked, reason)
        sure = link(looked.phrases, looked.candidates, self._recipe.linking)
        linked, columns = self._judged(looked, sure)
        self._count(looked, linked)
        if not linked.ref_exps:
            return self._discarded(looked, ALL_REFUSED if sure.ref_exps else UNSURE)
        if looked.phash is not None and self._finds_duplicates:
            self._seen.add(looked.phash)  # only of pictures that gave a record
        self.funnel.pairs.left += 1
        return replace(
            looked.record,
            noun_chunks=linked.noun_chunks,
            ref_exps=linked.ref_exps,
            provenance=self._made,
            extra=_with(columns, looked.record.extra),
        )

    def _why_not(self, looked: Looked) -> str:
        if looked.phash is not None:
            if self._excluded.near(looked.phash):
                return EXCLUDED
            if self._finds_duplicates and self._seen.near(looked.phash):
                return DUPLICATE
        return refuse_measured(looked.measured, self._recipe.filters)

    def _judged(self, looked: Looked, linked: Linked) -> tuple[Linked, dict[str, Any]]:
        """Return the boxes that no filter refuses, and the columns of the record."""
        quality, rules = self._recipe.quality, self._recipe.filters
        columns = columns_of_boxes(looked.candidates, linked.kept, looked.measured, quality, rules)
        reasons = refuse_boxes(columns, len(linked.kept), rules)
        passed = [not reason for reason in reasons]
        columns = {name: list(compress(values, passed)) for name, values in columns.items()}
        judged = replace(
            linked,
            kept=tuple(compress(linked.kept, passed)),
            noun_chunks=tuple(compress(linked.noun_chunks, passed)),
            ref_exps=tuple(compress(linked.ref_exps, passed)),
            dropped=(*linked.dropped, *Counter(filter(None, reasons)).items()),
        )
        return judged, {**columns_of_pair(looked.measured, quality), **columns}

    def _count(self, looked: Looked, linked: Linked) -> None:
        with_box = {each.phrase for each in looked.candidates}
        kept = {entry[:2] for entry in linked.noun_chunks}
        for number, phrase in enumerate(looked.phrases):
            if phrase.chunk in kept:
                self.funnel.phrases.left += 1
            else:
                reason = "its boxes were dropped" if number in with_box else "no box"
                self.funnel.phrases.dropped[reason] += 1
        self.funnel.boxes.left += len(linked.ref_exps)
        self.funnel.boxes.dropped.update(dict(linked.dropped))

    def _discarded(self, looked: Looked, reason: str) -> Discarded:
        self.funnel.pairs.dropped[reason] += 1
        return Discarded(str(looked.record.id), reason)


def _with(columns: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's other fields with our columns; one of the source's that has such a name
    (LAION has a `similarity`) goes on as `source_NAME`."""
    own = {f"source_{key}" if key in columns else key: value for key, value in extra.items()}
    return {**own, **columns}
