"""Ids and image tensors in, ids and scores out. No strings; the shape letters are `model`'s."""

from kosmos2.engine.constraint import FREE, BoxConstraint, CaptionConstraint, Constraint, Free
from kosmos2.engine.engine import Engine
from kosmos2.engine.request import (
    Generation,
    Request,
    Step,
    StopReason,
    original_max_new_tokens,
)
from kosmos2.engine.sampling import Greedy, NoRepeat, Rules, Sampling, compat

__all__ = [
    "FREE",
    "BoxConstraint",
    "CaptionConstraint",
    "Constraint",
    "Engine",
    "Free",
    "Generation",
    "Greedy",
    "NoRepeat",
    "Request",
    "Rules",
    "Sampling",
    "Step",
    "StopReason",
    "compat",
    "original_max_new_tokens",
]
