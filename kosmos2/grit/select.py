"""The last steps, which need no model: duplicates, overlaps, thresholds, records.

They read what a run has looked at (`steps.Looked`), so that other rules cost seconds, not a run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kosmos2.grit.filters import Hashes, read_hashes
from kosmos2.grit.linking import Linked, link
from kosmos2.grit.recipe import GritRecipe
from kosmos2.grit.steps import Discarded, Funnel, Looked
from kosmos2.records.record import GroundedRecord, Provenance

DUPLICATE = "duplicate picture"
EXCLUDED = "picture of an evaluation set"
UNSURE = "no box is sure enough"


class Selection:
    """Makes records one after the other, in the order of the source; remembers pictures."""

    def __init__(self, recipe: GritRecipe, made: Provenance | None) -> None:
        filters = recipe.filters
        self._rules = recipe.linking
        self._made = made
        self._finds_duplicates = filters.duplicate_bits >= 0
        self._seen = Hashes(max(filters.duplicate_bits, 0))
        self._excluded = read_hashes(map(Path, filters.excluded), max(filters.excluded_bits, 0))
        self.funnel = Funnel()

    def record(self, looked: Looked) -> GroundedRecord | Discarded:
        """Return the record of what was found, or why there is none; count every part of it."""
        reason = self._why_not(looked.phash)
        if reason:
            self.funnel.phrases.dropped[reason] += len(looked.phrases)
            if looked.candidates:
                self.funnel.boxes.dropped[reason] += len(looked.candidates)
            return self._discarded(looked, reason)
        linked = link(looked.phrases, looked.candidates, self._rules)
        self._count(looked, linked)
        if not linked.ref_exps:
            return self._discarded(looked, UNSURE)
        if looked.phash is not None and self._finds_duplicates:
            self._seen.add(looked.phash)  # only of pictures that gave a record
        self.funnel.pairs.left += 1
        return replace(
            looked.record,
            noun_chunks=linked.noun_chunks,
            ref_exps=linked.ref_exps,
            provenance=self._made,
        )

    def _why_not(self, phash: int | None) -> str:
        if phash is None:
            return ""
        if self._excluded.near(phash):
            return EXCLUDED
        return DUPLICATE if self._finds_duplicates and self._seen.near(phash) else ""

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
