"""Linear layers in every precision: near F.linear, equal to the slow product, row by row alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kosmos2.kernels import fbgemm, linear, native
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import (
    DequantisedLinear,
    ExactLinear,
    FbgemmLinear,
    FloatLinear,
    NativeLinear,
    PackedLinear,
    ScaledLinear,
    pack,
    pack_quantized,
    pack_table,
    quantize,
)
from kosmos2.kernels.quantized import (
    GROUP,
    LEVELS,
    Int4,
    Int8,
    multiply_int4,
    multiply_int8,
    round_fp8,
    round_int4,
    round_int8,
)

CPU = torch.device("cpu")
FLOATS = (Precision.FP64, Precision.FP32, Precision.BF16, Precision.FP16)
TOLERANCES = {  # relative, of the whole output
    Precision.FP64: 1e-14,
    Precision.FP32: 1e-6,
    Precision.BF16: 5e-3,
    Precision.FP16: 1e-3,
    Precision.FP8: 0.04,
    Precision.INT8: 0.02,
    Precision.INT4: 0.15,
}
SHAPES = ((8, 16), (33, 130), (256, 768), (1, 1), (6, 2 * GROUP))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["native", "fbgemm", "plain"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One way to multiply 8 bits, forced."""
    if request.param == "native":
        if not native.available():
            pytest.skip("the native kernels are not built")
    else:
        monkeypatch.setattr(native, "available", lambda: False)
    if request.param == "fbgemm" and not fbgemm.levels():
        pytest.skip("this build of torch has no fbgemm")
    if request.param == "plain":
        monkeypatch.setattr(fbgemm, "levels", lambda: 0)
    return str(request.param)


def levels_of(engine: str) -> int:
    return fbgemm.levels() if engine == "fbgemm" else LEVELS


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_is_near_the_linear_layer_of_its_weight(
    precision: Precision, shape: tuple[int, int]
) -> None:
    weight_NK, bias_N, x_BTK = normal(*shape), normal(shape[0]), normal(3, 5, shape[1], seed=1)
    dtype = precision.activations(CPU)
    for bias in (bias_N, None):
        layer = pack(weight_NK, bias, precision)
        y_BTN = layer(x_BTK.to(dtype))
        expected_BTN = F.linear(
            x_BTK.double(), weight_NK.double(), None if bias is None else bias.double()
        )
        assert y_BTN.dtype is dtype and (layer.out_features, layer.in_features) == shape
        assert (y_BTN - expected_BTN).norm() <= TOLERANCES[precision] * expected_BTN.norm()
        assert layer(x_BTK[:0].to(dtype)).shape == (0, 5, shape[0])


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("rows", [1, 257])
@pytest.mark.parametrize("calls", [1, 2, 8, 71])
def test_a_packed_layer_is_the_plain_one_whatever_it_is_packed_for(
    precision: Precision, rows: int, calls: int
) -> None:
    dtype = precision.activations(CPU)
    weight_NK, bias_N = normal(384, 256).to(dtype), normal(384).to(dtype)
    layer = pack(weight_NK, bias_N, precision, rows=rows)
    x_MK = normal(calls, 256, seed=1).to(dtype)
    tolerance = 5e-5 if precision is Precision.FP32 else 2e-2
    torch.testing.assert_close(
        layer(x_MK), F.linear(x_MK, weight_NK, bias_N), rtol=tolerance, atol=tolerance
    )


def test_floats_are_packed_where_the_processor_can_and_plain_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight_NK = normal(8, 16)
    monkeypatch.setattr(native, "multiplies_bf16", lambda: False)
    packed = linear._packed_types()
    for precision in FLOATS:
        wanted = PackedLinear if precision.activations(CPU) in packed else FloatLinear
        assert type(pack(weight_NK, None, precision)) is wanted

    def missing(*_: object) -> Tensor:
        raise AttributeError("no such operation")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", missing)
    monkeypatch.setattr(linear, "_packed_types", linear._packed_types.__wrapped__)
    for precision in FLOATS:
        assert type(pack(weight_NK, None, precision)) is FloatLinear


def exact_case(seed: int, shape: tuple[int, int], calls: int) -> tuple[Tensor, Tensor]:
    """Return rounded_NK and x_MK whose rows are whole multiples of a power of two."""
    generator = torch.Generator().manual_seed(seed)
    rounded_NK = torch.randint(-LEVELS, LEVELS + 1, shape, generator=generator)
    x_MK = torch.randint(-LEVELS, LEVELS + 1, (calls, shape[1]), generator=generator)
    x_MK[:, 0] = LEVELS
    powers_M1 = 2.0 ** torch.randint(-20, 20, (calls, 1), generator=generator)
    return rounded_NK.to(torch.int8), x_MK * powers_M1


