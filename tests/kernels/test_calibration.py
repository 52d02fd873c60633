"""Rounding that knows what a layer reads: the product errs less, nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kosmos2.errors import WeightsError
from kosmos2.kernels.calibration import collect_moments, round_int4_calibrated
from kosmos2.kernels.quantized import GROUP, Int4, round_int4

SEEDS = st.integers(0, 2**31)


def case(seed: int, width: int = 2 * GROUP) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight, rows whose numbers go together, and their moments."""
    generator = torch.Generator().manual_seed(seed)
    weight_NK = torch.randn(16, width, generator=generator)
    few_MJ = torch.randn(400, width // 4, generator=generator)
    mix_JK = torch.randn(width // 4, width, generator=generator)
    x_MK = few_MJ @ mix_JK + 0.1 * torch.randn(400, width, generator=generator)
    return weight_NK, x_MK, x_MK.T @ x_MK / len(x_MK)


def error(matrix: Int4, weight_NK: Tensor, x_MK: Tensor) -> float:
    return float((x_MK @ (matrix.dequantise() - weight_NK).T).norm() / (x_MK @ weight_NK.T).norm())


@given(SEEDS)
@settings(max_examples=10)
def test_products_with_what_the_layer_reads_err_far_less(seed: int) -> None:
    weight_NK, x_MK, moments_KK = case(seed)
    calibrated = round_int4_calibrated(weight_NK, moments_KK)
    assert error(calibrated, weight_NK, x_MK) < 0.7 * error(round_int4(weight_NK), weight_NK, x_MK)


@given(SEEDS)
@settings(max_examples=10)
def test_a_layer_whose_columns_are_alike_and_apart_is_rounded_as_without(seed: int) -> None:
    weight_NK, _, _ = case(seed)
    calibrated = round_int4_calibrated(weight_NK, 3 * torch.eye(2 * GROUP))
    assert torch.equal(calibrated.dequantise(), round_int4(weight_NK).dequantise())


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_rows_that_tell_little_still_give_a_rounding(rank: int) -> None:
    weight_NK, _, _ = case(0)
    x_MK = torch.zeros(4, 2 * GROUP)
    x_MK[:rank, :rank] = torch.eye(4, 2 * GROUP)[:rank, :rank]
    calibrated = round_int4_calibrated(weight_NK, x_MK.T @ x_MK)
    loss = (calibrated.dequantise() - weight_NK).norm() / weight_NK.norm()
    assert loss < 0.15


def test_the_weight_is_left_alone() -> None:
    weight_NK, _, moments_KK = case(1)
    before = weight_NK.clone()
    round_int4_calibrated(weight_NK, moments_KK)
    assert torch.equal(weight_NK, before)


@pytest.mark.parametrize("shape", [(16, GROUP + 1), (16, GROUP)])
def test_moments_of_another_layer_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(WeightsError, match="do not fit"):
        round_int4_calibrated(torch.ones(shape), torch.eye(2 * GROUP))


def test_moments_are_the_mean_over_all_rows_that_were_read() -> None:
    layer, other = nn.Linear(3, 2), nn.Linear(3, 2)
    calls = [torch.randn(2, 5, 3), torch.randn(7, 3)]
    moments = collect_moments({"a": layer, "b": other}, lambda: [layer(x) for x in calls])
    rows_MK = torch.cat([x.flatten(0, -2) for x in calls])
    torch.testing.assert_close(moments["a"], rows_MK.T @ rows_MK / 17)
    assert "b" not in moments  # nothing was read there


def test_nobody_listens_any_more_also_after_an_error() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ZeroDivisionError):
        collect_moments({"a": layer}, lambda: 1 / 0)
    assert not layer._forward_pre_hooks
