"""The language step beside bare spaCy: the same pipeline, batch size, captions and process."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.samples import ratios, spread
from kosmos2.grit.language import Parser
from kosmos2.grit.phrases import phrases
from kosmos2.grit.recipe import Language, Phrases

ROUND = 256
"""Captions of a sample: one batch."""
SAMPLE = 3
"""Batches that take turns, so that no sample is of the same captions as the one before."""

Found = dict[str, Any]


def measure(captions: Sequence[str], rounds: int) -> Found:
    """Return captions a second of both, and what part of bare spaCy's rate ours is.

    They take turns, and each round begins with the other; seconds are the processor's, which other
    processes on the machine disturb less than the clock.
    """
    parser, rules = Parser(Language()), Phrases()
    pipeline, size = parser._pipeline, parser.settings.batch_size
    batches = [list(captions[n * ROUND : (n + 1) * ROUND]) for n in range(SAMPLE)]

    def bare(batch: list[str]) -> None:
        for _ in pipeline.pipe(batch, batch_size=size):
            pass

    def ours(batch: list[str]) -> None:
        for parse in parser.parse(batch):
            for _ in phrases(parse, rules):
                pass

    sides: dict[str, Callable[[list[str]], None]] = {"bare": bare, "ours": ours}
    for batch in batches:
        for side in sides.values():
            side(batch)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            begun = time.process_time()
            sides[name](batches[number % SAMPLE])
            seconds[name].append(time.process_time() - begun)
    share = spread(ratios(seconds["bare"], seconds["ours"]))
    return {
        "rates": {name: ROUND / spread(each).median for name, each in seconds.items()},
        "share": [share.median, share.low, share.high],
        "rounds": rounds,
        "captions": ROUND,
        "words": sum(len(each.split()) for batch in batches for each in batch) / (ROUND * SAMPLE),
        "model": parser.version,
    }


def grit_captions(path: Path, count: int) -> list[str]:
    """Return so many captions made of the published ones: in each, one word is another's.

    So the tokenizer, which remembers words, meets no caption twice.
    """
    rows = path.read_text(encoding="utf-8").splitlines()
    known = [str(json.loads(row)["caption"]).split() for row in rows]
    words = [word for caption in known for word in caption]
    draw = random.Random(0)
    made = []
    for _ in range(count):
        caption = list(draw.choice(known))
        caption[draw.randrange(len(caption))] = draw.choice(words)
        made.append(" ".join(caption))
    return made


def scene_captions(folder: Path) -> list[str]:
    """Return the captions of a folder of `kosmos2 scenes sample`."""
    rows = (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["caption"] for row in rows]
