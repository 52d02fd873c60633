"""Answers for a server that keeps the truth to itself: `result.json`, as it wants them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kosmos2.evaluation.benchmark import Benchmark, Problem
from kosmos2.evaluation.predictions import Run, matched

FILE = "result.json"


def write_submission(
    benchmark: Benchmark, problems: Sequence[Problem], run: Run, folder: Path
) -> Path | None:
    """Write what can be handed in, every question answered once; return where, None: nowhere."""
    if benchmark.submit is None:
        return None
    rows = benchmark.submit(matched(benchmark, problems, run))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    file.write_text(json.dumps(rows, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def is_secret(benchmark: Benchmark, problems: Sequence[Problem]) -> bool:
    """Return whether nobody but a server knows the truth."""
    return benchmark.submit is not None and not any(each.references for each in problems)
