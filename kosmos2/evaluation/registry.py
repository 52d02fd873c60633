"""All benchmarks by name."""

from __future__ import annotations

from collections.abc import Mapping

from kosmos2.errors import RequestError
from kosmos2.evaluation import (
    absent,
    captions,
    classification,
    flickr,
    grounded,
    pope,
    raven,
    refcoco,
    round_trip,
    seedbench,
    vqa,
)
from kosmos2.evaluation.benchmark import Benchmark

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *map(refcoco.rec, refcoco.SIZES),
        flickr.phrase_grounding(),
        captions.expression_generation(),
        round_trip.round_trip(),
        captions.captioning(),
        captions.coco_captioning(),
        grounded.grounded_captioning(),
        vqa.vqa(),
        seedbench.seed_bench(),
        pope.pope(),
        absent.absent_phrases(),
        *classification.classification(),
        raven.raven(),
    )
}


def benchmark_named(name: str) -> Benchmark:
    """Return a benchmark; an error lists those that there are."""
    if name not in BENCHMARKS:
        raise RequestError(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
