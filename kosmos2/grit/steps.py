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
from kosmos2.grit.filters import perceptual_hash, refuse_pair
from kosmos2.grit.language import Parser
from kosmos2.grit.linking import Candidate, rounded
from kosmos2.grit.measures import NOTHING, Measured, Measurer, Seen, Unmeasured
from kosmos2.grit.parse import Parse
from kosmos2.grit.phrases import Phrase, phrases
from kosmos2.grit.recipe import GritRecipe
from kosmos2.records.record import GroundedRecord

LEVELS = ("pairs", "phrases", "boxes")
NO_PHRASE = "no phrase to look for"
UNMEASURED = Unmeasured()


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
    phash: int | None = None
    """The picture's perceptual hash, where a filter will ask for it."""
    measured: Measured = NOTHING

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object: the side table's row."""
        return {
            "record": self.record.to_dict(),
            "phrases": [[*each.chunk, *each.expression] for each in self.phrases],
            "candidates": [
                [each.phrase, *each.box.corners, each.score] for each in self.candidates
            ],
            **({} if self.phash is None else {"phash": f"{self.phash:016x}"}),
            **({} if self.measured == NOTHING else {"measured": self.measured.to_dict()}),
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
            phash=int(row["phash"], 16) if "phash" in row else None,
            measured=Measured.from_dict(row.get("measured", {})),
        )


@dataclass(frozen=True, slots=True)
class Discarded:
    """A pair that gives no record, and why."""

    id: str
    reason: str
    """One of few, to be counted."""
    detail: str = ""


def look(
    pairs: Sequence[Pair],
    recipe: GritRecipe,
    parser: Parser,
    detector: Detector,
    funnel: Funnel,
    measurer: Measurer = UNMEASURED,
) -> list[Looked | Discarded]:
    """Return what the detector found for each pair, in order, or why it was not asked.

    Counted is what is dropped here; what goes on is counted where it ends, in `Selection`.
    """
    funnel.pairs.entered += len(pairs)
    reasons = [refuse_pair(each.caption, *_size(each), recipe.filters) for each in pairs]
    able = [pair for pair, reason in zip(pairs, reasons, strict=True) if not reason]
    parses = parser.parse(pair.caption for pair in able)
    wanted = [
        (pair, _wanted(parse, recipe, funnel)) for pair, parse in zip(able, parses, strict=True)
    ]
    boxes = iter(detector.detect([_asked(pair, kept) for pair, kept in wanted if kept]))
    found = [
        _looked(pair, kept, next(boxes) if kept else Refused(NO_PHRASE), recipe, funnel)
        for pair, kept in wanted
    ]
    looked = iter(_measured([pair for pair, _ in wanted], found, measurer))
    return [
        _discarded(pair.id, reason, funnel) if reason else next(looked)
        for pair, reason in zip(pairs, reasons, strict=True)
    ]


def _size(pair: Pair) -> tuple[int, int]:
    """Return pixels where the picture came from; what is opened may be a smaller copy."""
    width, height = pair.image.size
    return pair.record.width or width, pair.record.height or height


def _wanted(parse: Parse, recipe: GritRecipe, funnel: Funnel) -> tuple[Phrase, ...]:
    kept = []
    for each in phrases(parse, recipe.phrases):
        funnel.phrases.entered += 1
        if isinstance(each, Phrase):
            kept.append(each)
        else:
            funnel.phrases.dropped[each.reason] += 1
    return tuple(kept)


def _asked(pair: Pair, kept: Sequence[Phrase]) -> Asked:
    spans = tuple(each.chunk for each in kept)
    return Asked(id=pair.id, image=pair.image, caption=pair.caption, spans=spans)


def _looked(
    pair: Pair,
    kept: tuple[Phrase, ...],
    boxes: Sequence[Candidate] | Refused,
    recipe: GritRecipe,
    funnel: Funnel,
) -> Looked | Discarded:
    if isinstance(boxes, Refused):
        if kept:
            funnel.phrases.dropped[boxes.reason] += len(kept)
        return _discarded(pair.id, boxes.reason, funnel)
    above = tuple(rounded(each) for each in boxes if each.score >= recipe.linking.floor)
    funnel.boxes.entered += len(boxes)
    if len(above) < len(boxes):
        funnel.boxes.dropped["under the floor"] += len(boxes) - len(above)
    phash = perceptual_hash(pair.image) if recipe.filters.needs_hashes else None
    return Looked(record=pair.record, phrases=kept, candidates=above, phash=phash)


def _measured(
    pairs: Sequence[Pair], looked: Sequence[Looked | Discarded], measurer: Measurer
) -> list[Looked | Discarded]:
    """Return the same with what was measured of those that have boxes."""
    seen = [
        Seen(asked=_asked(pair, each.phrases), phrases=each.phrases, candidates=each.candidates)
        for pair, each in zip(pairs, looked, strict=True)
        if isinstance(each, Looked) and each.candidates
    ]
    measured = iter(measurer.measure(seen))
    return [
        replace(each, measured=next(measured))
        if isinstance(each, Looked) and each.candidates
        else each
        for each in looked
    ]


def _discarded(id: str, reason: str, funnel: Funnel) -> Discarded:
    funnel.pairs.dropped[reason] += 1
    return Discarded(id, reason)
