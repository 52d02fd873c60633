"""What torchrun starts in the tests of several ranks: OUT KIND STEPS [settings a.b=c]."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
from blob_cases import NO_DROPOUT, trainer

from kosmos2 import config
from kosmos2.training import checkpoint
from kosmos2.training.meter import Progress
from kosmos2.training.ranks import joined
from kosmos2.vocab.tokenizer import Tokenizer


def main() -> None:
    out = Path(sys.argv[1])
    recipe = config.changed(NO_DROPOUT, sys.argv[2:])
    torch.set_num_threads(1)
    with joined(recipe.parallel.kind, torch.device("cpu")) as (ranks, _):
        run = trainer(recipe, out, Tokenizer.from_folder(out), ranks)
        if checkpoint.exists(out):
            run.resume()
        losses: list[tuple[float, ...]] = []

        def report(progress: Progress) -> None:
            losses.append((progress.text_loss, progress.location_loss, progress.gradient_norm))

        if os.environ.get("FAILING_RANK") == str(ranks.rank):
            recipe = dataclasses.replace(recipe)
            raise MemoryError("no memory left on this rank")
        run.train(report, lambda step, network: None)
        plain = run.plain()
        if plain is not None:
            state = {name: each.detach() for name, each in plain.named_parameters()}
            torch.save(state, out / "weights.pt")
            (out / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