def test_a_packed_layer_asks_for_few_numbers_of_rows_and_gives_those_it_got(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.float32 not in linear._packed_types():
        pytest.skip("this build of torch packs nothing")
    layer = PackedLinear(torch.randn(8, 16), torch.randn(8), 1)
    asked: set[int] = set()
    multiply = layer._multiply

    def watched(x_MK: Tensor, *rest: object) -> Tensor:
        asked.add(len(x_MK))
        return multiply(x_MK, *rest)

    monkeypatch.setattr(layer, "_multiply", watched)
    for num_rows in range(1, 1025):
        x_MK = torch.randn(num_rows, 16)
        y_MN = layer(x_MK)
        assert y_MN.shape == (num_rows, 8)
        if num_rows % 97 == 0:
            torch.testing.assert_close(
                y_MN, multiply(x_MK, layer.packed, layer.bias_N, "none", [], "")
            )
    assert {1, 16} <= asked and max(asked) == 1024
    assert len(asked) < 60


@given(seed=st.integers(0, 2**31), calls=st.integers(1, 9), shape=st.sampled_from(SHAPES))
@settings(max_examples=30)
def test_eight_bits_lose_nothing_of_what_has_eight_bits(
    seed: int, calls: int, shape: tuple[int, int]
) -> None:
    rounded_NK, x_MK = exact_case(seed, shape, calls)
    matrix = Int8(rounded_NK, torch.full((shape[0],), 0.5))
    expected_MN = x_MK.double() @ rounded_NK.double().T * 0.5
    layers = [pack_quantized(matrix, None), ExactLinear(matrix, None), ScaledLinear(matrix, None)]
    if fbgemm.levels() == LEVELS:
        layers.append(FbgemmLinear(matrix, None))
    for layer in layers:
        torch.testing.assert_close(layer(x_MK).double(), expected_MN, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_in_eight_bits_is_the_slow_one(engine: str, shape: tuple[int, int]) -> None:
    matrix, bias_N = round_int8(normal(*shape)), normal(shape[0], seed=2)
    x_MK = normal(9, shape[1], seed=1) * 10 ** torch.linspace(-30, 30, 9)[:, None]
    layer = pack_quantized(matrix, bias_N * 0)
    expected_MN = multiply_int8(x_MK, matrix, levels_of(engine))
    scale_M1 = expected_MN.abs().amax(1, keepdim=True)
    # A tie may round either way, which moves one activation by one level.
    assert ((layer(x_MK) - expected_MN).abs() <= scale_M1 * 0.01).all()
    assert (layer(x_MK) - expected_MN).div(scale_M1).abs().mean() < 1e-4

    biased_MN = pack_quantized(matrix, bias_N)(x_MK[4:5])
    torch.testing.assert_close(biased_MN, layer(x_MK[4:5]) + bias_N, rtol=1e-6, atol=1e-5)


def test_a_product_in_four_bits_is_the_slow_one(engine: str) -> None:
    matrix = round_int4(normal(40, 6 * GROUP))
    x_MK = normal(9, 6 * GROUP, seed=1)
    layer = pack_quantized(matrix, None)
    expected_MN = multiply_int4(x_MK, matrix, levels_of(engine))
    # Without the native kernels, four bits are rounded once more, to eight.
    tolerance = 1e-4 if engine == "native" else 0.02
    assert (layer(x_MK) - expected_MN).norm() < tolerance * expected_MN.norm()


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("shape", [(33, 130), (256, 768), (64, GROUP)], ids=str)
def test_a_row_in_few_bits_does_not_depend_on_the_others_to_the_last_bit(
    engine: str, precision: Precision, shape: tuple[int, int]
) -> None:
    layer = pack(normal(*shape), normal(shape[0]), precision)
    x_MK = normal(71, shape[1], seed=1) * torch.linspace(0.01, 100, 71)[:, None]
    x_MK[3] = 0
    together_MN = layer(x_MK)
    for rows in ([0], [5], [3], [70, 2], list(range(8)), list(range(70, -1, -1))):
        assert torch.equal(layer(x_MK[rows]), together_MN[rows])
    assert torch.equal(layer(x_MK.view(1, 71, -1))[0], together_MN)


def test_a_row_of_zeros_gives_the_bias(engine: str) -> None:
    bias_N = normal(16)
    y_MN = pack(normal(16, 32), bias_N, Precision.INT8)(torch.zeros(2, 32))
    assert torch.equal(y_MN, bias_N.expand(2, 16))


def test_a_row_that_is_no_number_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    x_MK = normal(2, 32)
    x_MK[0, 3] = torch.nan
    y_MN = pack(normal(16, 32), None, Precision.INT8)(x_MK)
    assert y_MN[0].isnan().all() and y_MN[1].isfinite().all()


def test_fbgemm_gets_fewer_levels_where_sums_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    if not fbgemm.levels():
        pytest.skip("this build of torch has no fbgemm")
    exact = fbgemm.Product.__call__

    def saturating(product: fbgemm.Product, x_MK: Tensor) -> tuple[Tensor, Tensor]:
        """As vpmaddubsw does: 255 * 127 twice is beyond 16 bits."""
        y_MN, largest_M1 = exact(product, x_MK)
        return (y_MN, largest_M1) if product.levels < 65 else (y_MN * 0.5, largest_M1)

    monkeypatch.setattr(fbgemm.Product, "__call__", saturating)
    assert fbgemm.levels.__wrapped__() == 63

    monkeypatch.setattr(fbgemm, "levels", lambda: 63)
    matrix, x_MK = round_int8(normal(40, 300)), normal(5, 300, seed=1)
    expected_MN = multiply_int8(x_MK, matrix, 63)
    y_MN = FbgemmLinear(matrix, None)(x_MK)
    assert (y_MN - expected_MN).norm() < 1e-3 * expected_MN.norm()


def test_a_build_without_fbgemm_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> torch.ScriptObject:
        raise AttributeError("no such operation")

    monkeypatch.setattr(fbgemm, "_pack", missing)
    assert fbgemm.levels.__wrapped__() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_kernels_weights_are_multiplied_as_they_were_rounded(dtype: torch.dtype) -> None:
    weight_NK, bias_N = normal(24, 2 * GROUP), normal(24)
    x_MK = normal(3, 2 * GROUP, seed=1).to(dtype)
    for layer in (
        ScaledLinear(round_int8(weight_NK), bias_N),
        ScaledLinear(round_fp8(weight_NK), bias_N),
        DequantisedLinear(round_int4(weight_NK), bias_N),
    ):
        expected_MN = F.linear(x_MK.float(), layer.matrix.dequantise(), bias_N)
        y_MN = layer(x_MK)
        assert y_MN.dtype is dtype
        tolerance = 1e-5 if dtype is torch.float32 else 2e-2
        torch.testing.assert_close(y_MN.float(), expected_MN, rtol=tolerance, atol=tolerance * 16)


def test_a_width_without_whole_groups_keeps_eight_bits() -> None:
    assert isinstance(quantize(normal(4, GROUP), Precision.INT4), Int4)
    assert isinstance(quantize(normal(4, GROUP + 64), Precision.INT4), Int8)


@pytest.mark.parametrize("precision", Precision)
def test_a_table_gives_the_rows_and_scores_of_one_matrix(precision: Precision) -> None:
    weight_VD, ids_N = normal(50, 64), torch.tensor([3, 0, 49, 3])
    table, dtype = pack_table(weight_VD, precision), precision.activations(CPU)
    rows_ND = table.rows(ids_N)
    tolerance = min(TOLERANCES[precision], TOLERANCES[Precision.INT8])
    assert rows_ND.dtype is dtype
    assert (rows_ND - weight_VD[ids_N]).norm() <= tolerance * weight_VD[ids_N].norm()

    hidden_MD = normal(3, 64, seed=1)
    logits_MV = table.logits(hidden_MD.to(dtype))
    expected_MV = hidden_MD @ weight_VD.T
    assert logits_MV.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    assert (logits_MV - expected_MV).norm() <= max(tolerance, 1e-6) * expected_MV.norm()


@pytest.mark.parametrize("precision", Precision)
def test_packing_leaves_the_weight_and_its_gradient_alone(precision: Precision) -> None:
    weight_NK = torch.nn.Parameter(normal(8, GROUP))
    before = copy.deepcopy(weight_NK)
    layer = pack(weight_NK, torch.nn.Parameter(normal(8)), precision)
    assert torch.equal(weight_NK, before)
    assert not layer(normal(2, GROUP).to(precision.activations(CPU))).requires_grad


def test_every_engine_reads_a_matrix_in_place_or_says_not(engine: str) -> None:
    matrix = round_int8(normal(16, 32))
    layer = pack_quantized(matrix, None)
    wanted = {"native": NativeLinear, "fbgemm": FbgemmLinear, "plain": ExactLinear}[engine]
    assert type(layer) is wanted
    assert hasattr(layer, "matrix") == (engine != "fbgemm")
