"""What a detector's scores are worth: measured precision, so that thresholds can be compared.

0.65 is the paper's threshold for GLIP's scores. For another detector it means nothing: map it by
the precision that it has for one and needs for the other (`carry`). A file is made once for each
detector from boxes that were judged right or wrong (`fit`), and reads

    {"detector": {"detector": "mm-grounding-dino", "weights": "sha256:…", …},
     "score": "mean over a phrase's tokens of …",
     "source": "truth.jsonl sha256:…, 2,000 pairs; right is IoU >= 0.5 with …",
     "command": "kosmos2 grit calibrate …",
     "steps": [[0.05, 4000, 812], [0.31, 900, 540], [0.58, 700, 651]]}

where a step is its lowest score, its boxes, and the right ones among them. From step to step the
share of right boxes rises: where it did not in the data, steps were pooled (isotonic regression).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol

from kosmos2.errors import ConfigError
from kosmos2.grit.linking import SCORE_DIGITS
from kosmos2.grit.recipe import GritRecipe
from kosmos2.weights.tensors import sha256

MIN_BOXES = 20
"""Boxes of a step before pooling: one lucky box at the top is no evidence of certainty."""


class Scored(Protocol):
    """Whose scores they are: a detector, or what is known of one that is not loaded."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Return what its boxes depend on."""

    @property
    def score(self) -> str:
        """Return what its scores are, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a detector that is not loaded."""

    identity: Mapping[str, str]
    score: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Boxes with neighbouring scores."""

    score: float
    """The lowest of them."""
    boxes: int
    right: int

    @property
    def share(self) -> float:
        return self.right / self.boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Precision against score, for one detector."""

    detector: Mapping[str, str]
    """Its identity."""
    score: str
    """What its scores are."""
    source: str
    """Which boxes were judged, against what truth, by which measure."""
    command: str
    """What made this file."""
    steps: tuple[Step, ...]
    """With rising scores and shares."""

    def __post_init__(self) -> None:
        rising = all(a.score < b.score and a.share < b.share for a, b in pairwise(self.steps))
        sound = all(each.boxes > 0 and 0 <= each.right <= each.boxes for each in self.steps)
        if not (self.steps and sound and rising and all(0 <= s.score <= 1 for s in self.steps)):
            raise ConfigError(
                "a calibration needs steps (score, boxes, right) with 0 <= right <= boxes, "
                "scores in 0..1, and both scores and shares of right boxes rising; got "
                f"{[(each.score, each.boxes, each.right) for each in self.steps][:5]}"
            )

    def probability_at(self, score: float) -> float:
        """Return how probable it is that a box with just this score is right."""
        at = bisect_right([each.score for each in self.steps], score)
        return self.steps[max(at - 1, 0)].share

    @property
    def boxes(self) -> int:
        """Return how many were judged."""
        return sum(each.boxes for each in self.steps)

    def precision_at(self, threshold: float) -> float:
        """Return the share of right boxes among those that a threshold keeps.

        Linear between the steps, never falling; the ends' values beyond them.
        """
        return _between(self._scores, self._precisions, threshold)

    def threshold_for(self, precision: float) -> float:
        """Return the lowest threshold that keeps boxes of this precision or a better one."""
        if not 0 <= precision <= self._precisions[-1]:
            best = self.steps[-1]
            raise ConfigError(
                f"no threshold of this detector gives a precision of {precision}: its surest "
                f"{best.boxes} boxes, with scores from {best.score:g}, have {best.share:.3f} "
                f"({self.source})"
            )
        return _between(self._precisions, self._scores, precision)

    @property
    def _scores(self) -> list[float]:
        return [each.score for each in self.steps]

    @property
    def _precisions(self) -> list[float]:
        """Return the share of right boxes in each step and all above; it rises as shares do."""
        boxes = accumulate(each.boxes for each in reversed(self.steps))
        right = accumulate(each.right for each in reversed(self.steps))
        return [r / b for b, r in zip(boxes, right, strict=True)][::-1]

    def kept_at(self, threshold: float) -> float:
        """Return the share of all judged boxes that a threshold keeps; linear between the steps."""
        kept = list(accumulate(each.boxes for each in reversed(self.steps)))[::-1]
        return _between(self._scores, [boxes / self.boxes for boxes in kept], threshold)

    def require(self, detector: Scored) -> None:
        """Refuse a detector whose scores or weights are not those that were measured."""
        told = detector.identity
        keys = [key for key in ("detector", "weights") if key in self.detector or key in told]
        other = [
            f"{key} {self.detector.get(key)!r}, not {told.get(key)!r}"
            for key in keys
            if self.detector.get(key) != told.get(key)
        ]
        if self.score != detector.score:
            other.append(f"scores as {self.score!r}, not {detector.score!r}")
        if other:
            raise ConfigError(
                f"detection.calibration was measured for {'; '.join(other)}. Measure this "
                "detector, or give its threshold itself (linking.threshold)"
            )

    def write(self, path: Path) -> None:
        """Write the file; it appears whole."""
        steps = [[each.score, each.boxes, each.right] for each in self.steps]
        part = path.with_name(f"{path.name}.part")
        text = json.dumps({**asdict(self), "detector": dict(self.detector), "steps": steps})
        part.write_text(f"{text}\n", encoding="utf-8")
        part.replace(path)


