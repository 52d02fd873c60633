import json
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.errors import ConfigError
from kosmos2.grit.calibration import MIN_BOXES, Calibration, Step, carry, fit, pool, read
from kosmos2.grit.detectors import Oracle

ORACLE = Oracle({})


def measured(*steps: tuple[float, int, int]) -> Calibration:
    return Calibration(
        detector=dict(ORACLE.identity),
        score=ORACLE.score,
        source="made up",
        command="none",
        steps=tuple(Step(score=s, boxes=b, right=r) for s, b, r in steps),
    )


def fitted(judged: Sequence[tuple[float, bool]]) -> Calibration:
    return fit(judged, ORACLE, source="made up", command="none")


KNOWN = measured((0.1, 60, 15), (0.5, 30, 15), (0.8, 10, 9))
# Kept at 0.1: 39 of 100; at 0.5: 24 of 40; at 0.8: 9 of 10.


def test_precision_is_the_share_of_right_boxes_among_those_kept() -> None:
    assert [KNOWN.precision_at(score) for score in (0.1, 0.5, 0.8)] == [0.39, 0.6, 0.9]
    assert KNOWN.precision_at(0.3) == pytest.approx((0.39 + 0.6) / 2)
    assert (KNOWN.precision_at(0.0), KNOWN.precision_at(1.0)) == (0.39, 0.9)


def test_probability_is_that_of_boxes_with_such_a_score() -> None:
    assert [KNOWN.probability_at(score) for score in (0.0, 0.1, 0.49, 0.5, 0.95)] == [
        0.25, 0.25, 0.25, 0.5, 0.9,
    ]  # fmt: skip


@given(st.floats(0.39, 0.9))
def test_a_threshold_has_the_precision_that_it_was_asked_for(precision: float) -> None:
    threshold = KNOWN.threshold_for(precision)
    assert KNOWN.precision_at(threshold) == pytest.approx(precision)
    assert 0.1 <= threshold <= 0.8


def test_what_is_always_reached_needs_no_threshold_above_the_lowest_score() -> None:
    assert KNOWN.threshold_for(0.2) == 0.1


@pytest.mark.parametrize("precision", [0.91, 1.5, -0.1])
def test_a_precision_out_of_reach_is_refused_with_what_is_in_reach(precision: float) -> None:
    with pytest.raises(ConfigError, match=r"surest 10 boxes.*0\.900"):
        KNOWN.threshold_for(precision)


def test_a_threshold_is_carried_to_another_detector_by_its_precision() -> None:
    other = measured((0.01, 50, 10), (0.03, 50, 40))
    threshold = carry(0.3, KNOWN, other)
    assert 0.01 <= threshold <= 0.03
    assert other.precision_at(threshold) == pytest.approx(max(0.5, KNOWN.precision_at(0.3)))


steps_of_any_kind = st.lists(
    st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    min_size=1,
    max_size=5,
)


@given(steps_of_any_kind)
def test_pooling_is_the_nearest_rising_fit(counts: list[tuple[int, int]]) -> None:
    # Against the min-max formula of isotonic regression.
    steps = [Step(score=n / 10, boxes=b, right=r) for n, (b, r) in enumerate(counts)]
    fit_of_each = {}
    for step in pool(steps):
        start = round(step.score * 10)
        count, covered = step.boxes, start
        while count:
            count -= counts[covered][0]
            fit_of_each[covered] = step.share
            covered += 1
    for at in range(len(counts)):
        shares = {
            (low, high): sum(r for _, r in counts[low : high + 1])
            / sum(b for b, _ in counts[low : high + 1])
            for low, high in product(range(at + 1), range(at, len(counts)))
        }
        expected = max(
            min(shares[low, high] for high in range(at, len(counts))) for low in range(at + 1)
        )
        assert fit_of_each[at] == pytest.approx(expected)


@given(st.integers(0, 2**32), st.integers(MIN_BOXES, 400), st.sampled_from([5, 1000]))
def test_precision_never_falls_and_all_boxes_are_counted(
    seed: int, boxes: int, distinct: int
) -> None:
    chance = random.Random(seed)
    scores = [chance.randrange(distinct) / distinct for _ in range(boxes)]
    judged = [(score, chance.random() < score) for score in scores]
    found = fitted(judged)
    precisions = [found.precision_at(n / 50) for n in range(51)]
    assert precisions == sorted(precisions)
    assert sum(step.boxes for step in found.steps) == boxes
    assert sum(step.right for step in found.steps) == sum(is_right for _, is_right in judged)
    for step in found.steps:  # at a step the precision is that of the data, exactly
        kept = [is_right for score, is_right in judged if score >= step.score]
        assert found.precision_at(step.score) == sum(kept) / len(kept)


def test_the_order_of_judged_boxes_does_not_matter() -> None:
    chance = random.Random(0)
    judged = [(n / 500, chance.random() < n / 500) for n in range(500)]
    shuffled = chance.sample(judged, len(judged))
    assert fitted(judged) == fitted(shuffled)


def test_a_fit_of_known_probabilities_finds_them() -> None:
    chance = random.Random(0)
    judged = [
        (score, chance.random() < score**2) for score in (chance.random() for _ in range(20000))
    ]
    found = fitted(judged)
    for score in (0.3, 0.6, 0.9):
        assert found.probability_at(score) == pytest.approx(score**2, abs=0.06)
        above = (1 - score**3) / 3 / (1 - score)  # the mean of x² from the score to 1
        assert found.precision_at(score) == pytest.approx(above, abs=0.02)


@pytest.mark.parametrize(
    "judged", [[], [(0.5, True)] * (MIN_BOXES - 1), [(float("nan"), True)] * MIN_BOXES]
)
def test_too_few_boxes_are_refused(judged: list[tuple[float, bool]]) -> None:
    with pytest.raises(ConfigError, match="at least 20"):
        fitted(judged)


def test_a_file_reads_back_equal_and_holds_its_source(tmp_path: Path) -> None:
    path = tmp_path / "oracle.json"
    KNOWN.write(path)
    assert read(path) == KNOWN
    tree = json.loads(path.read_text())
    assert tree["steps"] == [[0.1, 60, 15], [0.5, 30, 15], [0.8, 10, 9]]
    assert (tree["source"], tree["command"]) == ("made up", "none")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [[0.5, 10, 5], [0.4, 10, 9]],
        [[0.4, 10, 5], [0.5, 10, 5]],
        [[0.4, 10, 11]],
        [[0.4, 0, 0]],
        [[1.4, 10, 5]],
        [[0.4, 10]],
        "steps",
    ],
)
def test_steps_that_cannot_be_are_refused(tmp_path: Path, steps: Any) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(
        json.dumps({"detector": {}, "score": "", "source": "", "command": "", "steps": steps})
    )
    with pytest.raises(ConfigError, match=r"wrong\.json"):
        read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"wrong\.json"):
        read(path)
    with pytest.raises(ConfigError, match="nowhere"):
        read(tmp_path / "nowhere.json")


def test_only_the_detector_that_was_measured_may_use_it() -> None:
    class Other(Oracle):
        score = "something else"

    class Newer(Oracle):
        @property
        def identity(self) -> dict[str, str]:
            return {"detector": "oracle", "weights": "sha256:01"}

    KNOWN.require(ORACLE)
    with pytest.raises(ConfigError, match="something else"):
        KNOWN.require(Other({}))
    with pytest.raises(ConfigError, match="sha256:01"):
        KNOWN.require(Newer({}))
