"""The plainest way to choose the next token of one row, and rows to choose for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kosmos2.engine import Greedy, NoRepeat, Request, Sampling
from kosmos2.engine.constraint import Allowed, Gate
from kosmos2.vocab.special import Vocabulary

VOCABULARY = Vocabulary(num_pieces=8, bins=3)
SIZE, FIRST = VOCABULARY.size, VOCABULARY.first_location


@dataclass(frozen=True)
class Shape:
    """A constraint of which the chooser needs to know one thing only."""

    free_text: bool

    def start(self, prompt_ids: Sequence[int]) -> Hashable:
        raise NotImplementedError

    def advance(self, state: Hashable, id: int) -> Hashable:
        raise NotImplementedError

    def allowed(self, state: Hashable, room: int) -> Allowed:
        raise NotImplementedError


@dataclass
class Case:
    """A row: its request, what was pushed, what may follow, and what the network says."""

    request: Request
    pushed: list[int]
    allowed: Allowed
    logits_V: Tensor = field(repr=False)


def request(ids: Sequence[int], **settings: object) -> Request:
    given = {"image_mask": (False,) * len(ids), "max_new_tokens": 9, **settings}
    return Request(ids=tuple(ids), **given)  # type: ignore[arg-type]


def slow_choice(case: Case) -> tuple[int, float, float]:
    logprobs = case.logits_V.log_softmax(-1).tolist()
    if isinstance(case.allowed, Gate):
        probability = math.exp(logprobs[case.allowed.yes])
        if probability >= 0.5:
            return case.allowed.yes, math.log(probability), _slow_mass(logprobs, case.allowed.yes)
        return case.allowed.no, math.log1p(-probability), _slow_mass(logprobs, case.allowed.no)
    scores = slow_scores(case, case.logits_V.tolist())
    sampling = case.request.sampling
    if isinstance(sampling, Greedy):
        id = scores.index(max(scores))
    else:
        id = slow_draw(scores, sampling, sampling.uniform(len(case.pushed)))
    return id, logprobs[id], _slow_mass(logprobs, id)


def slow_scores(case: Case, scores: list[float]) -> list[float]:
    """Return the scores after the rules, as the engine of issue 1 had them, and the new ones."""
    assert not isinstance(case.allowed, Gate)
    allowed = set(range(SIZE)) if case.allowed is None else set().union(*case.allowed)
    forbidden: set[int] = set()
    constraint, rules = case.request.constraint, case.request.rules
    if case.allowed is None or constraint is None or constraint.free_text:
        history = slow_history(case)
        scores = _slow_penalty(scores, history, rules.repetition_penalty)
        original = rules.no_repeat is NoRepeat.ORIGINAL
        if rules.no_repeat is not NoRepeat.OFF and (case.pushed or not original):
            forbidden = slow_repeats(history, rules.ngram_size)
        if rules.no_repeat is not NoRepeat.TRANSFORMERS:
            forbidden.add(VOCABULARY.pad)
    left = allowed - forbidden or allowed
    return [score if id in left else -math.inf for id, score in enumerate(scores)]


def slow_history(case: Case) -> list[int | None]:
    """Return the tokens of a row, None for those that no rule counts."""
    mask = [*case.request.image_mask, *[False] * len(case.pushed)]
    tokens = [*case.request.ids, *case.pushed]
    if case.request.rules.no_repeat in (NoRepeat.ORIGINAL, NoRepeat.TRANSFORMERS):
        return list(tokens)
    return [
        id if VOCABULARY.is_piece(id) and not in_image else None
        for id, in_image in zip(tokens, mask, strict=True)
    ]


def slow_repeats(history: list[int | None], size: int) -> set[int]:
    if size < 1 or len(history) < size:
        return set()
    tail = history[len(history) - size + 1 :]
    if None in tail:
        return set()
    found = set()
    for at in range(len(history) - size + 1):
        end = history[at + size - 1]
        if history[at : at + size - 1] == tail and end is not None:
            found.add(end)
    return found


def _slow_penalty(scores: list[float], history: list[int | None], penalty: float) -> list[float]:
    return [
        score if id not in history else score * penalty if score < 0 else score / penalty
        for id, score in enumerate(scores)
    ]


def slow_draw(scores: list[float], sampling: Sampling, uniform: float) -> int:
    weights = torch.tensor(scores, dtype=torch.float64) / sampling.temperature
    if 0 < sampling.top_k < SIZE:
        kth = sorted(weights.tolist(), reverse=True)[sampling.top_k - 1]
        weights[weights < kth] = -math.inf
    if sampling.top_p < 1:
        probabilities, mass = weights.softmax(-1).tolist(), 0.0
        for id in sorted(range(SIZE), key=lambda id: (-probabilities[id], id)):
            weights[id] = -math.inf if mass >= sampling.top_p else weights[id]
            mass += probabilities[id]
    probabilities = weights.softmax(-1)
    probabilities[probabilities < sampling.min_p * probabilities.max()] = 0
    rest = uniform * float(probabilities.sum())
    for id, probability in enumerate(probabilities.tolist()):
        rest -= probability
        if rest < 0:
            return id
    raise AssertionError(rest)


def _slow_mass(logprobs: list[float], id: int) -> float:
    cell = VOCABULARY.cell_of(id)
    if cell is None:
        return math.nan
    here = divmod(cell, VOCABULARY.bins)
    near = [
        other
        for other in range(VOCABULARY.num_locations)
        if all(abs(a - b) <= 1 for a, b in zip(divmod(other, VOCABULARY.bins), here, strict=True))
    ]
    return min(1.0, sum(math.exp(logprobs[FIRST + other]) for other in near))
