"""Rounding to few bits: what it costs at most, how it is stored, what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kosmos2.errors import WeightsError
from kosmos2.kernels.quantized import (
    GROUP,
    LEVELS,
    Fp8,
    Int4,
    Int8,
    groups,
    multiply_int4,
    multiply_int8,
    round_fp8,
    round_int4,
    round_int8,
    round_rows,
)


def weights(seed: int, num_rows: int, width: int) -> Tensor:
    """Return rows of every magnitude, one of them zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight_NK = torch.randn(num_rows, width, generator=generator)
    weight_NK *= 10 ** torch.empty(num_rows, 1).uniform_(-3, 1, generator=generator)
    weight_NK[0] = 0
    return weight_NK


SEEDS = st.integers(0, 2**31)
WIDTHS = st.integers(1, 300)


@given(SEEDS, WIDTHS)
def test_a_number_in_eight_bits_is_at_most_half_a_step_away(seed: int, width: int) -> None:
    weight_NK = weights(seed, 5, width)
    matrix = round_int8(weight_NK)
    error_NK = (matrix.dequantise() - weight_NK).abs()
    assert (error_NK <= matrix.scale_N[:, None] * 0.50001).all()
    assert (matrix.rounded_NK.abs().amax(1)[1:] == LEVELS).all()
    assert not matrix.dequantise()[0].any()


@given(SEEDS, st.integers(1, 3))
def test_a_number_in_four_bits_errs_no_more_than_without_the_search(
    seed: int, num_groups: int
) -> None:
    weight_NK = weights(seed, 5, num_groups * GROUP)
    weight_NGK = groups(weight_NK)
    extreme_NG1 = weight_NGK.gather(-1, weight_NGK.abs().argmax(-1, keepdim=True))
    plain_NG1 = (extreme_NG1 / -8).half().float()
    plain_NGK = (weight_NGK / plain_NG1).nan_to_num().round().clamp(-8, 7) * plain_NG1
    plain_NG = (plain_NGK - weight_NGK).square().sum(-1)

    searched_NG = (groups(round_int4(weight_NK).dequantise()) - weight_NGK).square().sum(-1)
    assert (searched_NG <= plain_NG * 1.0001).all()


@given(SEEDS, WIDTHS)
def test_a_number_in_e4m3_keeps_four_significant_bits(seed: int, width: int) -> None:
    weight_NK = weights(seed, 5, width)
    matrix = round_fp8(weight_NK)
    error_NK = (matrix.dequantise() - weight_NK).abs()
    smallest_N1 = matrix.scale_N[:, None] * 2**-10  # half of e4m3's least step
    assert (error_NK <= torch.maximum(weight_NK.abs() / 16, smallest_N1) * 1.0001).all()


@given(SEEDS)
def test_what_is_stored_in_four_bits_is_stored_again_without_loss(seed: int) -> None:
    matrix = round_int4(weights(seed, 3, 2 * GROUP))
    again = round_int4(matrix.dequantise())
    torch.testing.assert_close(again.dequantise(), matrix.dequantise(), rtol=2e-3, atol=0)


def test_byte_j_of_a_group_holds_number_j_low_and_number_j_and_64_high() -> None:
    rounded_K = torch.arange(2 * GROUP) % 16 - 8
    low_and_high = [
        (int(rounded_K[start + j]) + 8) | (int(rounded_K[start + j + 64]) + 8) << 4
        for start in (0, GROUP)
        for j in range(64)
    ]
    packed_NK = torch.tensor([low_and_high], dtype=torch.uint8)
    matrix = Int4(packed_NK, torch.ones(1, 2))
    assert torch.equal(matrix.unpack(), rounded_K[None].to(torch.int8))
    scale_NG = torch.tensor([[0.5, 2.0]], dtype=torch.float16)
    assert torch.equal(Int4(packed_NK, scale_NG).dequantise()[0, GROUP:], rounded_K[GROUP:] * 2.0)


@given(SEEDS)
def test_rounded_weights_make_a_row_whose_numbers_sum_to_the_same(seed: int) -> None:
    # The product of a one-hot row, which rounds without loss, reads a column of the weight.
    weight_NK = weights(seed, 4, GROUP)
    one_hot_MK = torch.eye(GROUP)
    eight, four = round_int8(weight_NK), round_int4(weight_NK)
    torch.testing.assert_close(
        multiply_int8(one_hot_MK, eight), eight.dequantise().T.double(), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        multiply_int4(one_hot_MK, four), four.dequantise().T.double(), rtol=1e-6, atol=0
    )


@given(SEEDS, st.sampled_from([63, LEVELS]))
def test_the_slow_products_are_products_of_what_was_rounded(seed: int, levels: int) -> None:
    x_MK = weights(seed + 1, 3, 20 * GROUP)
    rounded_MK, scale_M1 = round_rows(x_MK, levels)
    seen_MK = rounded_MK.double() * scale_M1.double()
    weight_NK = weights(seed, 4, 20 * GROUP)
    for matrix, multiply in (
        (round_int8(weight_NK), multiply_int8),
        (round_int4(weight_NK), multiply_int4),
    ):
        expected_MN = seen_MK @ matrix.dequantise().double().T
        torch.testing.assert_close(
            multiply(x_MK, matrix, levels), expected_MN, rtol=1e-5, atol=1e-6
        )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Int8(torch.zeros(3, 4), torch.ones(3)),
        lambda: Int8(torch.zeros(3, 4, dtype=torch.int8), torch.ones(4)),
        lambda: Int8(torch.zeros(3, 4, dtype=torch.int8), torch.ones(3).double()),
        lambda: Int8(torch.zeros(12, dtype=torch.int8), torch.ones(12)),
        lambda: Int4(torch.zeros(3, 60, dtype=torch.uint8), torch.ones(3, 1)),
        lambda: Int4(torch.zeros(3, 64, dtype=torch.uint8), torch.ones(3, 2)),
        lambda: Fp8(torch.zeros(3, 4), torch.ones(3)),
        lambda: Fp8(torch.zeros(3, 4).to(torch.float8_e4m3fn), torch.ones(2)),
    ],
)
def test_a_matrix_whose_parts_do_not_fit_is_refused(make: object) -> None:
    with pytest.raises(WeightsError, match="needs"):
        make()  # type: ignore[operator]
