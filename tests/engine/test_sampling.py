"""The rules as functions of scores, against transformers' processors where it has one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    NoRepeatNGramLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kosmos2.engine import NoRepeat, Rules, Sampling, compat
from kosmos2.engine.sampling import (
    BREAK,
    draw,
    forbid,
    keep_top_k,
    keep_top_p,
    repeats,
    restrict,
)
from kosmos2.errors import RequestError

seeds = st.integers(0, 2**31)
texts = st.lists(st.integers(0, 4), max_size=30)


def scores(seed: int, size: int = 20) -> Tensor:
    return 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_set_that_reaches_the_mass(seed: int, p: float) -> None:
    scores_V = scores(seed)
    kept_V = keep_top_p(scores_V, p) > -torch.inf
    probabilities_V = scores_V.double().softmax(-1)
    mass, least = probabilities_V[kept_V].sum(), probabilities_V[kept_V].min()
    assert mass >= p - 1e-6
    assert mass - least < p + 1e-6 or p == 1
    assert kept_V.all() or least >= probabilities_V[~kept_V].max()


@given(seeds, st.floats(0.05, 0.95))
def test_top_p_keeps_what_transformers_keeps(seed: int, p: float) -> None:
    scores_V = scores(seed).double()
    theirs_BV = TopPLogitsWarper(p)(torch.zeros(1, 1, dtype=torch.long), scores_V[None])
    assert torch.equal(keep_top_p(scores_V, p), theirs_BV[0])


@given(seeds, st.integers(1, 25))
def test_top_k_keeps_what_transformers_keeps(seed: int, k: int) -> None:
    scores_V = scores(seed)
    theirs_BV = TopKLogitsWarper(k)(torch.zeros(1, 1, dtype=torch.long), scores_V[None])
    assert torch.equal(keep_top_k(scores_V, k), theirs_BV[0])


def test_no_limits_change_nothing() -> None:
    scores_V = scores(0)
    assert torch.equal(keep_top_k(scores_V, 0), scores_V)
    assert torch.equal(keep_top_p(scores_V, 1.0), scores_V)


@given(texts, st.integers(1, 4))
def test_repeats_are_what_transformers_bans(history: list[int], size: int) -> None:
    if not history:
        assert repeats(history, size) == set()
        return
    processor = NoRepeatNGramLogitsProcessor(size)
    theirs_BV = processor(torch.tensor([history]), torch.zeros(1, 5))
    assert repeats(history, size) == set((theirs_BV[0] == -torch.inf).nonzero()[:, 0].tolist())


@given(st.lists(st.sampled_from([BREAK, 0, 1]), max_size=30))
def test_nothing_repeats_across_a_break(history: list[int]) -> None:
    rest = history[max((at + 1 for at, id in enumerate(history) if id == BREAK), default=0) :]
    found = repeats(history, 3)
    assert BREAK not in found
    assert len(rest) >= 2 or not found
    for id in found:
        gram = [*rest[-2:], id]
        assert any(history[at : at + 3] == gram for at in range(len(history)))


@given(texts)
def test_size_zero_allows_every_repetition(history: list[int]) -> None:
    assert repeats(history, 0) == set()


@given(seeds, st.sets(st.integers(0, 19), min_size=1, max_size=19))
def test_forbid_and_restrict_are_complements(seed: int, ids: set[int]) -> None:
    scores_V = scores(seed)
    others = sorted(set(range(20)) - ids)
    assert torch.equal(forbid(scores_V, ids), restrict(scores_V, others))
    assert torch.equal(scores_V, scores(seed))


@given(seeds, seeds)
def test_a_draw_follows_its_generator_alone(seed: int, draws: int) -> None:
    def sampling() -> Sampling:
        return Sampling(generator=torch.Generator().manual_seed(draws), temperature=2.0)

    torch.manual_seed(draws // 2)
    first = draw(scores(seed), sampling())
    assert draw(scores(seed), sampling()) == first


def test_draws_have_the_frequencies_of_the_tempered_distribution() -> None:
    scores_V = torch.tensor([1.0, 0.0, 2.0, -torch.inf])
    sampling = Sampling(generator=torch.Generator().manual_seed(0), temperature=2.0)
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[draw(scores_V, sampling)] += 1
    torch.testing.assert_close(counts / 4000, (scores_V / 2).softmax(-1), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, r"above 0, got 0.0.*Greedy\(\)"),
        ({"temperature": float("nan")}, "above 0, got nan"),
        ({"top_k": -1}, "got -1"),
        ({"top_p": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"in \(0, 1\], got 1.5"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Sampling(generator=torch.Generator(), **wrong)  # type: ignore[arg-type]


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(RequestError, match="got -1"):
        Rules(ngram_size=-1)
    with pytest.raises(RequestError, match=r"'original', 'transformers'.*got 'fairseq'"):
        compat("fairseq")


def test_compat_names_the_references() -> None:
    assert compat("original") == Rules(no_repeat=NoRepeat.ORIGINAL, ngram_size=3)
    assert compat("transformers") == Rules(no_repeat=NoRepeat.TRANSFORMERS, ngram_size=3)
