"""The mixture's place is one number: nothing is lost or doubled by a stop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.data.mixture import Draw, Mixture
from kosmos2.errors import ConfigError


def draws(first: int, stop: int, weights: tuple[float, ...] = (3.0, 1.0)) -> list[list[Draw]]:
    return list(Mixture(weights, batch_size=5, seed=7, first=first, stop=stop))


@given(st.integers(0, 20))
def test_a_resumed_mixture_goes_on_with_the_next_sample(stopped_at: int) -> None:
    assert draws(0, stopped_at) + draws(stopped_at, 20) == draws(0, 20)


def test_every_index_of_every_source_comes_once_and_in_order() -> None:
    for source in (0, 1):
        indices = [draw.index for batch in draws(0, 50) for draw in batch if draw.source == source]
        assert indices == list(range(len(indices)))


def test_sources_come_by_their_weight() -> None:
    first = sum(draw.source == 0 for batch in draws(0, 400) for draw in batch)
    assert 0.70 < first / 2000 < 0.80


def test_a_source_of_weight_zero_never_comes() -> None:
    assert {draw.source for batch in draws(0, 50, (0.0, 1.0)) for draw in batch} == {1}


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -1.0)])
def test_impossible_weights_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="mixture weights"):
        draws(0, 1, weights)
