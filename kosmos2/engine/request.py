"""What the engine is asked and what it answers: ids, tensors and numbers, no strings."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from torch import Tensor

from kosmos2.engine.constraint import Constraint
from kosmos2.engine.sampling import Greedy, Rules, Sampling
from kosmos2.errors import RequestError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A prompt and how to continue it."""

    ids: tuple[int, ...]
    image_mask: tuple[bool, ...]
    """True where a vector of a picture takes the place of the token."""
    latents_NQD: Tensor | None
    """The pictures of this prompt, in its order; None for a prompt without pictures."""
    max_new_tokens: int
    sampling: Greedy | Sampling = field(default_factory=Greedy)
    rules: Rules = field(default_factory=Rules)
    constraint: Constraint | None = None
    """None for an answer of any form."""

    def __post_init__(self) -> None:
        if not self.ids:
            raise RequestError("the prompt has no tokens. It needs at least the start token.")
        if len(self.image_mask) != len(self.ids):
            raise RequestError(
                f"image_mask must have one entry per token: {len(self.image_mask)} entries, "
                f"{len(self.ids)} tokens"
            )
        if self.max_new_tokens < 1:
            raise RequestError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        self._check_images()

    def _check_images(self) -> None:
        slots = sum(self.image_mask)
        if self.latents_NQD is None:
            if slots:
                raise RequestError(
                    f"the prompt has {slots} image positions and no picture: pass latents_NQD, "
                    "see Engine.encode_images"
                )
            return
        shape = tuple(self.latents_NQD.shape)
        if len(shape) != 3:
            raise RequestError(f"latents_NQD needs three dimensions, got the shape {shape}")
        if slots != shape[0] * shape[1]:
            raise RequestError(
                f"the prompt has {slots} image positions, its pictures bring "
                f"{shape[0] * shape[1]} vectors ({shape[0]} pictures of {shape[1]})"
            )


class StopReason(StrEnum):
    EOS = "eos"
    """The model ended its text."""
    LENGTH = "length"
    """max_new_tokens was reached."""
    CONSTRAINT = "constraint"
    """The constraint was fulfilled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One new token."""

    id: int
    logprob: float
    """Natural logarithm of the model's own probability, before any rule or temperature."""
    mass: float | None
    """For a location token: the model's probability of this cell and the cells that touch it.

    The sum over the (at most) 3 x 3 location tokens around it, of the softmax over the whole
    vocabulary before any rule or temperature; None for every other token.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A whole answer; an end of text that ended it is not part of it."""

    steps: tuple[Step, ...]
    stop: StopReason
    mean_logprob: float
    """Over the new tokens and the end of text that ended them, if one did."""

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(step.id for step in self.steps)

    @property
    def logprobs(self) -> tuple[float, ...]:
        return tuple(step.logprob for step in self.steps)

    @property
    def masses(self) -> tuple[float | None, ...]:
        return tuple(step.mass for step in self.steps)


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
