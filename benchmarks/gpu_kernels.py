"""Where the time of a step goes, and whether other tiles would be faster: for whoever tunes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_card import Card
from benchmarks.gpu_stages import Line, Sides, Table
from benchmarks.samples import spread
from kosmos2.kernels.cuda import HAS_TRITON
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.operations import Places
from kosmos2.kernels.quantized import round_fp8, round_int8

if HAS_TRITON:
    from kosmos2.kernels import triton_attention, triton_linear
    from kosmos2.kernels.triton_linear import Matrix, Tile

LONGEST = 14
"""Kernels of a profile that are told."""
COLD_BYTES = 512 << 20
"""Copies of a weight are read in turns until this many bytes, far more than any cache holds."""


def profiled(sides: Sides) -> list[tuple[str, int, float, float]]:
    """Return name, calls, milliseconds and share of the longest kernels of some bf16 steps."""
    runner, scale = sides.runner(Precision.BF16), sides.scale
    cache = runner.new_cache(1, scale.past + scale.steps + 8)

    def steps() -> Tensor:
        cache.lengths[0] = scale.past
        return runner.decode_greedily(cache, 0, [5], scale.steps)

    steps()
    sides.card.wait()
    kind = ProfilerActivity.CUDA if sides.card.is_gpu else ProfilerActivity.CPU
    with profile(activities=[kind]) as found:
        steps()
        sides.card.wait()
    times = [
        (each.key, each.count, _microseconds(each) / 1000) for each in found.key_averages()
    ]  # fmt: skip
    total = sum(time for *_, time in times) or 1.0
    longest = sorted(times, key=lambda each: -each[2])[:LONGEST]
    return [(name, calls, time, time / total) for name, calls, time in longest]


def _microseconds(event: object) -> float:
    """Return what a kernel took itself, under either name that torch has had for it."""
    for name in ("self_device_time_total", "self_cuda_time_total"):
        if time := float(getattr(event, name, 0.0)):
            return time
    return float(getattr(event, "self_cpu_time_total", 0.0))


def tiles(card: Card) -> list[Table]:
    """Return a table for each weight of a step: bytes a second by tile; none without Triton."""
    if not (HAS_TRITON and card.is_gpu):
        return []
    return [
        _tiles_of(card, name, make, shape_NK)
        for name, make in (("bf16", _as_bf16), ("int8", _as_int8), ("fp8", _as_fp8))
        for shape_NK in ((6144, 2048), (2048, 2048), (8192, 2048), (2048, 8192), (65037, 2048))
    ]


def splits(card: Card) -> list[Table]:
    """Return tables of attention for one row by how many programs share a head."""
    if not (HAS_TRITON and card.is_gpu):
        return []
    return [_splits_of(card, length) for length in (100, 200, 500, 1000, 2000)]


def _splits_of(card: Card, length: int) -> Table:
    width, num_heads = 2048, 32
    memory_RSCD = torch.randn(1, length + 8, 2, width, device=card.device).bfloat16()
    qkv_N3D = torch.randn(1, 3 * width, device=card.device).bfloat16()
    numbers = [torch.tensor(each, device=card.device).int() for each in ([0], [length], [0, 1])]
    places = Places(*numbers)
    lines = []
    for count in (1, 2, 4, 8, 16):

        def attend(count: int = count) -> Tensor:
            return triton_attention.attend(qkv_N3D, memory_RSCD, places, num_heads, count)

        replay = _graph_of(attend, 20)
        seconds = [card.seconds(replay) / 20 for _ in range(5)]
        lines.append(Line(name=f"{count} programs a head", seconds=spread(seconds)))
    return Table(
        title=f"Attention of one token over {length}", setting="bf16, one layer", lines=tuple(lines)
    )


def _as_bf16(weight_NK: Tensor) -> Matrix:
    return Matrix(weight_NK.bfloat16(), None, None)


def _as_int8(weight_NK: Tensor) -> Matrix:
    rounded = round_int8(weight_NK)
    return Matrix(rounded.rounded_NK, rounded.scale_N, None)


def _as_fp8(weight_NK: Tensor) -> Matrix:
    rounded = round_fp8(weight_NK)
    return Matrix(rounded.rounded_NK, rounded.scale_N, None)


def _tiles_of(
    card: Card, name: str, make: Callable[[Tensor], Matrix], shape_NK: tuple[int, int]
) -> Table:
    first = make(torch.randn(shape_NK, device=card.device))
    size = first.weight_NK.nbytes
    copies = [first] + [
        Matrix(first.weight_NK.clone(), first.scale_N, None) for _ in range(COLD_BYTES // size)
    ]
    x_1K = torch.randn(1, shape_NK[1], device=card.device).bfloat16()
    chosen = triton_linear.row_tile(*shape_NK, first.weight_NK.itemsize)
    lines = []
    for tile in _candidates(chosen, shape_NK[1]):

        def multiply_all(tile: Tile = tile) -> list[Tensor]:
            return [triton_linear.multiply_row_in_tiles(x_1K, copy, tile) for copy in copies]

        replay = _graph_of(multiply_all, 1)
        each = spread([card.seconds(replay) / len(copies) for _ in range(5)])
        mark = ", the chosen one" if tile == chosen else ""
        lines.append(
            Line(
                name=f"{tile.rows} × {tile.columns}, {tile.warps} warps{mark}",
                seconds=each,
                rate=f"{size / each.median / 1e9:,.0f} GB/s",
            )
        )
    return Table(
        title=f"Product of one row, {shape_NK[0]} × {shape_NK[1]}, {name}",
        setting="bytes of the weight a second, weights not in any cache, in one graph",
        lines=tuple(sorted(lines, key=lambda line: line.seconds.median)),
    )


def _candidates(chosen: Tile, width: int) -> Iterator[Tile]:
    columns = {chosen.columns // 2, chosen.columns, chosen.columns * 2}
    for rows, count, warps in itertools.product((2, 4, 8, 16), sorted(columns), (4, 8)):
        if count <= max(width, chosen.columns):
            yield Tile(rows, count, warps)


def _graph_of(work: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a graph that does the work several times: launches of the host would hide it."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            work()
    return graph.replay
