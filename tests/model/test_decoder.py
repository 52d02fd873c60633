"""Laws of positions and masks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_cases import TINY, random_ids, random_network

from kosmos2.model import Network, causal_mask, positions_of
from kosmos2.model.decoder import sinusoids

KEEPS = st.lists(st.booleans(), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(TINY).double()


@torch.no_grad()
def test_no_position_sees_the_future(network: Network) -> None:
    ids_BT = random_ids(TINY, 1, 9)
    changed_BT = ids_BT.clone()
    changed_BT[0, 5:] = random_ids(TINY, 4, seed=1)
    before_TV, after_TV = network(ids_BT).logits_BTV[0], network(changed_BT).logits_BTV[0]
    torch.testing.assert_close(after_TV[:5], before_TV[:5])
    assert not torch.allclose(after_TV[5:], before_TV[5:])


@torch.no_grad()
def test_no_mask_means_causal(network: Network) -> None:
    ids_BT = random_ids(TINY, 2, 7)
    keep_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    positions_BT = positions_of(keep_BT)
    embeds_BTD = network.embed(ids_BT)
    torch.testing.assert_close(
        network.decode(embeds_BTD, positions_BT),
        network.decode(embeds_BTD, positions_BT, causal_mask(keep_BT)),
    )


@given(KEEPS)
def test_positions_count_what_is_kept_from_two_on(keep: list[bool]) -> None:
    positions = positions_of(torch.tensor([keep]))[0].tolist()
    assert [p for p, kept in zip(positions, keep, strict=True) if kept] == [
        *range(2, 2 + sum(keep))
    ]
    assert all(p == 1 for p, kept in zip(positions, keep, strict=True) if not kept)


@given(KEEPS)
def test_a_query_sees_itself_and_what_is_kept_before_it(keep: list[bool]) -> None:
    for query, seen in enumerate(causal_mask(torch.tensor([keep]))[0].tolist()):
        assert seen == [key == query or (key < query and keep[key]) for key in range(len(keep))]


def test_positions_are_sines_then_cosines_from_one_down_to_a_ten_thousandth() -> None:
    width, position = 8, 5
    places_D = sinusoids(torch.tensor([[position]]), width)[0, 0].tolist()
    frequencies = [10000 ** (-i / 3) for i in range(4)]
    expected = [math.sin(position * f) for f in frequencies]
    expected += [math.cos(position * f) for f in frequencies]
    assert places_D == pytest.approx(expected, abs=1e-6)


def test_padding_has_no_position() -> None:
    assert not sinusoids(torch.tensor([[1]]), 8).any()
