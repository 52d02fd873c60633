"""`python -m benchmarks.captions`: seconds from a picture's file to its caption, one at a time.

The embedded model without quantisation, ours and transformers' `generate` in turns on the pictures
of `examples/`. Both write the same words; where they do not, this stops.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image

from benchmarks.evaluation_sides import Loaded
from benchmarks.machine import ROOT, Load, stamp
from benchmarks.samples import ratios, spread
from kosmos2.api import Kosmos2, Settings
from kosmos2.api.decoding import Decoding
from kosmos2.tasks import BRIEF, DETAILED
from kosmos2.weights.pretrained import EMBEDDED, resolve

Caption = Callable[[str, bool], str]


def ours(settings: Settings) -> Caption:
    """Return `Kosmos2.caption` from a path."""
    model = Kosmos2.load(device="cpu", dtype="fp32", settings=settings)
    return lambda path, detailed: (
        (model.caption_in_detail if detailed else model.caption)(path).trace.markup
    )


def peer(tokens: int) -> Caption:
    """Return transformers' answer to the same prompt."""
    loaded = Loaded.of(resolve(EMBEDDED))
    processor, model = loaded.processor, loaded.model

    def caption(path: str, detailed: bool) -> str:
        inputs: Any = processor(
            text="<grounding>" + (DETAILED if detailed else BRIEF),
            images=Image.open(path),
            num_image_tokens=model.config.latent_query_num,
            return_tensors="pt",
        )
        length = inputs["input_ids"].shape[1]
        answer = model.generate(
            **inputs, do_sample=False, no_repeat_ngram_size=0, max_new_tokens=tokens
        )
        processor.post_process_generation(
            processor.batch_decode(answer, skip_special_tokens=True)[0]
        )
        return loaded.tokenizer.decode(
            [token for token in answer[0, length:].tolist() if token > 2]
        )

    return caption


def timed(caption: Caption, path: str, detailed: bool) -> tuple[float, str]:
    """Return how long a caption took, and it."""
    began = time.perf_counter()
    with torch.inference_mode():
        answer = caption(path, detailed)
    return time.perf_counter() - began, answer


def race(sides: Sequence[Caption], pictures: Sequence[str], detailed: bool, rounds: int) -> None:
    """Let the sides take turns; print what they took. The first round warms them up."""
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        told = [[timed(side, path, detailed) for path in pictures] for side in sides]
        for (_, mine), (_, theirs), path in zip(*told, pictures, strict=True):
            if mine != theirs:
                sys.exit(f"{path}: ours says {mine!r}, transformers {theirs!r}")
        for seconds, answers in zip(times, told, strict=True):
            seconds += [each for each, _ in answers]
    first, (mine_warm, theirs_warm) = times[0][0], (each[len(pictures) :] for each in times)
    faster = spread(ratios(theirs_warm, mine_warm))
    sys.stdout.write(
        f"{'detailed' if detailed else 'brief'} caption: median {spread(mine_warm).median:.3f} s, "
        f"slowest {max(mine_warm):.3f} s, the very first {first:.3f} s; transformers "
        f"{spread(theirs_warm).median:.3f} s; ours {faster.median:.2f} times as fast "
        f"({faster.low:.2f} - {faster.high:.2f})\n"
    )


def main() -> None:
    """Print seconds a caption, and how many times as quick as the peer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.captions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch, on both sides")
    options = parser.parse_args()
    pictures = sorted(map(str, (ROOT / "examples").glob("*.jpg")))
    decoding = Decoding(no_repeat="off")
    sides = ours(decoding.settings()), peer(decoding.max_new_tokens)
    torch.set_num_threads(options.threads)
    with Load() as load:
        for detailed in (False, True):
            race(sides, pictures, detailed, options.rounds)
    now = stamp()
    sys.stdout.write(
        f"{now.processor}, {now.threads} threads; torch {now.torch}, transformers "
        f"{now.transformers}; commit {now.commit}; others took {load.others:.0%} of the machine\n"
    )


if __name__ == "__main__":
    main()
