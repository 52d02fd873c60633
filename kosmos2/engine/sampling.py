"""From the scores of the next token to one token: pure functions of tensors, many rows at once.

No row's result depends on the other rows, and nothing here asks the device for a value, except
where the device is the CPU itself. A score of -inf is a token that cannot be chosen.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from hashlib import blake2b

import torch
from torch import Tensor

from kosmos2.errors import RequestError

BREAK = -1
"""Stands in a history where a token is that no n-gram may contain, and behind its end."""

HEAD = 256
"""So many of the most probable tokens are looked at before all are sorted (on a CPU alone)."""


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
    """What may be chosen at all. Padding never is, except under `NoRepeat.TRANSFORMERS`.

    Rules never go so far that nothing is left: then all that a constraint allows is.
    """

    no_repeat: NoRepeat = NoRepeat.WORDS
    ngram_size: int = 3
    """0 allows every repetition and keeps the other quirks of the mode."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens that were there less likely, as in transformers; 1 is no rule.

    It counts the tokens that the mode's n-grams are made of: words alone under `WORDS` and `OFF`.
    """

    def __post_init__(self) -> None:
        if self.ngram_size < 0:
            raise RequestError(
                f"ngram_size must be 0 (no rule) or more, got {self.ngram_size}. "
                "Both references use 3."
            )
        if not 0 < self.repetition_penalty < math.inf:
            raise RequestError(
                f"repetition_penalty must be above 0, got {self.repetition_penalty}. 1 is no rule."
            )

    @property
    def blocked_size(self) -> int:
        """Return the size of the n-grams that may not come twice, 0 for none."""
        return 0 if self.no_repeat is NoRepeat.OFF else self.ngram_size


def compat(name: str) -> Rules:
    """Return the rules under which "original" or "transformers" is reproduced token for token."""
    modes = {mode.value: mode for mode in (NoRepeat.ORIGINAL, NoRepeat.TRANSFORMERS)}
    if name not in modes:
        raise RequestError(f"compat must be one of {sorted(modes)}, got {name!r}")
    return Rules(no_repeat=modes[name])


@dataclass(frozen=True, slots=True)
class Greedy:
    """Take the token with the highest score; of equals, the one with the lowest id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Draw a token, after temperature, top_k, top_p and min_p, in this order.

    The same request with the same seed gets the same answer, whatever its batch mates.
    """

    seed: int
    temperature: float = 1.0
    top_k: int = 0
    """Keep this many tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of most probable tokens whose mass reaches this."""
    min_p: float = 0.0
    """Keep the tokens that are at least this fraction as probable as the most probable one."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise RequestError(f"seed must be in 0..2**64 - 1, got {self.seed}")
        if not 0 < self.temperature < math.inf:
            raise RequestError(
                f"temperature must be above 0, got {self.temperature}. "
                "For the most probable token use Greedy()."
            )
        if self.top_k < 0:
            raise RequestError(f"top_k must be 0 (keep all) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise RequestError(f"top_p must be in (0, 1], got {self.top_p}. 1 keeps all.")
        if not 0 <= self.min_p <= 1:
            raise RequestError(f"min_p must be in [0, 1], got {self.min_p}. 0 keeps all.")

    def uniform(self, step: int) -> float:
        """Return the number in [0, 1) that decides the new token `step`, counted from 0."""
        counter = self.seed.to_bytes(8, "little") + step.to_bytes(8, "little")
        return (int.from_bytes(blake2b(counter, digest_size=8).digest(), "little") >> 11) / 2**53


@dataclass(frozen=True, slots=True)
class Beam:
    """Keep the `width` best texts at each step, and answer with the best that came to its end.

    As in transformers: rules act on log-probabilities, the score of a text is their sum over
    (number of tokens, its end included) ** length_penalty, and the search is over when `width`
    texts have ended and none that goes on has a better score than the worst of them. One beam is
    the greedy text. Tokens that a constraint forces count in neither sum nor number.

    Under `NoRepeat.ORIGINAL`, without a constraint, as in the original: the search is over when
    `width` texts have ended, the prompt counts in sum and number, and a text without room for
    more is scored with its end.
    """

    width: int
    _: KW_ONLY
    length_penalty: float = 1.0
    """Above 0 prefers long texts, below 0 short ones."""
    num_best: int = 1
    """How many answers to return: the others are in `Generation.others`."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise RequestError(f"width must be at least 1, got {self.width}. 1 is Greedy().")
        if not 1 <= self.num_best <= self.width:
            raise RequestError(
                f"num_best must be in 1..width ({self.width}), got {self.num_best}. "
                "Take a wider search for more answers."
            )
        if not -16 <= self.length_penalty <= 16:
            raise RequestError(f"length_penalty must be in -16..16, got {self.length_penalty}")


# --- rules


def repeats(history_RL: Tensor, lengths_R: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return ids_RM, and where of these stand ids that would end an n-gram for the second time.

    Behind the length of a row its history is BREAK. No row may be shorter than size, which is at
    least 1.
    """
    followers_RM = history_RL[:, size - 1 :]
    again_RM = followers_RM != BREAK
    if size == 1:
        return followers_RM, again_RM
    behind_N = torch.arange(1 - size, 0, device=history_RL.device)
    tail_RN = history_RL.gather(1, lengths_R[:, None] + behind_N)
    for at in range(size - 1):
        window_RM = history_RL[:, at : at + followers_RM.shape[1]]
        again_RM &= window_RM == tail_RN[:, at, None]
    return followers_RM, again_RM & (tail_RN != BREAK).all(dim=1, keepdim=True)


def forbid(scores_RV: Tensor, ids_RM: Tensor, where_RM: Tensor) -> Tensor:
    """Return scores_RV in which those of ids_RM cannot be chosen where where_RM is true.

    An id that has no score is passed over.
    """
    highest = scores_RV.shape[1] - 1
    where_RM = where_RM & (ids_RM >= 0) & (ids_RM <= highest)
    # Adding is the scatter whose result does not depend on the order of equal ids.
    changes_RM = torch.zeros_like(ids_RM, dtype=scores_RV.dtype).masked_fill(where_RM, -torch.inf)
    return scores_RV.scatter_add(1, ids_RM.clamp(0, highest), changes_RM)


def leave_some(scores_RV: Tensor, before_RV: Tensor) -> Tensor:
    """Return scores_RV, but a row as it was before if it has nothing left."""
    empty_R1 = scores_RV.amax(dim=-1, keepdim=True) == -torch.inf
    return torch.where(empty_R1, before_RV, scores_RV)


def penalize(scores_RV: Tensor, ids_RL: Tensor, penalties_R: Tensor) -> Tensor:
    """Return scores_RV with those of ids_RL made smaller, once each, as transformers does.

    Positive ones are divided by the penalty, negative ones multiplied. An id that has no score is
    passed over.
    """
    num_rows, size = scores_RV.shape
    seen_RV = torch.zeros(num_rows, size + 1, dtype=torch.bool, device=scores_RV.device)
    ids_RL = ids_RL.masked_fill((ids_RL < 0) | (ids_RL >= size), size)
    seen_RV = seen_RV.scatter(1, ids_RL, torch.ones_like(ids_RL, dtype=torch.bool))[:, :-1]
    penalties_R1 = penalties_R[:, None].to(scores_RV.dtype)
    smaller_RV = torch.where(scores_RV < 0, scores_RV * penalties_R1, scores_RV / penalties_R1)
    return torch.where(seen_RV, smaller_RV, scores_RV)


def restrict(scores_RV: Tensor, allowed_RV: Tensor) -> Tensor:
    """Return scores_RV in which only allowed tokens can be chosen."""
    return torch.where(allowed_RV, scores_RV, -torch.inf)


def decide(logprobs_RV: Tensor, yes_R: Tensor, no_R: Tensor) -> tuple[Tensor, Tensor]:
    """Return yes where it has a probability of 1/2 or more, else no; and the answer's logprob."""
    yes_logprobs_R = logprobs_RV.gather(1, yes_R[:, None])[:, 0]
    probabilities_R = yes_logprobs_R.exp()
    is_yes_R = probabilities_R >= 0.5
    no_logprobs_R = (-probabilities_R).log1p()
    return torch.where(is_yes_R, yes_R, no_R), torch.where(is_yes_R, yes_logprobs_R, no_logprobs_R)


# --- sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How each row is drawn; one number a row. `most_k` is the largest of k_R."""

    temperature_R: Tensor
    k_R: Tensor
    p_R: Tensor
    min_p_R: Tensor
    uniform_R: Tensor
    most_k: int
    any_p: bool
    any_min_p: bool


def draw(scores_RV: Tensor, draws: Draws) -> Tensor:
    """Return ids_R, drawn after temperature, top-k, top-p and min-p."""
    scores_RV = cool(scores_RV, draws.temperature_R)
    if draws.most_k:
        scores_RV = keep_top_k(scores_RV, draws.k_R, draws.most_k)
    if draws.any_p:
        scores_RV = keep_top_p(scores_RV, draws.p_R)
    if draws.any_min_p:
        scores_RV = keep_min_p(scores_RV, draws.min_p_R)
    return pick(scores_RV.softmax(dim=-1), draws.uniform_R)


def cool(scores_RV: Tensor, temperature_R: Tensor) -> Tensor:
    """Return scores_RV over the temperature, moved so that the highest is 0."""
    highest_R1 = scores_RV.amax(dim=-1, keepdim=True)
    temperature_R1 = temperature_R[:, None].to(scores_RV.dtype)
    return (scores_RV - highest_R1) / temperature_R1.clamp(min=torch.finfo(scores_RV.dtype).tiny)


def keep_top_k(scores_RV: Tensor, k_R: Tensor, most_k: int) -> Tensor:
    """Return scores_RV without all tokens that score below the k-th; equals of the k-th stay.

    0 keeps all. most_k is the largest of k_R, at most V.
    """
    ranked_RK = scores_RV.topk(most_k, dim=-1).values
    kth_R1 = ranked_RK.gather(1, (k_R[:, None] - 1).clamp(min=0))
    return scores_RV.masked_fill((scores_RV < kth_R1) & (k_R[:, None] > 0), -torch.inf)


def keep_top_p(scores_RV: Tensor, p_R: Tensor) -> Tensor:
    """Return scores_RV with the smallest prefix, in order of probability, whose mass reaches p.

    As in both references: the token with which the mass reaches p stays. Of equals the lower id
    comes first. 1 keeps all.
    """
    p_R1 = p_R[:, None]
    probabilities_RV = scores_RV.softmax(dim=-1)
    ranked_RK = _ranked(probabilities_RV, p_R1)
    before_RK = ranked_RK.cumsum(dim=-1, dtype=torch.float64) - ranked_RK
    kept_RK = before_RK < p_R1
    num_kept_R1 = kept_RK.sum(dim=-1, keepdim=True)
    least_R1 = ranked_RK.gather(1, (num_kept_R1 - 1).clamp(min=0))
    num_least_R1 = (kept_RK & (ranked_RK == least_R1)).sum(dim=-1, keepdim=True)
    is_least_RV = probabilities_RV == least_R1
    beyond_RV = (probabilities_RV < least_R1) | (
        is_least_RV & (is_least_RV.cumsum(dim=-1, dtype=torch.int32) > num_least_R1)
    )
    return scores_RV.masked_fill(beyond_RV & (p_R1 < 1), -torch.inf)


def _ranked(probabilities_RV: Tensor, p_R1: Tensor) -> Tensor:
    """Return the highest probabilities of each row in order: as many as reach p, or all."""
    if probabilities_RV.is_cpu and probabilities_RV.shape[-1] > HEAD:
        # To look at values is free here, and a sort of all takes many times as long.
        head_RK = probabilities_RV.topk(HEAD, dim=-1).values
        mass_R1 = head_RK.sum(dim=-1, keepdim=True, dtype=torch.float64)
        if bool(((mass_R1 > p_R1 + 1e-9) | (p_R1 >= 1)).all()):
            return head_RK
    return probabilities_RV.sort(dim=-1, descending=True).values


def keep_min_p(scores_RV: Tensor, min_p_R: Tensor) -> Tensor:
    """Return scores_RV without tokens below this fraction of the highest probability."""
    least_R1 = scores_RV.amax(dim=-1, keepdim=True) + min_p_R[:, None].log().to(scores_RV.dtype)
    return scores_RV.masked_fill(scores_RV < least_R1, -torch.inf)


def pick(probabilities_RV: Tensor, uniform_R: Tensor) -> Tensor:
    """Return ids_R: where the sums in order of id, in float64, first exceed uniform x total.

    A token of probability 0 is never picked.
    """
    sums_RV = probabilities_RV.cumsum(dim=-1, dtype=torch.float64)
    total_R1 = sums_RV[:, -1:]
    below_R1 = torch.nextafter(total_R1, torch.zeros_like(total_R1))
    target_R1 = torch.minimum(uniform_R[:, None] * total_R1, below_R1)
    ids_R = torch.searchsorted(sums_RV, target_R1, right=True)[:, 0]
    return ids_R.clamp(max=probabilities_RV.shape[-1] - 1)
