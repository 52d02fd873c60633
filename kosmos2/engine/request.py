"""What the engine is asked and what it answers: ids, tensors and numbers, no strings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from kosmos2.engine.constraint import Constraint
from kosmos2.engine.sampling import Beam, Greedy, Rules, Sampling
from kosmos2.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A prompt and how to continue it."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    """True where a vector of a picture takes the place of the token."""
    latents: tuple[Tensor, ...] = ()
    """latents_QD of each picture of this prompt, in its order.

    Requests that hold the same tensor share its prefill.
    """
    max_new_tokens: int
    sampling: Greedy | Sampling | Beam = field(default_factory=Greedy)
    rules: Rules = field(default_factory=Rules)
    constraint: Constraint | None = None
    """None for an answer of any form."""

    def __post_init__(self) -> None:
        check_prompt(self.ids, self.image_mask, self.latents)
        if self.max_new_tokens < 1:
            raise RequestError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreRequest:
    """A prompt and a text after it, whose probability is asked for; nothing is generated."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    latents: tuple[Tensor, ...] = ()
    continuation: tuple[int, ...]

    def __post_init__(self) -> None:
        check_prompt(self.ids, self.image_mask, self.latents)
        if not self.continuation:
            raise RequestError("there is nothing to score: the continuation has no tokens")


def check_prompt(
    ids: tuple[int, ...], image_mask: tuple[bool, ...], latents: tuple[Tensor, ...]
) -> None:
    """Refuse a prompt whose parts do not fit each other."""
    if not ids:
        raise RequestError("the prompt has no tokens. It needs at least the start token.")
    if len(image_mask) != len(ids):
        raise RequestError(
            f"image_mask must have one entry per token: {len(image_mask)} entries, "
            f"{len(ids)} tokens"
        )
    odd = [tuple(latents_QD.shape) for latents_QD in latents if latents_QD.dim() != 2]
    if odd:
        raise RequestError(f"each picture is one latents_QD of two dimensions, got shapes {odd}")
    slots, vectors = sum(image_mask), sum(len(latents_QD) for latents_QD in latents)
    if slots and not latents:
        raise RequestError(
            f"the prompt has {slots} image positions and no picture: pass latents, "
            "see Engine.encode_images"
        )
    if slots != vectors:
        raise RequestError(
            f"the prompt has {slots} image positions, its {len(latents)} pictures bring "
            f"{vectors} vectors"
        )


class StopReason(StrEnum):
    EOS = "eos"
    """The model ended its text."""
    LENGTH = "length"
    """max_new_tokens was reached."""
    CONSTRAINT = "constraint"
    """The constraint was fulfilled."""
    CANCELLED = "cancelled"
    """Nobody wanted the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One new token."""

    id: int
    logprob: float
    """Natural logarithm of the model's own probability, before any rule or temperature.

    0 for a forced token.
    """
    mass: float | None
    """For a location token: the model's probability of this cell and the cells that touch it.

    The sum over the (at most) 3 x 3 location tokens around it, of the softmax over the whole
    vocabulary before any rule or temperature; None for every other token.
    """
    forced: bool = False
    """The constraint left no choice, so the model was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A whole answer; an end of text that ended it is not part of it."""

    steps: tuple[Step, ...]
    stop: StopReason
    mean_logprob: float
    """Over the tokens that the model chose and the end of text that ended them, if one did."""
    score: float | None = None
    """By which a search of two beams or more ranked it, see `Beam`."""
    others: tuple[Generation, ...] = ()
    """The next best answers, where a search was asked for more than one."""

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(step.id for step in self.steps)

    @property
    def logprobs(self) -> tuple[float, ...]:
        return tuple(step.logprob for step in self.steps)

    @property
    def masses(self) -> tuple[float | None, ...]:
        return tuple(step.mass for step in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How probable a continuation is."""

    logprobs: tuple[float, ...]
    """Of each token, after the prompt and the tokens before it: natural logarithms."""
    greedy: bool
    """Whether each token is the most probable one at its place: greedy decoding would write it."""

    @property
    def total(self) -> float:
        return math.fsum(self.logprobs)

    @property
    def mean(self) -> float:
        return self.total / len(self.logprobs)


def original_max_new_tokens(max_len: int, prompt_length: int) -> int:
    """Return the max_new_tokens that equals the original's `--max-len-b`.

    It counts prompt and answer together, but not the start and the end of text.
    """
    num_tokens = max_len + 1 - prompt_length
    if num_tokens < 1:
        raise RequestError(
            f"a prompt of {prompt_length} tokens leaves no room in max_len {max_len}. "
            f"Use at least {prompt_length}."
        )
    return num_tokens
