"""Ids and image tensors in, ids and scores out. No strings; the shape letters are `model`'s."""

from kosmos2.engine.constraint import FREE, BoxConstraint, CaptionConstraint, Constraint, Free
from kosmos2.engine.engine import Engine
from kosmos2.engine.request import (
    Generation,
    Request,
    Score,
    ScoreRequest,
    Step,
    StopReason,
    original_max_new_tokens,
)
from kosmos2.engine.runner import Runner
from kosmos2.engine.sampling import Beam, Greedy, NoRepeat, Rules, Sampling, compat
from kosmos2.engine.scheduler import Limits

__all__ = [
    "FREE",
    "Beam",
    "BoxConstraint",
    "CaptionConstraint",
    "Constraint",
    "Engine",
    "Free",
    "Generation",
    "Greedy",
    "Limits",
    "NoRepeat",
    "Request",
    "Rules",
    "Runner",
    "Sampling",
    "Score",
    "ScoreRequest",
    "Step",
    "StopReason",
    "compat",
    "original_max_new_tokens",
]
