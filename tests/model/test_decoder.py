"""Laws of positions, masks and the cache: how a text is fed must not change what comes out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import TINY, random_ids, random_network
from torch import Tensor

from kosmos2.errors import RequestError
from kosmos2.model import Cache, Network, causal_mask, positions_of
from kosmos2.model.decoder import sinusoids

CPU = torch.device("cpu")
KEEPS = st.lists(st.booleans(), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(TINY).double()


def read_in_parts(
    network: Network, ids_BT: Tensor, keep_BT: Tensor, sizes: list[int], capacity: int
) -> Tensor:
    """Return logits_BTV of a text that is read part by part into one cache."""
    cache = Cache(network.config.text, ids_BT.shape[0], capacity, torch.float64, CPU)
    positions_BT = positions_of(keep_BT)
    hidden = []
    for size in sizes:
        part = slice(cache.length, cache.length + size)
        mask_BTS = causal_mask(keep_BT[:, : part.stop], size)
        embeds_BTD = network.embed(ids_BT[:, part])
        hidden.append(network.decode(embeds_BTD, positions_BT[:, part], mask_BTS, cache))
    return network.logits(torch.cat(hidden, dim=1))


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=st.integers(0, 99))
@torch.no_grad()
def test_a_text_read_in_parts_equals_the_text_read_at_once(
    network: Network, sizes: list[int], seed: int
) -> None:
    ids_BT = random_ids(TINY, 2, sum(sizes), seed=seed)
    parts_BTV = read_in_parts(network, ids_BT, ids_BT != 1, sizes, sum(sizes) + 3)
    torch.testing.assert_close(parts_BTV, network(ids_BT).logits_BTV)


@settings(max_examples=20, deadline=None)
@given(pads=st.tuples(st.integers(0, 4), st.integers(0, 4)), steps=st.integers(1, 3))
@torch.no_grad()
def test_a_left_padded_row_read_with_a_cache_equals_the_row_alone(
    network: Network, pads: tuple[int, int], steps: int
) -> None:
    length = 6 + max(pads)
    rows = [random_ids(TINY, 1, length - pad, seed=row) for row, pad in enumerate(pads)]
    ids_BT = torch.cat(
        [torch.nn.functional.pad(row, (length - row.shape[1], 0), value=1) for row in rows]
    )
    logits_BTV = read_in_parts(network, ids_BT, ids_BT != 1, [length - steps] + [1] * steps, length)
    for row, (pad, alone_BT) in enumerate(zip(pads, rows, strict=True)):
        torch.testing.assert_close(logits_BTV[row, pad:], network(alone_BT).logits_BTV[0])


@torch.no_grad()
def test_a_text_beyond_the_position_table_read_with_a_cache_equals_the_text_read_at_once(
    network: Network,
) -> None:
    length = TINY.text.max_positions + 10
    ids_BT = random_ids(TINY, 1, length)
    parts_BTV = read_in_parts(network, ids_BT, ids_BT != 1, [length - 4, 1, 1, 2], length)
    torch.testing.assert_close(parts_BTV, network(ids_BT).logits_BTV)


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


@given(KEEPS, st.data())
def test_a_query_sees_itself_and_what_is_kept_before_it(
    keep: list[bool], data: st.DataObject
) -> None:
    num_queries = data.draw(st.integers(1, len(keep)))
    mask_TS = causal_mask(torch.tensor([keep]), num_queries)[0].tolist()
    for row, seen in enumerate(mask_TS):
        place = len(keep) - num_queries + row
        assert seen == [key == place or (key < place and keep[key]) for key in range(len(keep))]


def test_positions_are_sines_then_cosines_from_one_down_to_a_ten_thousandth() -> None:
    width, position = 8, 5
    places_D = sinusoids(torch.tensor([[position]]), width)[0, 0].tolist()
    frequencies = [10000 ** (-i / 3) for i in range(4)]
    expected = [math.sin(position * f) for f in frequencies]
    expected += [math.cos(position * f) for f in frequencies]
    assert places_D == pytest.approx(expected, abs=1e-6)


def test_padding_has_no_position() -> None:
    assert not sinusoids(torch.tensor([[1]]), 8).any()


def test_a_full_cache_says_what_it_holds_and_what_is_needed(network: Network) -> None:
    ids_BT = random_ids(TINY, 1, 6)
    with pytest.raises(RequestError, match="holds 4 positions, 6 are needed"):
        read_in_parts(network, ids_BT, ids_BT != 1, [6], capacity=4)


@torch.no_grad()
def test_rows_kept_in_the_cache_go_on_as_before(network: Network) -> None:
    ids_BT = random_ids(TINY, 3, 6)
    keep_BT = ids_BT != 1
    cache = Cache(TINY.text, 3, 6, torch.float64, CPU)
    positions_BT = positions_of(keep_BT)
    network.decode(network.embed(ids_BT[:, :5]), positions_BT[:, :5], None, cache)

    rows = torch.tensor([2, 0])
    cache.keep_rows(rows)
    hidden_BTD = network.decode(
        network.embed(ids_BT[rows, 5:]),
        positions_BT[rows, 5:],
        causal_mask(keep_BT[rows], 1),
        cache,
    )
    torch.testing.assert_close(
        network.logits(hidden_BTD)[:, 0], network(ids_BT[rows]).logits_BTV[:, -1]
    )
