"""The order of a finite source: a permutation an epoch, computed and not stored."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.data.order import Epochs
from kosmos2.errors import ConfigError


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 5))
def test_every_epoch_has_each_sample_once(length: int, seed: int, epoch: int) -> None:
    order = Epochs(length, seed)
    places = [order.place(epoch * length + n) for n in range(length)]
    assert sorted(number for number, _ in places) == list(range(length))
    assert {which for _, which in places} == {epoch}


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [Epochs(50, seed).place(epoch * 50 + n)[0] for n in range(50)]

    orders = [order(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert len({tuple(each) for each in orders}) == 16
    assert list(range(50)) not in orders


def test_every_sample_comes_at_every_place_about_as_often() -> None:
    counts = Counter((n, Epochs(8, seed).place(n)[0]) for seed in range(4000) for n in range(8))
    assert len(counts) == 64
    assert max(abs(count - 500) for count in counts.values()) < 110  # 5 standard deviations


def test_an_empty_source_has_no_order() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Epochs(0, 1)
