"""One process whose memory is looked at: it loads, looks at a picture, writes 16 tokens."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import prompts
from benchmarks.machine import peak_memory
from benchmarks.side import Contestant
from kosmos2.weights import huggingface

TOKENS = 16


def report(
    load: Callable[[Path, str], Contestant], precision: str, folder: str, threads: str
) -> None:
    """Print seconds and gigabytes as one line of JSON."""
    torch.set_num_threads(int(threads))
    start = time.perf_counter()
    contestant = load(Path(folder), precision)
    loaded = time.perf_counter()
    config = huggingface.read_config(Path(folder))
    contestant.caption(prompts.pictures(config, 1), prompts.captions(config, 1), TOKENS)
    done = time.perf_counter()
    found = {"load": loaded - start, "caption": done - loaded, **peak_memory()}
    sys.stdout.write(json.dumps(found) + "\n")
