"""From a recipe's `[quality]` to what measures it, and what that depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from kosmos2.boxes import Box
from kosmos2.grit import detect, nsfw, round_trip, similarity
from kosmos2.grit.detectors import Detector, Refused
from kosmos2.grit.linking import Candidate, link, rounded
from kosmos2.grit.measures import DIGITS, Measured, Seen
from kosmos2.grit.recipe import Detection, GritRecipe, Linking, Quality


class OfPictures(Protocol):
    def score(self, images: Sequence[Image.Image]) -> list[float]:
        """Return a number for each upright RGB picture."""


class OfPairs(Protocol):
    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        """Return a number for each upright RGB picture with its caption."""


class OfBoxes(Protocol):
    def measure(
        self, images: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]
    ) -> list[list[float]]:
        """Return a number for each normalised box of each upright RGB picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorers:
    """What measures; None is not asked for."""

    linking: Linking
    """Boxes that it leaves are described; its floor holds for the second detector too."""
    nsfw: OfPictures | None = None
    similarity: OfPairs | None = None
    round_trip: OfBoxes | None = None
    second: Detector | None = None

    def measure(self, seen: Sequence[Seen]) -> list[Measured]:
        """Return what was measured of each pair, rounded so that processors agree."""
        images = [each.asked.image for each in seen]
        nothing = [None] * len(seen)
        nsfw = self.nsfw.score(images) if self.nsfw else nothing
        similarity = (
            self.similarity.score(images, [each.asked.caption for each in seen])
            if self.similarity
            else nothing
        )
        trips = self._trips(seen, self.round_trip) if self.round_trip else nothing
        second = self._second(seen, self.second) if self.second else nothing
        return [
            Measured(nsfw=_short(n), similarity=_short(s), round_trip=t, second=b)
            for n, s, t, b in zip(nsfw, similarity, trips, second, strict=True)
        ]

    def _trips(self, seen: Sequence[Seen], scorer: OfBoxes) -> list[tuple[float | None, ...]]:
        kept = [link(each.phrases, each.candidates, self.linking).kept for each in seen]
        going = [number for number, own in enumerate(kept) if own]
        values = iter(
            scorer.measure(
                [seen[number].asked.image for number in going],
                [[each.box for each in kept[number]] for number in going],
            )
        )
        known = [dict(zip(own, next(values), strict=True)) if own else {} for own in kept]
        return [
            tuple(_short(own.get(candidate)) for candidate in each.candidates)
            for each, own in zip(seen, known, strict=True)
        ]

    def _second(
        self, seen: Sequence[Seen], detector: Detector
    ) -> list[tuple[Candidate, ...] | None]:
        """Return the boxes above the floor; None where the detector cannot read the pair."""
        return [
            None
            if isinstance(boxes, Refused)
            else tuple(rounded(each) for each in boxes if each.score >= self.linking.floor)
            for boxes in detector.detect([each.asked for each in seen])
        ]


def identity(recipe: GritRecipe) -> Mapping[str, str]:
    """Return what the values depend on: models, weights, settings. Loads no weights."""
    quality = recipe.quality
    told: dict[str, Mapping[str, str]] = {}
    if quality.round_trip:
        told["described"] = {"by": str(_described_by(recipe.linking))}
        told["round_trip"] = detect.identity(_describer(quality))
    if quality.nsfw:
        told["nsfw"] = nsfw.identity(quality.nsfw)
    if quality.similarity:
        told["similarity"] = similarity.identity(quality)
    if quality.second:
        told["second"] = detect.identity(quality.second)
    return {f"{name}.{key}": value for name, own in told.items() for key, value in own.items()}


def load(recipe: GritRecipe) -> Scorers:
    """Return what measures the columns of a recipe, with weights on their devices.

    `linking.threshold` is used as it is: see `calibration.resolved`.
    """
    quality = recipe.quality
    return Scorers(
        linking=recipe.linking,
        nsfw=nsfw.load(quality.nsfw) if quality.nsfw else None,
        similarity=similarity.load(quality) if quality.similarity else None,
        round_trip=round_trip.load(quality) if quality.round_trip else None,
        second=detect.load(quality.second) if quality.second else None,
    )


def _describer(quality: Quality) -> Detection:
    return Detection(
        name="kosmos2",
        model=quality.round_trip,
        device=quality.device,
        dtype=quality.dtype,
        batch_size=quality.batch_size,
    )


def _described_by(linking: Linking) -> dict[str, object]:
    """Return the settings of linking that say which boxes are described."""
    names = ("nms_iou", "threshold", "boxes_per_phrase", "contained")
    return {name: getattr(linking, name) for name in names}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
