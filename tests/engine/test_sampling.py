"""The rules as functions of scores, against transformers' processors and slow, obvious ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kosmos2.engine import NoRepeat, Rules, Sampling, compat
from kosmos2.engine.sampling import (
    BREAK,
    HEAD,
    Draws,
    decide,
    draw,
    forbid,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    leave_some,
    penalize,
    pick,
    repeats,
    restrict,
)
from kosmos2.errors import RequestError

seeds = st.integers(0, 2**31)
fractions = st.floats(0.01, 1.0)
texts = st.lists(st.integers(0, 4), min_size=1, max_size=30)
NO_IDS = torch.zeros(1, 1, dtype=torch.long)
WIDE = 4 * HEAD
PINNED = [0.7283479541790344, 0.8033384902111143, 0.2441952288739867]


def scores(seed: int, size: int = 20, *, rows: int = 1) -> Tensor:
    return 3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def tied(seed: int, size: int = 20, *, rows: int = 1) -> Tensor:
    """Return scores of which many are equal."""
    return scores(seed, size, rows=rows).round() / 2


# --- top-k, top-p, min-p


def slow_top_p(scores_V: Tensor, p: float) -> set[int]:
    probabilities = scores_V.double().softmax(-1).tolist()
    kept, mass = set(), 0.0
    for id in sorted(range(len(probabilities)), key=lambda id: (-probabilities[id], id)):
        if mass >= p:
            break
        kept.add(id)
        mass += probabilities[id]
    return kept


def kept_ids(scores_RV: Tensor) -> list[set[int]]:
    return [set((row > -torch.inf).nonzero()[:, 0].tolist()) for row in scores_RV]


@given(seeds, fractions, st.sampled_from([scores, tied]), st.sampled_from([5, 20, WIDE]))
def test_top_p_keeps_the_smallest_prefix_whose_mass_reaches_p(
    seed: int, p: float, make: Callable[[int, int], Tensor], size: int
) -> None:
    scores_RV = make(seed, size).double()
    assert kept_ids(keep_top_p(scores_RV, torch.tensor([p]))) == [slow_top_p(scores_RV[0], p)]


@given(seeds, st.floats(0.05, 0.95), st.sampled_from([20, WIDE]))
def test_top_p_keeps_what_transformers_keeps(seed: int, p: float, size: int) -> None:
    scores_RV = scores(seed, size).double()
    theirs_RV = TopPLogitsWarper(p)(NO_IDS, scores_RV)
    assert torch.equal(keep_top_p(scores_RV, torch.tensor([p], dtype=torch.float64)), theirs_RV)


def test_top_p_is_the_same_whether_a_mate_needs_all_tokens_sorted_or_not() -> None:
    peaked_RV, flat_RV = 3 * scores(0, WIDE), 0 * scores(1, WIDE)
    p_R = torch.tensor([0.8, 0.99])
    together_RV = keep_top_p(torch.cat([peaked_RV, flat_RV]), p_R)
    assert torch.equal(together_RV[:1], keep_top_p(peaked_RV, p_R[:1]))
    assert torch.equal(together_RV[1:], keep_top_p(flat_RV, p_R[1:]))
    assert len(kept_ids(together_RV)[0]) < HEAD < len(kept_ids(together_RV)[1])


@given(seeds, st.integers(1, 19), st.sampled_from([scores, tied]))
def test_top_k_keeps_what_transformers_keeps(
    seed: int, k: int, make: Callable[[int], Tensor]
) -> None:
    scores_RV = make(seed)
    theirs_RV = TopKLogitsWarper(k)(NO_IDS, scores_RV)
    assert torch.equal(keep_top_k(scores_RV, torch.tensor([k]), k), theirs_RV)


@given(seeds, st.floats(0.0, 1.0))
def test_min_p_keeps_what_transformers_keeps(seed: int, min_p: float) -> None:
    scores_RV = scores(seed).double()
    theirs_RV = MinPLogitsWarper(min_p)(NO_IDS, scores_RV)
    min_p_R = torch.tensor([min_p], dtype=torch.float64)
    if min_p < 1:  # at 1 the rounding of a softmax decides
        assert torch.equal(keep_min_p(scores_RV, min_p_R), theirs_RV)
    assert kept_ids(keep_min_p(scores_RV, torch.ones(1))) == [{int(scores_RV.argmax())}]


def test_no_limits_change_nothing() -> None:
    scores_RV = scores(0, rows=2)
    assert torch.equal(keep_top_k(scores_RV, torch.tensor([0, 3]), 3)[0], scores_RV[0])
    assert torch.equal(keep_top_p(scores_RV, torch.tensor([1.0, 0.5]))[0], scores_RV[0])
    assert torch.equal(keep_min_p(scores_RV, torch.tensor([0.0, 0.5]))[0], scores_RV[0])


# --- repetition


def repeated(history: Sequence[int], size: int) -> set[int]:
    ids_RM, again_RM = repeats(torch.tensor([history]), torch.tensor([len(history)]), size)
    return set(ids_RM[again_RM].tolist())


@given(texts, st.integers(1, 4))
def test_repeats_are_what_transformers_bans(history: list[int], size: int) -> None:
    history = history + [0] * (size - len(history))
    theirs_RV = NoRepeatNGramLogitsProcessor(size)(torch.tensor([history]), torch.zeros(1, 5))
    assert repeated(history, size) == set((theirs_RV[0] == -torch.inf).nonzero()[:, 0].tolist())


@given(st.lists(st.sampled_from([BREAK, 0, 1]), min_size=3, max_size=30))
def test_no_ngram_reaches_across_a_break(history: list[int]) -> None:
    grams = {tuple(history[at : at + 3]) for at in range(len(history) - 2)}
    ends = {gram for gram in grams if gram[:2] == tuple(history[-2:]) and BREAK not in gram}
    assert repeated(history, 3) == {gram[-1] for gram in ends}


@given(st.lists(texts, min_size=1, max_size=5), st.integers(1, 3))
def test_what_repeats_in_a_row_does_not_depend_on_longer_rows(
    histories: list[list[int]], size: int
) -> None:
    histories = [history + [0] * (size - len(history)) for history in histories]
    lengths = [len(history) for history in histories]
    history_RL = torch.tensor(
        [history + [BREAK] * (max(lengths) - len(history)) for history in histories]
    )
    ids_RM, again_RM = repeats(history_RL, torch.tensor(lengths), size)
    for row, history in enumerate(histories):
        assert set(ids_RM[row][again_RM[row]].tolist()) == repeated(history, size)


@given(seeds, texts, st.floats(0.1, 3.0))
def test_the_penalty_is_what_transformers_does(
    seed: int, history: list[int], penalty: float
) -> None:
    scores_RV, ids_RL = scores(seed).double(), torch.tensor([history])
    theirs_RV = RepetitionPenaltyLogitsProcessor(penalty)(ids_RL, scores_RV)
    penalties_R = torch.tensor([penalty], dtype=torch.float64)
    assert torch.equal(penalize(scores_RV, ids_RL, penalties_R), theirs_RV)


@given(seeds, texts)
def test_ids_without_a_score_are_passed_over(seed: int, history: list[int]) -> None:
    scores_RV, inside = scores(seed), torch.tensor([history])
    around = torch.tensor([[BREAK, -7, *history, 20, 99]])
    everywhere = torch.ones_like(around, dtype=torch.bool)
    penalties_R = torch.tensor([2.0])
    assert torch.equal(
        penalize(scores_RV, around, penalties_R), penalize(scores_RV, inside, penalties_R)
    )
    assert torch.equal(
        forbid(scores_RV, around, everywhere),
        forbid(scores_RV, inside, torch.ones_like(inside, dtype=torch.bool)),
    )


# --- what may be chosen at all


@given(seeds, st.lists(st.integers(0, 19), min_size=1, max_size=40), st.integers(0, 2**40 - 1))
def test_forbid_and_restrict_are_complements(seed: int, ids: list[int], bits: int) -> None:
    scores_RV = scores(seed)
    where = [bool(bits >> at & 1) for at in range(len(ids))]
    forbidden = {id for id, here in zip(ids, where, strict=True) if here}
    allowed_RV = torch.tensor([[id not in forbidden for id in range(20)]])
    ours_RV = forbid(scores_RV, torch.tensor([ids]), torch.tensor([where]))
    assert torch.equal(ours_RV, restrict(scores_RV, allowed_RV))
    assert kept_ids(ours_RV) == [set(range(20)) - forbidden]
    assert torch.equal(scores_RV, scores(seed))


def test_a_row_that_has_nothing_left_is_as_it_was() -> None:
    before_RV = scores(0, rows=2)
    after_RV = before_RV.clone()
    after_RV[0], after_RV[1, :-1] = -torch.inf, -torch.inf
    left_RV = leave_some(after_RV, before_RV)
    assert torch.equal(left_RV, torch.stack([before_RV[0], after_RV[1]]))


@given(st.floats(0.001, 0.999), st.floats(0.0, 1.0))
def test_a_gate_is_yes_from_one_half_on(probability: float, rest: float) -> None:
    shares = [probability, (1 - probability) * rest, (1 - probability) * (1 - rest)]
    logprobs_RV = torch.tensor([shares], dtype=torch.float64).log()
    ids_R, answers_R = decide(logprobs_RV, torch.tensor([0]), torch.tensor([2]))
    assert ids_R.tolist() == [0 if probability >= 0.5 else 2]
    expected = max(probability, 1 - probability)
    assert answers_R.exp().item() == pytest.approx(expected, rel=1e-9)


def test_a_gate_at_exactly_one_half_is_yes() -> None:
    logprobs_RV = torch.zeros(1, 2).log_softmax(-1)
    assert decide(logprobs_RV, torch.tensor([1]), torch.tensor([0]))[0].tolist() == [1]


# --- draws


def drawing(uniforms: Sequence[float], **settings: float) -> Draws:
    """Return how to draw the same distribution once for each uniform number."""
    wanted = Sampling(seed=0, **settings)  # type: ignore[arg-type]
    ones_R = torch.ones(len(uniforms), dtype=torch.float64)
    return Draws(
        temperature_R=wanted.temperature * ones_R,
        k_R=(wanted.top_k * ones_R).long(),
        p_R=wanted.top_p * ones_R,
        min_p_R=wanted.min_p * ones_R,
        uniform_R=torch.tensor(uniforms, dtype=torch.float64),
        most_k=wanted.top_k,
        any_p=wanted.top_p < 1,
        any_min_p=wanted.min_p > 0,
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 2.0},
        {"temperature": 0.5, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.1},
        {"temperature": 1.7, "top_k": 9, "top_p": 0.95, "min_p": 0.05},
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_draws_have_the_frequencies_that_transformers_settings_have(
    seed: int, settings: dict[str, float]
) -> None:
    warpers = {
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    processors = LogitsProcessorList([warpers[name](value) for name, value in settings.items()])
    scores_RV = scores(seed).double()
    expected_V = processors(NO_IDS, scores_RV)[0].softmax(-1)

    num_draws = 4000
    uniforms = [(at + 0.5) / num_draws for at in range(num_draws)]
    ids_R = draw(scores_RV.expand(num_draws, -1), drawing(uniforms, **settings))

    frequencies_V = torch.bincount(ids_R, minlength=20) / num_draws
    torch.testing.assert_close(frequencies_V.double(), expected_V, atol=1 / num_draws, rtol=0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any), st.floats(0, 1))
def test_a_pick_is_where_the_sum_exceeds_the_number(weights: list[int], uniform: float) -> None:
    uniform = min(uniform, 1 - 2**-53)
    total, sums, expected = sum(weights), 0, -1
    for id, weight in enumerate(weights):
        sums += weight
        if expected < 0 and sums > uniform * total:
            expected = id
    ids_R = pick(torch.tensor([weights]).float(), torch.tensor([uniform], dtype=torch.float64))
    assert ids_R.tolist() == [expected]


@given(seeds, st.integers(2, 400))
def test_the_highest_number_picks_a_token_that_can_be_picked(seed: int, size: int) -> None:
    probabilities_RV = scores(seed, size).softmax(-1)
    probabilities_RV[:, size // 2 :] = 0
    ids_R = pick(probabilities_RV, torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert probabilities_RV[0, ids_R[0]] > 0


@given(seeds, st.integers(1, 6), st.sampled_from([20, WIDE]))
def test_a_drawn_row_is_the_same_among_any_mates(seed: int, rows: int, size: int) -> None:
    scores_RV = scores(seed, size, rows=rows)
    generator = torch.Generator().manual_seed(seed)
    random_R = torch.rand(rows, generator=generator, dtype=torch.float64)
    k_R = torch.randint(0, size, (rows,), generator=generator)
    settings = (1 + random_R, k_R, 1.5 - random_R, random_R / 5, random_R)
    together_R = draw(scores_RV, _draws(*settings))
    for row in range(rows):
        alone = _draws(*(each[row : row + 1] for each in settings))
        assert draw(scores_RV[row : row + 1], alone) == together_R[row]


def _draws(
    temperature_R: Tensor, k_R: Tensor, p_R: Tensor, min_p_R: Tensor, uniform_R: Tensor
) -> Draws:
    return Draws(
        temperature_R=temperature_R,
        k_R=k_R,
        p_R=p_R,
        min_p_R=min_p_R,
        uniform_R=uniform_R,
        most_k=int(k_R.max()),
        any_p=bool((p_R < 1).any()),
        any_min_p=bool((min_p_R > 0).any()),
    )


@given(seeds)
def test_the_lowest_temperature_takes_the_highest_score(seed: int) -> None:
    scores_RV = scores(seed)
    ids_R = draw(scores_RV, drawing([0.999], temperature=1e-300))
    assert ids_R.tolist() == scores_RV.argmax(-1).tolist()


# --- seeds


@given(st.integers(0, 2**64 - 1))
def test_the_numbers_of_a_seed_are_uniform(seed: int) -> None:
    drawn = [Sampling(seed=seed).uniform(step) for step in range(200)]
    numbers = torch.tensor(drawn, dtype=torch.float64)  # in float32 two of 200 may be equal
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert len(set(numbers.tolist())) == 200
    assert abs(numbers.mean() - 0.5) < 0.15
    assert abs((numbers[1:] - 0.5) @ (numbers[:-1] - 0.5)) / 199 < 0.04


def test_a_seed_has_the_same_numbers_in_every_release() -> None:
    sampling = Sampling(seed=7)
    assert [sampling.uniform(step) for step in range(3)] == PINNED


def test_seeds_and_steps_differ() -> None:
    numbers = {Sampling(seed=seed).uniform(step) for seed in range(30) for step in range(30)}
    assert len(numbers) == 900


# --- settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, r"0..2\*\*64 - 1, got -1"),
        ({"seed": 2**64}, "got 18446744073709551616"),
        ({"temperature": 0.0}, r"above 0, got 0.0.*Greedy\(\)"),
        ({"temperature": float("nan")}, "above 0, got nan"),
        ({"temperature": float("inf")}, "got inf"),
        ({"top_k": -1}, "got -1"),
        ({"top_p": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"in \(0, 1\], got 1.5"),
        ({"min_p": -0.1}, r"in \[0, 1\], got -0.1"),
        ({"min_p": 1.1}, r"in \[0, 1\], got 1.1"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Sampling(**{"seed": 0, **wrong})  # type: ignore[arg-type]


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(RequestError, match="got -1"):
        Rules(ngram_size=-1)
    with pytest.raises(RequestError, match=r"above 0, got 0\.0\. 1 is no rule"):
        Rules(repetition_penalty=0.0)
    with pytest.raises(RequestError, match=r"'original', 'transformers'.*got 'fairseq'"):
        compat("fairseq")


def test_compat_names_the_references() -> None:
    assert compat("original") == Rules(no_repeat=NoRepeat.ORIGINAL, ngram_size=3)
    assert compat("transformers") == Rules(no_repeat=NoRepeat.TRANSFORMERS, ngram_size=3)
