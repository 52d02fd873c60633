"""Laws of the Triton kernels: each is its plain torch expression, at odd shapes and any lengths.

On a GPU they run there. Without one they run in Triton's interpreter, which must be chosen before
Triton is imported: the first test does so in a process of its own. Without Triton all are skipped;
`pip install triton` brings it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_cases import TINY, random_network
from torch import Tensor, nn

from kosmos2.engine.build import from_network
from kosmos2.engine.capture import CapturedRunner
from kosmos2.engine.programs import recorder_for
from kosmos2.engine.runner import FIRST_POSITION
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import FloatLinear, FloatTable, Int8Table, Linear, ScaledLinear
from kosmos2.kernels.operations import Feedforward, Operations, Places, PlainOperations
from kosmos2.kernels.quantized import round_fp8, round_int8

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed (CUDA builds of torch bring it)", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kosmos2.kernels import triton_attention, triton_linear, triton_norm
from kosmos2.kernels.triton_linear import Matrix, Norm, Tile
from kosmos2.kernels.triton_operations import TritonOperations, matrix_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
runs = pytest.mark.skipif(
    DEVICE.type == "cpu" and not INTERPRETED, reason="needs a GPU, or TRITON_INTERPRET=1"
)

# The interpreter cannot calculate in bfloat16 everywhere; a GPU can.
HALVES = [torch.float16] if DEVICE.type == "cpu" else [torch.float16, torch.bfloat16]
DTYPES = [torch.float32, *HALVES]
WIDTHS = [32, 48, 100]


@pytest.mark.slow
@pytest.mark.skipif(DEVICE.type != "cpu" or INTERPRETED, reason="the kernels run here as they are")
def test_the_laws_of_this_file_hold_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n0", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    assert "passed" in done.stdout


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(device=DEVICE, dtype=dtype)


def random_norm(width: int, dtype: torch.dtype) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, eps=1e-3).to(device=DEVICE, dtype=dtype).requires_grad_(False)
    norm.weight.copy_(1 + 0.3 * random(width, dtype=dtype, seed=1))
    norm.bias.copy_(random(width, dtype=dtype, seed=2))
    return norm


def random_linear(kind: str, shape_NK: tuple[int, int], dtype: torch.dtype) -> Linear:
    weight_NK = random(*shape_NK, dtype=torch.float32) / shape_NK[1] ** 0.5
    bias_N = random(shape_NK[0], dtype=torch.float32, seed=3)
    if kind == "float":
        return FloatLinear(weight_NK.to(dtype), bias_N.to(dtype))
    matrix = round_int8(weight_NK) if kind == "int8" else round_fp8(weight_NK)
    return ScaledLinear(matrix, bias_N)


def matrix(kind: str, shape_NK: tuple[int, int], dtype: torch.dtype) -> Matrix:
    found = matrix_of(random_linear(kind, shape_NK, dtype))
    assert found is not None
    return found


def assert_close(ours: Tensor, expected: Tensor) -> None:
    """Compare with half an ulp of room for another order of sums, float16 at its own scale."""
    loose = {torch.float16: 4e-3, torch.bfloat16: 4e-2, torch.float32: 2e-5}[ours.dtype]
    torch.testing.assert_close(ours, expected.to(ours.dtype), atol=loose, rtol=loose)


@runs
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_norms_are_layer_norm_of_a_sum_or_of_a_gelu(dtype: torch.dtype, width: int) -> None:
    norm = random_norm(width, dtype)
    x_MK, change_MK = random(3, width, dtype=dtype), random(3, width, dtype=dtype, seed=5)
    parts = norm.weight, norm.bias, norm.eps
    assert_close(triton_norm.norm(x_MK, *parts), norm(x_MK))
    assert_close(triton_norm.gelu_norm(x_MK, *parts), norm(F.gelu(x_MK)))
    sum_MK, normed_MK = triton_norm.add_norm(x_MK, change_MK, *parts)
    assert_close(sum_MK, x_MK + change_MK)
    assert_close(normed_MK, norm(x_MK + change_MK))


@runs
@pytest.mark.parametrize("kind", ["float", "int8", "fp8"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape_NK", [(8, 32), (13, 48), (70, 100)])
def test_a_product_of_one_row_is_norm_linear_and_gelu(
    kind: str, dtype: torch.dtype, shape_NK: tuple[int, int]
) -> None:
    width = shape_NK[1]
    linear, norm = random_linear(kind, shape_NK, dtype), random_norm(width, dtype)
    found, entry = matrix(kind, shape_NK, dtype), Norm(norm.weight, norm.bias, norm.eps)
    x_1K, change_1K = random(1, width, dtype=dtype), random(1, width, dtype=dtype, seed=5)

    assert_close(triton_linear.multiply_row(x_1K, found, dtype), linear(x_1K))
    sum_1K, y_1N = triton_linear.norm_multiply_row(x_1K, None, entry, found)
    assert sum_1K is x_1K
    assert_close(y_1N, linear(norm(x_1K)))
    sum_1K, y_1N = triton_linear.norm_multiply_row(x_1K, change_1K, entry, found)
    assert_close(sum_1K, x_1K + change_1K)
    assert_close(y_1N, linear(norm(x_1K + change_1K)))
    _, y_1N = triton_linear.norm_multiply_row_gelu(x_1K, change_1K, entry, found)
    assert_close(y_1N, F.gelu(linear(norm(x_1K + change_1K))))


@runs
def test_a_long_row_is_read_in_several_tiles() -> None:
    linear = random_linear("float", (5, 2500), torch.float32)
    x_1K = random(1, 2500, dtype=torch.float32)
    tile = triton_linear.row_tile(5, 2500, 4)
    assert 2 * tile.columns < 2500
    found = matrix("float", (5, 2500), torch.float32)
    assert_close(triton_linear.multiply_row(x_1K, found, torch.float32), linear(x_1K))


@runs
@pytest.mark.parametrize("tile", [Tile(2, 32, 4), Tile(16, 64, 8), Tile(4, 256, 4)])
def test_any_tile_gives_the_same_product(tile: Tile) -> None:
    x_1K = random(1, 100, dtype=torch.float32)
    found = matrix("int8", (33, 100), torch.float32)
    expected_1N = triton_linear.multiply_row(x_1K, found, torch.float32)
    assert_close(triton_linear.multiply_row_in_tiles(x_1K, found, tile), expected_1N)


@runs
@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("calls", "shape_NK"), [(2, (8, 32)), (5, (33, 100)), (17, (70, 260))])
def test_a_product_of_few_rows_is_linear_with_the_rounded_weight(
    kind: str, dtype: torch.dtype, calls: int, shape_NK: tuple[int, int]
) -> None:
    x_MK = random(calls, shape_NK[1], dtype=dtype)
    linear, found = random_linear(kind, shape_NK, dtype), matrix(kind, shape_NK, dtype)
    assert_close(triton_linear.multiply(x_MK, found, dtype), linear(x_MK))
    exact_MN = linear(x_MK.float())
    assert_close(triton_linear.multiply(x_MK, found, torch.float32), exact_MN)


@runs
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    found = matrix(kind, (33, 100), HALVES[-1])
    x_MK = random(6, 100, dtype=HALVES[-1])
    together_MN = triton_linear.multiply(x_MK, found, torch.float32)
    apart_MN = torch.cat(
        [triton_linear.multiply(x_1K[None], found, torch.float32) for x_1K in x_MK]
    )
    assert torch.equal(together_MN, apart_MN)


def memory_and_places(
    lengths: list[int], counts: list[int], width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Places]:
    """Return qkv_N3D, memory_RSCD and where the tokens belong, rows in no order."""
    rows = len(lengths)
    slots = list(range(rows + 1, 1, -1))
    starts = [sum(counts[:row]) for row in range(rows + 1)]
    places = Places(
        *(torch.tensor(each, dtype=torch.int32, device=DEVICE) for each in (slots, lengths, starts))
    )
    qkv_N3D = random(sum(counts), 3 * width, dtype=dtype)
    return qkv_N3D, random(rows + 2, 210, 2, width, dtype=dtype), places


MIXES = [
    ([0, 5, 130, 64, 199], [3, 1, 8, 2, 1]),
    ([7], [1]),
    ([202], [8]),
    ([0, 0, 63, 65], [1, 1, 1, 1]),
]


@runs
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "num_heads"), [(36, 3), (128, 2)])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("lengths", "counts"), MIXES)
def test_attention_is_that_of_the_plain_operations(
    dtype: torch.dtype,
    width: int,
    num_heads: int,
    splits: int,
    lengths: list[int],
    counts: list[int],
) -> None:
    qkv_N3D, memory_RSCD, places = memory_and_places(lengths, counts, width, dtype)
    exact_RSCD = memory_RSCD.double()
    expected_ND = PlainOperations().attend(qkv_N3D.double(), exact_RSCD, places, num_heads, 210)
    mixed_ND = triton_attention.attend(qkv_N3D, memory_RSCD, places, num_heads, splits)
    assert_close(mixed_ND, expected_ND)
    assert torch.equal(memory_RSCD.double(), exact_RSCD)


@runs
def test_attention_never_looks_at_what_lies_behind_a_row() -> None:
    lengths, counts = MIXES[0]
    qkv_N3D, memory_RSCD, places = memory_and_places(lengths, counts, 48, torch.float32)
    expected_ND = triton_attention.attend(qkv_N3D, memory_RSCD.clone(), places, 3, 1)
    for slot, length in zip(places.slots_R.tolist(), lengths, strict=True):
        memory_RSCD[slot, length:] = torch.nan
    mixed_ND = triton_attention.attend(qkv_N3D, memory_RSCD, places, 3, 1)
    assert torch.equal(mixed_ND, expected_ND)


def test_rows_are_split_only_when_cores_are_idle_and_parts_long() -> None:
    assert triton_attention.splits_for(1, 32, 4096, 132) == 8
    assert triton_attention.splits_for(1, 32, 256, 132) == 1
    assert triton_attention.splits_for(64, 32, 4096, 132) == 1


@runs
@pytest.mark.parametrize("kind", ["float", "int8", "fp8"])
@pytest.mark.parametrize("num_rows", [1, 3])
def test_operations_are_the_plain_ones(kind: str, num_rows: int) -> None:
    width, inner, dtype = 48, 80, torch.float32
    fast, plain = TritonOperations(num_cores=4), PlainOperations()
    x_ND, change_ND = random(num_rows, width, dtype=dtype), random(num_rows, width, dtype=dtype)
    norm, qkv = random_norm(width, dtype), random_linear(kind, (3 * width, width), dtype)
    feedforward = Feedforward(
        norm,
        random_linear(kind, (inner, width), dtype),
        random_norm(inner, dtype),
        random_linear(kind, (width, inner), dtype),
    )

    def all_of(do: Operations) -> list[Tensor]:
        return [
            *do.project(x_ND, None, norm, qkv),
            *do.project(x_ND, change_ND, norm, qkv),
            *do.feedforward(x_ND, change_ND, feedforward),
            do.finish(x_ND, change_ND, norm),
        ]

    for ours, expected in zip(all_of(fast), all_of(plain), strict=True):
        assert_close(ours, expected)


@runs
@pytest.mark.parametrize("num_rows", [1, 3])
def test_scores_are_the_plain_ones_in_float32(num_rows: int) -> None:
    hidden_MD = random(num_rows, 48, dtype=torch.float16)
    weight_VD = random(70, 48, dtype=torch.float32)
    rounded = round_int8(weight_VD)
    half_VD = weight_VD.half()
    fast, plain = TritonOperations(num_cores=4), PlainOperations()
    for table, exact_VD in (
        (FloatTable(half_VD, FloatLinear(half_VD, None)), half_VD.float()),
        (Int8Table(rounded, ScaledLinear(rounded, None)), rounded.dequantise()),
    ):
        logits_MV = fast.scores(hidden_MD, table)
        assert logits_MV.dtype is torch.float32
        torch.testing.assert_close(logits_MV, hidden_MD.float() @ exact_VD.T, atol=2e-2, rtol=2e-3)
        assert_close(logits_MV.half(), plain.scores(hidden_MD, table))


@runs
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP8])
@torch.inference_mode()
def test_a_whole_step_by_the_kernels_is_the_plain_runners(precision: Precision) -> None:
    plain = from_network(random_network(TINY).to(DEVICE), precision)
    runner = CapturedRunner(plain, TritonOperations(num_cores=4), recorder_for(DEVICE))
    ours, theirs = runner.new_cache(3, 30), plain.new_cache(3, 30)
    for counts in ([10, 11, 12], [1, 2, 8], [1, 1, 1], [1]):  # read plainly, not recorded, programs
        x_ND = random(sum(counts), TINY.text.width, dtype=plain.dtype, seed=sum(counts))
        wanted = range(sum(counts))
        hidden_MD = runner.extend(ours, 0, x_ND, counts, wanted)
        assert_close(hidden_MD, plain.extend(theirs, 0, x_ND, counts, wanted))
    for ids in ([5, 6], [7]):
        positions = [length + FIRST_POSITION for length in theirs.lengths[: len(ids)]]
        x_ND = plain.enter(ids, positions, [False] * len(ids), None)
        hidden_MD = plain.extend(theirs, 0, x_ND, [1] * len(ids), range(len(ids)))
        logits_RV = runner.decode(ours, 0, ids).logits_RV
        torch.testing.assert_close(logits_RV, plain.logits(hidden_MD), atol=0.05, rtol=0.01)


BF16, FLOATS, INTS = "*bf16", "*fp32", "*i32"
ROW = {
    **dict.fromkeys(("x_ptr", "change_ptr", "sum_ptr", "norm_weight_ptr", "norm_bias_ptr"), BF16),
    **{"eps": "fp32", "weight_ptr": BF16, "scale_ptr": None, "bias_ptr": BF16, "y_ptr": BF16},
    "num_rows": "i32",
}
ROW_INT8 = {**ROW, "weight_ptr": "*i8", "scale_ptr": FLOATS, "bias_ptr": FLOATS}
ROW_FP8 = {**ROW_INT8, "weight_ptr": "*fp8e4nv"}
LOGITS = {
    **dict.fromkeys(("change_ptr", "sum_ptr", "norm_weight_ptr", "norm_bias_ptr", "bias_ptr")),
    **{"x_ptr": BF16, "eps": "fp32", "weight_ptr": BF16, "scale_ptr": None, "y_ptr": FLOATS},
    "num_rows": "i32",
}
FEW = {
    **{"x_ptr": BF16, "weight_ptr": "*i8", "scale_ptr": FLOATS, "bias_ptr": FLOATS, "y_ptr": BF16},
    **{"num_calls": "i32", "num_rows": "i32"},
}
ATTEND = {
    **{"qkv_ptr": BF16, "memory_ptr": BF16, "slots_ptr": INTS, "lengths_ptr": INTS},
    **{"starts_ptr": INTS, "mixed_ptr": BF16, "part_ptr": FLOATS, "weight_ptr": FLOATS},
    **{"row_stride": "i32", "width": "i32", "scale": "fp32"},
}
NORM = {
    **dict.fromkeys(("x_ptr", "change_ptr", "weight_ptr", "bias_ptr"), BF16),
    **{"sum_ptr": BF16, "normed_ptr": BF16, "width": "i32", "eps": "fp32"},
}
HEADS = {"HEAD": 64, "HEAD_WIDTH": 64}
SMALL = {"WIDTH": 2048, "WHOLE": 2048, "ROWS": 8, "COLUMNS": 1024, "GELU": True}
LARGE = {"WIDTH": 8192, "WHOLE": 8192, "ROWS": 4, "COLUMNS": 2048, "GELU": False}
AT_FULL_SIZE = [
    (triton_linear._multiply_row, ROW, SMALL, 4),
    (triton_linear._multiply_row, ROW, LARGE, 8),
    (triton_linear._multiply_row, ROW_INT8, LARGE, 8),
    (triton_linear._multiply_row, ROW_FP8, LARGE, 8),
    (triton_linear._multiply_row, LOGITS, {**SMALL, "GELU": False}, 4),
    (triton_linear._multiply, FEW, {"WIDTH": 2048, "CALLS": 16, "ROWS": 32, "COLUMNS": 128}, 4),
    (
        triton_linear._multiply,
        {**FEW, "weight_ptr": "*fp8e4nv"},
        {"WIDTH": 8192, "CALLS": 64, "ROWS": 32, "COLUMNS": 128},
        4,
    ),
    (triton_attention._attend, ATTEND, {**HEADS, "SPLITS": 4, "QUERIES": 16, "SLOTS": 64}, 4),
    (triton_norm._add_norm, NORM, {"BLOCK": 2048}, 4),
    (triton_norm._gelu_norm, NORM, {"BLOCK": 8192}, 16),
]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
@pytest.mark.parametrize(("kernel", "types", "constants", "warps"), AT_FULL_SIZE)
def test_every_kernel_compiles_for_an_h100_and_reads_16_bytes_at_a_time(
    kernel: Any, types: dict[str, str | None], constants: dict[str, int], warps: int
) -> None:
    wanted = {each: types.get(each, "constexpr") or "constexpr" for each in kernel.arg_names}
    places = {each: (at,) for at, each in enumerate(kernel.arg_names)}
    source = ASTSource(
        fn=kernel,
        signature=wanted,
        constexprs={
            places[each]: constants.get(each) for each in wanted if wanted[each] == "constexpr"
        },
        attrs={
            places[each]: [["tt.divisibility", 16]]
            for each, kind in wanted.items()
            if kind.startswith("*") or kind == "i32"
        },
    )
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}
    )
    assert compiled.asm["cubin"]
    code = compiled.asm["ptx"]
    assert ".v4.b32" in code or "cp.async.cg" in code
    assert "ld.local" not in code
