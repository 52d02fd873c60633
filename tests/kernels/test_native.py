"""The C kernels: exact sums of integers in every instruction set and for every shape."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.kernels import native
from kosmos2.kernels.quantized import GROUP, LEVELS, Int4, Int8, round_int4, round_int8, round_rows

SHAPES_8 = [(1, 1), (3, 5), (16, 64), (33, 100), (67, 128), (64, 333), (130, 1024), (7, 2050)]
SHAPES_4 = [(1, 128), (33, 256), (67, 640), (130, 1024), (16, 2048), (5, 2176)]
ROWS = [1, 2, 3, 5, 6, 7, 8, 9, 13, 33, 200]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_int8(x_MK: Tensor, matrix: Int8, bias_N: Tensor | None) -> Tensor:
    """Return y_MN: sums of integers in integers, then the float steps that C takes."""
    rounded_MK, scale_M1 = round_rows(x_MK)
    sums_MN = rounded_MK.long() @ matrix.rounded_NK.long().T
    y_MN = sums_MN.float() * (scale_M1 * matrix.scale_N)
    return y_MN if bias_N is None else y_MN + bias_N


def slow_int4(x_MK: Tensor, matrix: Int4, bias_N: Tensor | None) -> Tensor:
    """Return y_MN: each group's sum in integers, scaled, then added one after the other."""
    rounded_MK, scale_M1 = round_rows(x_MK)
    weight_NK, scale_NG = matrix.unpack().long(), matrix.scale_NG.float()
    total_MN = torch.zeros(len(x_MK), len(weight_NK))
    for group in range(scale_NG.shape[1]):
        part = slice(group * GROUP, (group + 1) * GROUP)
        sums_MN = rounded_MK[:, part].long() @ weight_NK[:, part].T
        total_MN = total_MN + sums_MN.float() * scale_NG[:, group]
    y_MN = total_MN * scale_M1
    return y_MN if bias_N is None else y_MN + bias_N


