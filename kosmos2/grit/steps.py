"""The steps from image-text pairs to records, as functions in a plain list, with a ledger.

caption -> noun chunks -> phrases -> boxes with scores -> overlaps, threshold -> record. Every step
returns a value or a reason, and every reason is counted: in = out + the sum of what was dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from kosmos2.boxes import Box
from kosmos2.grit.detectors import Asked, Detector, Refused
from kosmos2.grit.language import Parser
from kosmos2.grit.linking import Candidate, Linked, link
from kosmos2.grit.parse import Parse
from kosmos2.grit.phrases import Phrase, phrases
from kosmos2.grit.recipe import GritRecipe, Linking
from kosmos2.records.record import GroundedRecord, Provenance

LEVELS = ("pairs", "phrases", "boxes")


@dataclass(slots=True)
class Ledger:
    """How many came in, how many went out, and why the others did not."""

    entered: int = 0
    left: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def balances(self) -> bool:
        return self.entered == self.left + sum(self.dropped.values())

    def add(self, other: Ledger) -> None:
        """Count another ledger's numbers in."""
        self.entered += other.entered
        self.left += other.left
        self.dropped += other.dropped


@dataclass(slots=True)
class Funnel:
    """A ledger for image-text pairs, for phrases of their captions and for boxes of these."""

    pairs: Ledger = field(default_factory=Ledger)
    phrases: Ledger = field(default_factory=Ledger)
    boxes: Ledger = field(default_factory=Ledger)

    def add(self, other: Funnel) -> None:
        """Count another funnel's numbers in."""
        for level in LEVELS:
            getattr(self, level).add(getattr(other, level))

    def to_counts(self) -> dict[str, int]:
        """Return flat names and numbers, as a done-marker keeps them; `from_counts` reads them."""
        counts = {}
        for level in LEVELS:
            ledger: Ledger = getattr(self, level)
            counts[f"{level}.in"], counts[f"{level}.out"] = ledger.entered, ledger.left
            for reason, count in sorted(ledger.dropped.items()):
                counts[f"{level}.dropped.{reason}"] = count
        return counts

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> Funnel:
        """Return the funnel that `to_counts` wrote."""
        funnel = cls()
        for name, count in counts.items():
            level, _, rest = name.partition(".")
            if level not in LEVELS:
                continue
            ledger: Ledger = getattr(funnel, level)
            if rest == "in":
                ledger.entered = count
            elif rest == "out":
                ledger.left = count
            else:
                ledger.dropped[rest.removeprefix("dropped.")] = count
        return funnel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """A picture with its caption, on the way in."""

    id: str
    caption: str
    image: Image.Image
    """Upright RGB, perhaps smaller than the picture's file says."""
    record: GroundedRecord
    """Where the picture is, its size, columns of the source; no boxes yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A pair after the detector: all that linking needs, so that it can be done again later."""

    record: GroundedRecord
    phrases: tuple[Phrase, ...]
    candidates: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object: the side table's row."""
        return {
            "record": self.record.to_dict(),
            "phrases": [[*each.chunk, *each.expression] for each in self.phrases],
            "candidates": [
                [each.phrase, *each.box.corners, each.score] for each in self.candidates
            ],
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Looked:
        """Return the value that `to_dict` wrote."""
        return cls(
            record=GroundedRecord.from_dict(row["record"]),
            phrases=tuple(Phrase(chunk=(a, b), expression=(c, d)) for a, b, c, d in row["phrases"]),
            candidates=tuple(
                Candidate(phrase=phrase, box=Box(*corners), score=score)
                for phrase, *corners, score in row["candidates"]
            ),
        )


@dataclass(frozen=True, slots=True)
class Discarded:
    """A pair that gives no record, and why."""

    id: str
    reason: str


def look(
    pairs: Sequence[Pair], recipe: GritRecipe, parser: Parser, detector: Detector, funnel: Funnel
) -> list[Looked | Discarded]:
    """Return what the detector found for each pair, or why it was not asked; count both."""
    parses = parser.parse(pair.caption for pair in pairs)
    wanted = [_wanted(parse, recipe, funnel) for parse in parses]
    asked = [
        Asked(
            id=pair.id,
            image=pair.image,
            caption=pair.caption,
            spans=tuple(each.chunk for each in kept),
        )
        for pair, kept in zip(pairs, wanted, strict=True)
        if kept
    ]
    boxes = iter(detector.detect(asked))
    found: list[Looked | Discarded] = []
    for pair, kept in zip(pairs, wanted, strict=True):
        funnel.pairs.entered += 1
        if not kept:
            found.append(_discarded(pair.id, "no phrase to look for", funnel))
            continue
        all_boxes = next(boxes)
        if isinstance(all_boxes, Refused):
            funnel.phrases.dropped[all_boxes.reason] += len(kept)
            found.append(_discarded(pair.id, all_boxes.reason, funnel))
            continue
        above = tuple(each for each in all_boxes if each.score >= recipe.linking.floor)
        funnel.boxes.entered += len(all_boxes)
        funnel.boxes.dropped["under the floor"] += len(all_boxes) - len(above)
        found.append(Looked(record=pair.record, phrases=kept, candidates=above))
    return found


def _wanted(parse: Parse, recipe: GritRecipe, funnel: Funnel) -> tuple[Phrase, ...]:
    kept = []
    for each in phrases(parse, recipe.phrases):
        funnel.phrases.entered += 1
        if isinstance(each, Phrase):
            kept.append(each)
        else:
            funnel.phrases.dropped[each.reason] += 1
    return tuple(kept)


def linked(
    looked: Looked, rules: Linking, made: Provenance | None, funnel: Funnel
) -> GroundedRecord | Discarded:
    """Return the record of what was found, or why there is none; count phrases, boxes and pairs."""
    result = link(looked.phrases, looked.candidates, rules)
    _count_boxes(looked, result, funnel)
    if not result.ref_exps:
        return _discarded(str(looked.record.id), "no box is sure enough", funnel)
    funnel.pairs.left += 1
    return replace(
        looked.record,
        noun_chunks=result.noun_chunks,
        ref_exps=result.ref_exps,
        provenance=made,
    )


def _count_boxes(looked: Looked, result: Linked, funnel: Funnel) -> None:
    with_box = {each.phrase for each in looked.candidates}
    kept = {entry[:2] for entry in result.noun_chunks}
    for number, phrase in enumerate(looked.phrases):
        if phrase.chunk in kept:
            funnel.phrases.left += 1
        else:
            reason = "its boxes were dropped" if number in with_box else "no box"
            funnel.phrases.dropped[reason] += 1
    funnel.boxes.left += len(result.ref_exps)
    funnel.boxes.dropped.update(dict(result.dropped))


def _discarded(id: str, reason: str, funnel: Funnel) -> Discarded:
    funnel.pairs.dropped[reason] += 1
    return Discarded(id, reason)
