"""From the scores of the next token to one token: pure functions, one row at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from kosmos2.errors import RequestError

BREAK = -1
"""Stands in a history where a token is that no n-gram may contain."""


class NoRepeat(StrEnum):
    """Which n-grams may not come twice, and the quirks of the program that has this rule."""

    WORDS = "words"
    """N-grams of word pieces alone: boxes, tags and image slots never count, nor are forbidden."""
    ORIGINAL = "original"
    """All n-grams, prompt and image slots too, but the first new token is free of the rule.

    An end of text chosen as the first new token is kept and does not end it, as in the original.
    """
    TRANSFORMERS = "transformers"
    """All n-grams, prompt and image slots too, from the first new token on."""
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be chosen at all. Padding never is, except under `NoRepeat.TRANSFORMERS`."""

    no_repeat: NoRepeat = NoRepeat.WORDS
    ngram_size: int = 3
    """0 allows every repetition and keeps the other quirks of the mode."""

    def __post_init__(self) -> None:
        if self.ngram_size < 0:
            raise RequestError(
                f"ngram_size must be 0 (no rule) or more, got {self.ngram_size}. "
                "Both references use 3."
            )


def compat(name: str) -> Rules:
    """Return the rules under which "original" or "transformers" is reproduced token for token."""
    modes = {mode.value: mode for mode in (NoRepeat.ORIGINAL, NoRepeat.TRANSFORMERS)}
    if name not in modes:
        raise RequestError(f"compat must be one of {sorted(modes)}, got {name!r}")
    return Rules(no_repeat=modes[name])


@dataclass(frozen=True, slots=True)
class Greedy:
    """Take the token with the highest score."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampling:
    """Draw a token. Each request brings its own generator, so batch mates change nothing."""

    generator: torch.Generator
    temperature: float = 1.0
    top_k: int = 0
    """Keep this many tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose mass reaches this."""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise RequestError(
                f"temperature must be above 0, got {self.temperature}. "
                "For the most probable token use Greedy()."
            )
        if self.top_k < 0:
            raise RequestError(f"top_k must be 0 (keep all) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise RequestError(f"top_p must be in (0, 1], got {self.top_p}. 1 keeps all.")


def repeats(history: Sequence[int], size: int) -> set[int]:
    """Return the tokens that would end an n-gram of this size that history already has."""
    if size < 1 or len(history) < size:
        return set()
    tail = tuple(history[len(history) - size + 1 :])
    if BREAK in tail:
        return set()
    starts = range(len(history) - size + 1)
    found = {history[at + size - 1] for at in starts if tuple(history[at : at + size - 1]) == tail}
    return found - {BREAK}


def forbid(scores_V: Tensor, ids: Iterable[int]) -> Tensor:
    """Return scores_V in which these tokens cannot be chosen."""
    forbidden = torch.tensor(sorted(ids), dtype=torch.long, device=scores_V.device)
    return scores_V.index_fill(0, forbidden, -torch.inf)


def restrict(scores_V: Tensor, ids: Sequence[int]) -> Tensor:
    """Return scores_V in which only these tokens can be chosen."""
    allowed = torch.tensor(ids, dtype=torch.long, device=scores_V.device)
    return torch.full_like(scores_V, -torch.inf).index_copy(0, allowed, scores_V[allowed])


def keep_top_k(scores_V: Tensor, k: int) -> Tensor:
    """Return scores_V without all tokens that score below the k-th; equals of the k-th stay."""
    if k == 0 or k >= scores_V.shape[0]:
        return scores_V
    kth = scores_V.topk(k).values[-1]
    return scores_V.masked_fill(scores_V < kth, -torch.inf)


def keep_top_p(scores_V: Tensor, p: float) -> Tensor:
    """Return scores_V with the smallest prefix, in order of probability, whose mass reaches p.

    As in both references: the token with which the mass reaches p stays.
    """
    if p >= 1:
        return scores_V
    sorted_V, order_V = scores_V.softmax(dim=-1).sort(descending=True, stable=True)
    before_V = sorted_V.cumsum(dim=-1) - sorted_V
    beyond_V = torch.zeros_like(sorted_V, dtype=torch.bool).scatter(0, order_V, before_V >= p)
    return scores_V.masked_fill(beyond_V, -torch.inf)


def draw(scores_V: Tensor, sampling: Sampling) -> int:
    """Return a token drawn after temperature, top-k and top-p, in this order."""
    scores_V = keep_top_k(scores_V / sampling.temperature, sampling.top_k)
    probabilities_V = keep_top_p(scores_V, sampling.top_p).softmax(dim=-1)
    on_generator_V = probabilities_V.to(sampling.generator.device)
    return int(torch.multinomial(on_generator_V, 1, generator=sampling.generator))