def read(path: Path) -> Calibration:
    """Return the calibration of a file."""
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(
            detector={str(key): str(value) for key, value in tree["detector"].items()},
            score=str(tree["score"]),
            source=str(tree["source"]),
            command=str(tree["command"]),
            steps=tuple(
                Step(score=float(score), boxes=int(boxes), right=int(right))
                for score, boxes, right in tree["steps"]
            ),
        )
    except OSError as error:
        raise ConfigError(f"cannot read the calibration {path}: {error.strerror}") from error
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is no calibration file: {error!r}") from error


def fit(
    judged: Iterable[tuple[float, bool]],
    detector: Scored,
    *,
    source: str,
    command: str,
) -> Calibration:
    """Return the calibration of a detector from its boxes: each one's score, and is it right."""
    return Calibration(
        detector=dict(detector.identity),
        score=detector.score,
        source=source,
        command=command,
        steps=pool(_steps(sorted(judged))),
    )


def pool(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return steps with rising shares: those nearest to the given ones in squared distance.

    Neighbours whose shares do not rise become one (pool adjacent violators).
    """
    pooled: list[Step] = []
    for step in steps:
        while pooled and pooled[-1].share >= step.share:
            below = pooled.pop()
            step = Step(
                score=below.score, boxes=below.boxes + step.boxes, right=below.right + step.right
            )
        pooled.append(step)
    return tuple(pooled)


def carry(threshold: float, source: Calibration, target: Calibration) -> float:
    """Return the threshold of one detector that keeps boxes as precise as another's does."""
    return target.threshold_for(source.precision_at(threshold))


def resolved(recipe: GritRecipe, detector: Scored) -> GritRecipe:
    """Return the recipe with the threshold that its calibration gives, where it asks for one."""
    rules = recipe.linking
    if not (rules.precision or rules.as_of):
        return recipe
    measured = read(Path(recipe.detection.calibration))
    measured.require(detector)
    if rules.precision:
        threshold = measured.threshold_for(rules.precision)
    else:
        threshold = carry(rules.threshold, read(Path(rules.as_of)), measured)
    return replace(
        recipe, linking=replace(rules, threshold=_just_under(threshold), precision=0.0, as_of="")
    )


def provenance(recipe: GritRecipe) -> dict[str, str | float]:
    """Return where the threshold of `resolved` comes from, for a record's provenance."""
    rules = recipe.linking
    if not (rules.precision or rules.as_of):
        return {}
    told: dict[str, str | float] = {
        "linking.calibration": f"sha256:{sha256(Path(recipe.detection.calibration))}"
    }
    if rules.precision:
        return {**told, "linking.precision": rules.precision}  # `precision` is a detector's dtype
    other = Path(rules.as_of)
    return {**told, "linking.as_of": f"{rules.threshold} of {other.name} sha256:{sha256(other)}"}


def _just_under(threshold: float) -> float:
    """Return the highest number of four digits below: a box must have more than a threshold, and
    the calibration counts those that have as much."""
    unit: float = 10**SCORE_DIGITS
    return max(math.ceil(round(threshold * unit, 6)) - 1, 0) / unit


def _steps(judged: Sequence[tuple[float, bool]]) -> list[Step]:
    """Return steps of at least MIN_BOXES boxes; equal scores are never parted."""
    if len(judged) < MIN_BOXES or not all(math.isfinite(score) for score, _ in judged):
        raise ConfigError(
            f"a calibration needs at least {MIN_BOXES} judged boxes with scores that are numbers, "
            f"got {len(judged)}"
        )
    steps: list[Step] = []
    start = 0
    for stop in range(1, len(judged) + 1):
        is_last = stop == len(judged)
        full = stop - start >= MIN_BOXES and len(judged) - stop >= MIN_BOXES
        if is_last or (full and judged[stop][0] != judged[stop - 1][0]):
            right = sum(is_right for _, is_right in judged[start:stop])
            steps.append(Step(score=judged[start][0], boxes=stop - start, right=right))
            start = stop
    return steps


def _between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Return y at x on the line through points with rising x; the ends' values beyond them."""
    at = bisect_right(xs, x)
    if at == 0 or at == len(xs):
        return ys[max(at - 1, 0)]
    share = (x - xs[at - 1]) / (xs[at] - xs[at - 1])
    return ys[at - 1] + share * (ys[at] - ys[at - 1])
