"""How far each precision is from float32: logits at full size, and tokens of whole captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import prompts
from benchmarks.names import FP32
from benchmarks.tables import Setup

PICTURES, QUICK_PICTURES = 8, 2
TEXT_LENGTH = 32
SAME_TOKENS = 32
"""Greedy tokens that are compared one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One contestant's logits beside the reference's, over many positions."""

    name: str
    positions: int
    error: float
    """Norm of the difference over the norm of the reference, each token's mean taken off."""
    top1: float
    """Share of positions at which both prefer the same token."""
    top5: float
    """Share at which the reference's first choice is among the first five."""
    worst_rank: int
    """The lowest place that a first choice of the reference fell to; 1 is the best."""
    divergence: float
    """KL from the reference, nats, mean."""


def compare(name: str, reference_MV: Tensor, logits_MV: Tensor) -> Agreement:
    """Return how well logits agree with those of the reference."""
    reference_MV, logits_MV = reference_MV.double(), logits_MV.double()
    centred_MV = reference_MV - reference_MV.mean(dim=-1, keepdim=True)
    difference_MV = logits_MV - logits_MV.mean(dim=-1, keepdim=True) - centred_MV
    first_M1 = reference_MV.argmax(dim=-1, keepdim=True)
    rank_M = (logits_MV > logits_MV.gather(1, first_M1)).sum(dim=-1) + 1
    log_p_MV, log_q_MV = reference_MV.log_softmax(dim=-1), logits_MV.log_softmax(dim=-1)
    divergence_M = (log_p_MV.exp() * (log_p_MV - log_q_MV)).sum(dim=-1)
    return Agreement(
        name=name,
        positions=len(reference_MV),
        error=float(difference_MV.norm() / centred_MV.norm()),
        top1=float((rank_M == 1).double().mean()),
        top5=float((rank_M <= 5).double().mean()),
        worst_rank=int(rank_M.max()),
        divergence=float(divergence_M.mean()),
    )


class Exam:
    """The same random text behind each of several pictures, for all contestants."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        count = QUICK_PICTURES if setup.quick else PICTURES
        self._asked = _texts(setup, count)
        self._pixels_NCYX = prompts.pictures(setup.lineup.config, count)
        self._expected_MV = self._logits(FP32)

    def agreement(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the agreement of contestants with transformers in float32."""
        return [
            asdict(compare(name, self._expected_MV, self._logits(name)))
            for name in names
            if name != FP32
        ]

    def _logits(self, name: str) -> Tensor:
        """Return logits_MV at all positions behind the pictures, one picture at a time."""
        (contestant,) = self._setup.lineup.get([name])
        asked, first = self._asked, self._asked.length - TEXT_LENGTH - 1
        rows = []
        for at, pixels_CYX in enumerate(self._pixels_NCYX):
            row = prompts.Prompts(asked.ids_BT[at : at + 1], asked.image_mask_BT[at : at + 1])
            logits_BTV = contestant.score(row, contestant.encode(pixels_CYX[None]))
            rows.append(logits_BTV[0, first:].clone())
        return torch.cat(rows)


def same_tokens(ours: str, peer: str, setup: Setup) -> dict[str, Any]:
    """Return how many greedy tokens of a caption are those of the peer before the first is not."""
    config = setup.lineup.config
    asked, pixels_NCYX = prompts.captions(config, 1), prompts.pictures(config, 1)
    texts = [
        each.caption(pixels_NCYX, asked, SAME_TOKENS)[0] for each in setup.lineup.get([ours, peer])
    ]
    return {"ours": ours, "peer": peer, "same": equal_start(*texts), "of": SAME_TOKENS}


def equal_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts have in common from the first on."""
    pairs = zip(one, other, strict=True)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), len(one))


def _texts(setup: Setup, count: int) -> prompts.Prompts:
    config = setup.lineup.config
    words = prompts.vocabulary(config)
    generator = torch.Generator().manual_seed(3)
    text_BT = torch.randint(4, words.mask, (count, TEXT_LENGTH), generator=generator)
    return prompts.captions(config, count).extended(text_BT)
