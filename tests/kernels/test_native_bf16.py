"""The C kernels in bf16: near the numbers themselves, and a row's own to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kosmos2.kernels import native
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import NativeLinear, PackedLinear, pack
from kosmos2.kernels.native_step import Gain
from kosmos2.kernels.native_tower import BoundTowerBlock, Tower

SHAPES = [(1, 1), (5, 3), (64, 32), (70, 40), (128, 64), (100, 333), (130, 2050), (64, 4128)]
ROWS = [1, 2, 3, 5, 6, 7, 12, 71, 257, 300]
HEADS = 2


@pytest.fixture
def bf16(built: Path) -> Path:
    if not native.multiplies_bf16():
        pytest.skip("this processor has no instructions for bf16")
    return built


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_a_product_is_that_of_the_rounded_numbers_summed_in_float32(
    bf16: Path, shape: tuple[int, int], rows: int
) -> None:
    weight_NK, x_MK = normal(*shape), normal(rows, shape[1], seed=1)
    rounded = [each.bfloat16().double() for each in (x_MK, weight_NK)]
    size_MN = rounded[0].abs() @ rounded[1].abs().T
    for bias_N in (normal(shape[0], seed=2), None):
        y_MN = native.bind(native.pack_bf16(weight_NK), bias_N)(x_MK)
        expected_MN = F.linear(*rounded, None if bias_N is None else bias_N.double())
        assert y_MN.dtype is torch.float32
        assert ((y_MN - expected_MN).abs() <= 1e-6 * (size_MN + 1)).all()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.sampled_from(SHAPES),
    rows=st.sampled_from(ROWS),
    first=st.integers(0, 299),
    threads=st.integers(1, 3),
)
def test_a_row_does_not_depend_on_the_other_rows_nor_on_the_threads(
    bf16: Path, shape: tuple[int, int], rows: int, first: int, threads: int
) -> None:
    multiply = native.bind(native.pack_bf16(normal(*shape)), normal(shape[0], seed=2))
    x_MK = normal(rows, shape[1], seed=1)
    first %= rows
    before = torch.get_num_threads()
    whole_MN = multiply(x_MK)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(multiply(x_MK[first:]), whole_MN[first:])
        assert torch.equal(multiply(x_MK[first]), whole_MN[first])
    finally:
        torch.set_num_threads(before)


def test_a_row_that_is_no_number_spoils_no_other(bf16: Path) -> None:
    multiply, x_MK = native.bind(native.pack_bf16(normal(70, 40)), None), normal(7, 40)
    clean_MN = multiply(x_MK)
    x_MK[3] = torch.nan
    y_MN = multiply(x_MK)
    assert y_MN[3].isnan().all()
    others = [0, 1, 2, 4, 5, 6]
    assert torch.equal(y_MN[others], clean_MN[others])


def test_layers_in_bf16_are_in_c_where_the_processor_can(
    bf16: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(pack(normal(8, 16), None, Precision.BF16), NativeLinear)
    assert isinstance(pack(normal(8, 16), None, Precision.FP32), PackedLinear)
    for switch in ("plain", "avx2", "off"):
        monkeypatch.setenv(native.SWITCH, switch)
        assert not native.multiplies_bf16()
        assert not isinstance(pack(normal(8, 16), None, Precision.BF16), NativeLinear)


class Block:
    """A block of a vision tower with random numbers."""

    def __init__(self, width: int, feedforward_width: int, seed: int) -> None:
        shapes = [(3 * width, width), (width, width), (feedforward_width, width)]
        self.layers = [
            (normal(*shape, seed=seed + at) / shape[1] ** 0.5, normal(shape[0], seed=seed - at))
            for at, shape in enumerate([*shapes, (width, feedforward_width)])
        ]
        self.norms = [(1 + 0.1 * normal(width, seed=seed + at), normal(width)) for at in (5, 6)]

    def bound(self) -> BoundTowerBlock:
        qkv, output, expand, contract = (
            native.bind(native.pack_bf16(weight_NK), bias_N) for weight_NK, bias_N in self.layers
        )
        attention_norm, feedforward_norm = (Gain(*norm) for norm in self.norms)
        return BoundTowerBlock(
            attention_norm=attention_norm, feedforward_norm=feedforward_norm,
            qkv=qkv, output=output, expand=expand, contract=contract,
        )  # fmt: skip

    def in_torch(self, x_NPE: Tensor) -> Tensor:
        qkv, output, expand, contract = self.layers
        width = x_NPE.shape[2:]
        heads = F.linear(F.layer_norm(x_NPE, width, *self.norms[0]), *qkv)
        mixed = F.scaled_dot_product_attention(
            *heads.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        )
        x_NPE = x_NPE + F.linear(mixed.transpose(1, 2).flatten(2), *output)
        expanded = F.linear(F.layer_norm(x_NPE, width, *self.norms[1]), *expand)
        return x_NPE + F.linear(expanded * torch.sigmoid(1.702 * expanded), *contract)


SIZES = [(24, 48, 5), (128, 256, 65), (90, 74, 17), (130, 100, 257), (256, 64, 128)]


@pytest.mark.parametrize(("width", "feedforward_width", "patches"), SIZES)
@pytest.mark.parametrize("pictures", [1, 3])
def test_a_tower_is_near_the_same_blocks_in_torch(
    bf16: Path, width: int, feedforward_width: int, patches: int, pictures: int
) -> None:
    blocks = [Block(width, feedforward_width, seed) for seed in (10, 20)]
    tower = Tower([block.bound() for block in blocks], HEADS, 1e-5)
    x_NPE = expected_NPE = normal(pictures, patches, width)
    for block in blocks:
        expected_NPE = block.in_torch(expected_NPE)
    y_NPE = tower(x_NPE)
    assert torch.equal(x_NPE, normal(pictures, patches, width))
    assert (y_NPE - expected_NPE).norm() <= 1e-2 * expected_NPE.norm()
    for picture in range(pictures):
        assert torch.equal(tower(x_NPE[picture : picture + 1])[0], y_NPE[picture])


def test_large_scores_and_activations_stay_numbers(bf16: Path) -> None:
    tower = Tower([Block(128, 256, 10).bound()], HEADS, 1e-5)
    for scale in (0.0, 1e-20, 1e10):
        assert tower(normal(1, 7, 128) * scale).isfinite().all()


def test_no_pictures_give_none(bf16: Path) -> None:
    assert Tower([Block(24, 48, 10).bound()], HEADS, 1e-5)(torch.empty(0, 5, 24)).shape == (
        0,
        5,
        24,
    )
