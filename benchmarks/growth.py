"""How the time grows: straight lines fitted to some points and held against others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import prompts
from benchmarks.contest import timed
from benchmarks.machine import Load
from benchmarks.ours import Ours
from benchmarks.samples import fit, predict, spread
from benchmarks.tables import PHRASE_TOKENS, Setup

Point = tuple[int, ...]
Term = tuple[str, Callable[[Point], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One kind of growth: its inputs, the terms of its line, the points that are measured."""

    name: str
    inputs: tuple[str, ...]
    terms: tuple[Term, ...]
    fitted: tuple[Point, ...]
    held_out: tuple[Point, ...]


STEP = Growth(
    name="a decode step",
    inputs=("rows", "tokens before"),
    terms=(
        ("", lambda point: 1.0),
        ("rows", lambda point: point[0]),
        ("rows x tokens before", lambda point: point[0] * point[1]),
    ),
    fitted=((1, 100), (2, 100), (4, 100), (8, 100), (1, 800), (4, 800), (8, 800)),
    held_out=((1, 600), (3, 400), (6, 250), (8, 500)),
)
PHRASES = Growth(
    name="phrases about one encoded picture",
    inputs=("phrases",),
    terms=(("", lambda point: 1.0), ("phrases", lambda point: point[0])),
    fitted=((1,), (4,), (16,)),
    held_out=((8,), (12,)),
)
STEPS = 3
ROUNDS, QUICK_ROUNDS = 5, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One point: milliseconds measured, and on the line through the fitted points."""

    point: Point
    measured: float
    predicted: float
    held_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A fitted cost."""

    growth: str
    inputs: tuple[str, ...]
    contestant: str
    terms: Mapping[str, float]
    """Milliseconds for each unit of a term; "" is the constant."""
    points: tuple[Measured, ...]


def line(growth: Growth, contestant: str, milliseconds: Mapping[Point, float]) -> Line:
    """Fit the line to its points and hold it against all."""
    rows = {point: [term(point) for _, term in growth.terms] for point in milliseconds}
    coefficients = fit(
        [rows[point] for point in growth.fitted], [milliseconds[point] for point in growth.fitted]
    )
    return Line(
        growth=growth.name,
        inputs=growth.inputs,
        contestant=contestant,
        terms={name: value for (name, _), value in zip(growth.terms, coefficients, strict=True)},
        points=tuple(
            Measured(
                point=point,
                measured=measured,
                predicted=predict(rows[point], coefficients),
                held_out=point in growth.held_out,
            )
            for point, measured in milliseconds.items()
        ),
    )


def measure(names: Sequence[str], setup: Setup) -> tuple[list[dict[str, Any]], float]:
    """Return the lines of some of our contestants, and the share of others meanwhile."""
    rounds = QUICK_ROUNDS if setup.quick else ROUNDS
    lines = []
    with Load() as load:
        for contestant in setup.lineup.get(names):
            assert isinstance(contestant, Ours)
            for growth, sample in (
                (STEP, _stepper(contestant)),
                (PHRASES, _asker(contestant, setup)),
            ):
                lines.append(line(growth, contestant.name, _medians(growth, sample, rounds)))
    return [asdict(each) for each in lines], load.others


def _medians(growth: Growth, sample: Callable[[Point], float], rounds: int) -> dict[Point, float]:
    points = (*growth.fitted, *growth.held_out)
    seconds: dict[Point, list[float]] = {point: [] for point in points}
    for _ in range(rounds):
        for point in points:
            seconds[point].append(sample(point))
    return {point: 1000 * spread(values).median for point, values in seconds.items()}


def _stepper(contestant: Ours) -> Callable[[Point], float]:
    points = (*STEP.fitted, *STEP.held_out)
    most_rows, longest = (max(values) for values in zip(*points, strict=True))
    state = contestant.filled(most_rows, longest)

    def sample(point: Point) -> float:
        rows = contestant.first_rows(state, *point)
        contestant.step(rows)
        return timed(lambda: contestant.step(rows), STEPS)

    return sample


def _asker(contestant: Ours, setup: Setup) -> Callable[[Point], float]:
    config = setup.lineup.config
    latents_QD = contestant.encode(prompts.pictures(config, 1))[0]
    return lambda point: timed(
        lambda: contestant.answer(prompts.phrases(config, *point), latents_QD, PHRASE_TOKENS)
    )