@pytest.mark.parametrize("shape", SHAPES_8, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_int8_products_are_those_of_integers_to_the_last_bit(
    every_set: str, shape: tuple[int, int], rows: int
) -> None:
    matrix, x_MK = round_int8(normal(*shape)), normal(rows, shape[1], seed=1)
    for bias_N in (normal(shape[0], seed=2), None):
        expected_MN = slow_int8(x_MK, matrix, bias_N)
        assert torch.equal(native.bind(matrix, bias_N)(x_MK), expected_MN)


@pytest.mark.parametrize("shape", SHAPES_4, ids=str)
@pytest.mark.parametrize("rows", ROWS)
def test_int4_products_are_those_of_integers_to_the_last_bit(
    every_set: str, shape: tuple[int, int], rows: int
) -> None:
    matrix, x_MK = round_int4(normal(*shape)), normal(rows, shape[1], seed=1)
    for bias_N in (normal(shape[0], seed=2), None):
        expected_MN = slow_int4(x_MK, matrix, bias_N)
        assert torch.equal(native.bind(matrix, bias_N)(x_MK), expected_MN)


def test_the_largest_sums_do_not_overflow(every_set: str) -> None:
    # In pairs of bytes these are the largest products there are, with either sign.
    width, x_MK = 8192, torch.ones(2, 8192)
    x_MK[1] = -1
    for value in (-128, -LEVELS, LEVELS):
        matrix = Int8(torch.full((17, width), value, dtype=torch.int8), torch.ones(17))
        y_MN = native.bind(matrix, None)(x_MK) * LEVELS
        expected_M = torch.tensor([1.0, -1.0]) * (LEVELS * width * value)
        torch.testing.assert_close(y_MN, expected_M[:, None].expand(2, 17))
    for nibble, value in ((0x00, -8), (0xFF, 7)):
        packed_NK = torch.full((17, width // 2), nibble, dtype=torch.uint8)
        fours = Int4(packed_NK, torch.ones(17, width // GROUP, dtype=torch.float16))
        y_MN = native.bind(fours, None)(x_MK)
        expected_M = torch.tensor([1.0, -1.0]) * (width * value)
        torch.testing.assert_close(y_MN, expected_M[:, None].expand(2, 17))


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-20, 1e20, 3e38])
def test_activations_of_any_size_are_rounded_as_in_torch(every_set: str, scale: float) -> None:
    matrix, x_MK = round_int8(normal(33, 100)), normal(3, 100, seed=1).clamp(-1, 1) * scale
    assert torch.equal(native.bind(matrix, None)(x_MK), slow_int8(x_MK, matrix, None))


def test_ties_are_rounded_to_even_as_in_torch(every_set: str) -> None:
    halves_K = torch.arange(-127, 127.5, 0.5)
    identity = Int8(torch.eye(len(halves_K), dtype=torch.int8), torch.ones(len(halves_K)))
    assert torch.equal(native.bind(identity, None)(halves_K[None])[0], halves_K.round())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    four=st.booleans(),
    rows=st.integers(1, 40),
    chosen=st.lists(st.integers(0, 39), min_size=1, max_size=40),
    threads=st.integers(1, 3),
)
def test_a_row_does_not_depend_on_the_other_rows_nor_on_the_threads(
    built: Path, four: bool, rows: int, chosen: list[int], threads: int
) -> None:
    weight_NK, x_MK = normal(70, 256), normal(rows, 256, seed=1)
    multiply = native.bind(round_int4(weight_NK) if four else round_int8(weight_NK), None)
    some = [index % rows for index in chosen]
    expected_MN, before = multiply(x_MK)[some], torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(multiply(x_MK[some]), expected_MN)
    finally:
        torch.set_num_threads(before)


def test_leading_dimensions_stay_and_no_rows_give_none(built: Path) -> None:
    matrix, x_BTK = round_int8(normal(33, 64)), normal(2, 5, 64)
    multiply = native.bind(matrix, None)
    assert torch.equal(multiply(x_BTK).flatten(0, 1), multiply(x_BTK.flatten(0, 1)))
    assert torch.equal(multiply(x_BTK.transpose(0, 1)), multiply(x_BTK).transpose(0, 1))
    assert multiply(x_BTK[:0]).shape == (0, 5, 33)


def test_matrices_in_a_mapped_file_are_used_where_they_lie(built: Path, tmp_path: Path) -> None:
    matrix, x_MK = round_int8(normal(37, 90)), normal(4, 90, seed=1)
    (tmp_path / "weights").write_bytes(b"." + matrix.rounded_NK.numpy().tobytes())
    flat = torch.from_file(str(tmp_path / "weights"), size=1 + 37 * 90, dtype=torch.int8)
    mapped = Int8(flat[1:].view(37, 90), matrix.scale_N)  # at an odd address, up to the file's end
    bound = native.bind(mapped, None)
    assert bound.matrix.weight == flat.data_ptr() + 1
    assert torch.equal(bound(x_MK), native.bind(matrix, None)(x_MK))


def test_only_what_c_can_read_fits() -> None:
    matrix = round_int8(normal(8, 6))
    assert native.fits(matrix)
    assert not native.fits(Int8(matrix.rounded_NK.T, torch.ones(6)))
    fours = round_int4(normal(8, 128))
    assert native.fits(fours)
    assert not native.fits(Int4(fours.packed_NK, fours.scale_NG.float()))


def test_memory_moves_to_huge_pages_and_keeps_what_it_holds(built: Path) -> None:
    bytes_X = torch.arange(5 << 20).to(torch.uint8)
    assert native.use_huge_pages(bytes_X) % (2 << 20) == 0
    assert torch.equal(bytes_X, torch.arange(5 << 20).to(torch.uint8))
    assert not native.arena(3 << 20).any()


def test_reading_has_a_speed(built: Path) -> None:
    assert 0 < native.read_bandwidth(4 << 20, repeats=2) < 1e5


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_threads_are_those_of_torch(built: Path) -> None:
    # In a process of its own: other tests load libraries that bring an OpenMP of theirs.
    script = "from kosmos2.kernels.native import library; library()"
    script += "; print(open('/proc/self/maps').read())"
    mapped = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    found = set(re.findall(r"\S*/lib(?:gomp|omp|iomp5)[.\w-]*", mapped))
    runtimes = {each for each in found if "sentencepiece" not in each}  # brings one for itself
    if not any("torch" in runtime for runtime in runtimes):
        pytest.skip("this build of torch has no OpenMP runtime of its own")
    assert len(runtimes) == 1


def test_without_a_build_all_says_so_and_nothing_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path))
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert not native.available()
    assert "kosmos2 native build" in native.status()
    with pytest.raises(MissingExtraError, match="kosmos2 native build"):
        native.library()


@pytest.mark.parametrize(
    ("value", "answer"), [("off", "switched off"), ("avx3", "none of auto, off, plain")]
)
def test_the_environment_switches_the_kernels_off(
    built: Path, monkeypatch: pytest.MonkeyPatch, value: str, answer: str
) -> None:
    monkeypatch.setenv(native.SWITCH, value)
    assert not native.available()
    assert answer in native.status()


def test_a_broken_library_is_reported_and_built_anew(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = native.library().path.name
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / name).write_bytes(b"no library")
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path))
    assert not native.available()
    assert "cannot be loaded" in native.status()
    assert native.build() == tmp_path / "native" / name
    assert native.available()


def test_a_compiler_that_fails_is_an_error_that_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOSMOS2_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    with pytest.raises(ConfigError, match=r"do not compile.*set CC"):
        native.build()
    monkeypatch.setenv("CC", "no-such-compiler --flag")
    with pytest.raises(MissingExtraError, match="no-such-compiler"):
        native.build()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="need a C compiler"):
        native.build()
    assert not list((tmp_path / "native").iterdir())
