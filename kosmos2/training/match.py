"""Whether a checkpoint belongs to a recipe: all but the length and how the work is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kosmos2 import config
from kosmos2.training.recipe import TrainRecipe

FREE = ("run", "parallel", "checkpoints")
"""Tables that may change when a run is gone on with; so may `optimizer.steps`."""


def must_match(recipe: TrainRecipe) -> dict[str, Any]:
    """Return what a checkpoint needs unchanged, as plain values."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    for table in FREE:
        del tree[table]
    del tree["optimizer"]["steps"]
    return tree


def differences(recipe: TrainRecipe, stored: Mapping[str, Any]) -> list[str]:
    """Return one text for each key that the recipe of a checkpoint has otherwise.

    A key that an earlier release did not know has its default.
    """
    steps = max(recipe.optimizer.steps, int(stored["optimizer"].get("warmup_steps", 0)))
    tree = {**stored, "optimizer": {**stored["optimizer"], "steps": steps}}
    there = config.build(TrainRecipe, tree, where="the checkpoint's recipe")
    return _differences(must_match(recipe), must_match(there), "")


def _differences(here: dict[str, Any], there: dict[str, Any], table: str) -> list[str]:
    found = []
    for key in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(key), there.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            found += _differences(ours, theirs, f"{table}{key}.")
        elif ours != theirs:
            found.append(f"{table}{key} was {_short(theirs)}, is {_short(ours)}")
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
