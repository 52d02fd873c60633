"""Numbers equal their definitions, written slowly, and say as much as there is to know."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.boxes import Box, iou
from kosmos2.evaluation.metrics import Match, Part, Thing, auroc, match, mean, share, wilson

HALVES = (Box(0, 0, 0.5, 1), Box(0.1, 0, 0.5, 1), Box(0, 0.2, 0.5, 1), Box(0.5, 0, 1, 1))
things = st.lists(
    st.builds(Thing, st.sampled_from(["dog", "cat"]), st.sampled_from(HALVES) | st.from_type(Box)),
    max_size=5,
)
pictures = st.sampled_from("abcdef")
outcomes = st.lists(st.tuples(pictures, st.booleans()), min_size=1, max_size=20)


def parts(outcomes: list[tuple[str, bool]]) -> list[Part]:
    return [Part(picture, float(right), 1.0) for picture, right in outcomes]


def slow_match(predicted: list[Thing], true: list[Thing], at_least: float) -> list[Match]:
    """Take the best pair that is left, again and again."""
    left = [
        Match(i, j, iou(one.box, other.box))
        for i, one in enumerate(predicted)
        for j, other in enumerate(true)
        if one.noun == other.noun
    ]
    pairs: list[Match] = []
    while left and (best := max(left, key=lambda pair: pair.overlap)).overlap >= at_least:
        pairs.append(best)
        left = [x for x in left if x.predicted != best.predicted and x.true != best.true]
    return pairs


def most_pairs(predicted: list[Thing], true: list[Thing], at_least: float) -> int:
    """Try all ways to pair."""
    if not predicted:
        return 0
    first, *rest = predicted
    counts = [most_pairs(rest, true, at_least)]
    for j, other in enumerate(true):
        if first.noun == other.noun and iou(first.box, other.box) >= at_least:
            counts.append(1 + most_pairs(rest, true[:j] + true[j + 1 :], at_least))
    return max(counts)


@given(things, things, st.sampled_from([0.0, 0.5]))
def test_matching_takes_the_best_pair_that_is_left(
    predicted: list[Thing], true: list[Thing], at_least: float
) -> None:
    assert list(match(predicted, true, at_least=at_least)) == slow_match(predicted, true, at_least)


@given(things, things)
def test_matching_pairs_at_least_half_of_what_can_be_paired(
    predicted: list[Thing], true: list[Thing]
) -> None:
    pairs = match(predicted, true, at_least=0.5)
    assert len(pairs) <= most_pairs(predicted, true, 0.5) <= 2 * len(pairs)


@given(things, things)
def test_without_a_limit_as_many_are_paired_as_nouns_agree(
    predicted: list[Thing], true: list[Thing]
) -> None:
    agreeing = sum(
        min(sum(x.noun == noun for x in predicted), sum(x.noun == noun for x in true))
        for noun in ("dog", "cat")
    )
    assert len(match(predicted, true, at_least=0.0)) == agreeing


@given(things)
def test_things_match_themselves_whole(true: list[Thing]) -> None:
    pairs = match(list(reversed(true)), true, at_least=0.5)
    assert len(pairs) == len(true)
    assert all(pair.overlap == 1 for pair in pairs)


@given(st.integers(1, 400), st.floats(0, 1))
def test_the_ends_of_wilsons_interval_are_shares_from_which_the_value_is_1_96_deviations_away(
    n: int, part: float
) -> None:
    value = round(part * n) / n
    for end in wilson(value, n):
        assert abs(value - end) == pytest.approx(
            1.959964 * math.sqrt(end * (1 - end) / n), abs=1e-6
        )


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_share_of_one_answer_a_picture_has_wilsons_interval(right: list[bool]) -> None:
    number = share([Part(str(n), float(each), 1.0) for n, each in enumerate(right)])
    assert number.value == pytest.approx(sum(right) / len(right))
    assert number.n == len(right)
    assert (number.low, number.high) == pytest.approx(wilson(number.value, len(right)))


@given(outcomes)
def test_asking_everything_about_a_picture_twice_tells_nothing_new(
    outcomes: list[tuple[str, bool]],
) -> None:
    same = [(picture, all(r for p, r in outcomes if p == picture)) for picture, _ in outcomes]
    once = share(parts(list(dict.fromkeys(same))))
    twice = share(parts(list(dict.fromkeys(same)) * 2))
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))
    assert twice.n == 2 * once.n


@given(outcomes)
def test_a_share_lies_in_its_interval_whatever_the_order(
    outcomes: list[tuple[str, bool]],
) -> None:
    number, turned = share(parts(outcomes)), share(parts(outcomes[::-1]))
    assert 0 <= number.low <= number.value <= number.high <= 1
    assert number.value == pytest.approx(sum(right for _, right in outcomes) / len(outcomes))
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (number.value, number.low, number.high)
    )


def test_a_share_of_nothing_is_nothing_and_nothing_is_known_of_it() -> None:
    number = share([Part("a", 0.0, 0.0)])
    assert (number.value, number.n, number.low, number.high) == (0.0, 0, 0.0, 1.0)


@given(st.lists(st.tuples(pictures, st.floats(0, 1)), min_size=1, max_size=20))
def test_a_mean_is_the_mean_and_lies_in_its_interval(drawn: list[tuple[str, float]]) -> None:
    number = mean([Part(picture, value, 1.0) for picture, value in drawn])
    assert number.value == pytest.approx(statistics.fmean(value for _, value in drawn))
    assert number.low <= number.value <= number.high
    assert number.n == len(drawn)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation_for_many_pictures() -> None:
    values = [(n * 37 % 101) / 101 for n in range(400)]
    number = mean([Part(str(n), value, 1.0) for n, value in enumerate(values)])
    half = 1.96 * statistics.pstdev(values) / math.sqrt(len(values))
    assert number.high - number.value == pytest.approx(half, rel=0.15)
    assert number.value - number.low == pytest.approx(half, rel=0.15)


def test_the_interval_of_a_mean_is_wider_where_answers_of_a_picture_go_together() -> None:
    alone = mean([Part(str(n), n % 2, 1.0) for n in range(100)])
    together = mean([Part(str(n // 10), n // 10 % 2, 1.0) for n in range(100)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


@given(
    st.lists(
        st.tuples(pictures, st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9])),
        min_size=2,
        max_size=20,
    ).filter(lambda drawn: len({right for _, right, _ in drawn}) == 2)
)
def test_auroc_counts_the_pairs_in_which_the_right_one_scores_higher(
    drawn: list[tuple[str, bool, float]],
) -> None:
    of_right = [score for _, right, score in drawn if right]
    of_wrong = [score for _, right, score in drawn if not right]
    won = sum((r > w) + (r == w) / 2 for r in of_right for w in of_wrong)
    scenes, right, scores = zip(*drawn, strict=True)
    number = auroc(scores, right, scenes)
    assert number.value == pytest.approx(won / (len(of_right) * len(of_wrong)))
    assert number.low <= number.value <= number.high
