"""From logits to the next token of every live row: the device does what the host has planned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kosmos2.engine.constraint import Allowed, Gate
from kosmos2.engine.history import Histories, upload
from kosmos2.engine.plan import Ban, Gates, Plan, Planner, Rows, RowState
from kosmos2.engine.request import Request, Step
from kosmos2.engine.sampling import (
    BREAK,
    Draws,
    NoRepeat,
    Rules,
    Sampling,
    decide,
    draw,
    forbid,
    leave_some,
    penalize,
    repeats,
    restrict,
)
from kosmos2.vocab.special import Vocabulary


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One new token for each row."""

    ids_R: Tensor
    logprobs_R: Tensor
    """Of the model's own distribution, before any rule or temperature."""
    masses_R: Tensor
    """For a location: the probability of the (at most) 3 x 3 cells around it; nan elsewhere."""

    def host(self) -> tuple[list[int], list[float], list[float]]:
        """Return ids, logprobs and masses, in one copy from the device."""
        columns = (self.ids_R.double(), self.logprobs_R.double(), self.masses_R.double())
        ids, logprobs, masses = torch.stack(columns).tolist()
        return [int(id) for id in ids], logprobs, masses


@dataclass(frozen=True, slots=True)
class Offer:
    """A token with which a text may go on."""

    step: Step
    score: float
    """Its log-probability after the rules."""


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """The M best tokens of each row, with -inf where there are fewer."""

    ids_RM: Tensor
    scores_RM: Tensor
    logprobs_RM: Tensor
    masses_RM: Tensor

    def host(self) -> list[list[Offer]]:
        """Return the offers of each row, the best first, of equals the lower id.

        One copy from the device.
        """
        columns = (self.ids_RM, self.scores_RM, self.logprobs_RM, self.masses_RM)
        rows_RM4 = torch.stack([each_RM.double() for each_RM in columns], dim=-1).tolist()
        return [
            [
                Offer(step_of(int(id), logprob, mass), score)
                for id, score, logprob, mass in sorted(row, key=lambda each: (-each[1], each[0]))
                if score != -math.inf
            ]
            for row in rows_RM4
        ]


def step_of(id: int, logprob: float, mass: float) -> Step:
    """Return a step that the model chose, from numbers."""
    return Step(id=id, logprob=logprob, mass=None if math.isnan(mass) else mass)


class Chooser:
    """Chooses the next token of rows, each of which is known by its slot."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._states: dict[int, RowState] = {}
        self._histories = Histories(device)
        self._planner = Planner(vocabulary, self._histories, device)
        self._near_CN, self._is_near_CN = _neighbourhoods(vocabulary, device)

    def put(self, slot: int, request: Request) -> None:
        """Take a new row, with its prompt as history; what was at this slot is forgotten."""
        self._states[slot] = RowState(
            rules=request.rules,
            sampling=request.sampling if isinstance(request.sampling, Sampling) else None,
            is_free=request.constraint is None or request.constraint.free_text,
        )
        history = [
            BREAK if in_image and _counts_words_alone(request.rules) else self._counted(slot, id)
            for id, in_image in zip(request.ids, request.image_mask, strict=True)
        ]
        self._histories.put(slot, history)

    def push(self, slot: int, ids: Sequence[int]) -> None:
        """Append new tokens to a row, chosen or not."""
        for id in ids:
            self._histories.push(slot, self._counted(slot, id))
        self._states[slot].num_new += len(ids)

    def move(self, source: int, target: int) -> None:
        """Make the row at the target slot equal to the one at the source."""
        self.reorder([source], [target])

    def reorder(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Make the row at each target slot equal to what was at its source, all at once.

        Slots at which no row was put, as nothing is chosen for it, may be moved too.
        """
        states = [self._states.get(source) for source in sources]
        kept = []
        for source, target, state in zip(sources, targets, states, strict=True):
            if state is None:
                self._states.pop(target, None)
            else:
                self._states[target] = replace(state)
                kept.append((source, target))
        if kept:
            self._histories.reorder(*zip(*kept, strict=True))

    def choose(self, logits_RV: Tensor, slots: Sequence[int], allowed: Sequence[Allowed]) -> Chosen:
        """Return the next tokens of the rows at these slots, one for each row of logits."""
        states = [self._states[slot] for slot in slots]
        window = self._planner.window(states, allowed)
        plan = self._planner.plan(slots, states, allowed, window)
        logits_RV = logits_RV.float()
        ids_R = self._picked(logits_RV, plan)
        # This kernel reduces each row by itself, so that a row has the same bits in any batch.
        logprobs_RV = logits_RV.log_softmax(dim=-1)
        picked_R = logprobs_RV.gather(1, ids_R[:, None])[:, 0]
        if plan.gates is not None:
            answers_R, answer_logprobs_R = _answers(logprobs_RV, plan.gates)
            ids_R = _with_rows(ids_R, plan.gates.rows, answers_R)
            picked_R = _with_rows(picked_R, plan.gates.rows, answer_logprobs_R)
        masses_R = self._masses(logprobs_RV, ids_R[:, None])[:, 0]
        return Chosen(ids_R, picked_R, masses_R)

    def offer(
        self, logits_RV: Tensor, slots: Sequence[int], allowed: Sequence[Allowed], most: int
    ) -> Offers:
        """Return the best tokens of each row by `scores`, at most `most` of them."""
        scores_RV = self.scores(logits_RV, slots, allowed)
        scores_RM, ids_RM = scores_RV.topk(min(most, self._vocabulary.size), dim=-1)
        logprobs_RV = logits_RV.float().log_softmax(dim=-1)
        picked_RM = logprobs_RV.gather(1, ids_RM)
        gates = [row for row, ids in enumerate(allowed) if isinstance(ids, Gate)]
        if gates:
            gates_G = upload(gates, scores_RM.device)
            picked_RM = picked_RM.index_copy(0, gates_G, scores_RM[gates_G])
        return Offers(ids_RM, scores_RM, picked_RM, self._masses(logprobs_RV, ids_RM))

    def scores(self, logits_RV: Tensor, slots: Sequence[int], allowed: Sequence[Allowed]) -> Tensor:
        """Return scores_RV: log-probabilities after the rules, -inf for what cannot be chosen.

        For a beam search, where rules act on log-probabilities, as in both references. A gate
        leaves its answer alone; how a row is sampled plays no part.
        """
        states = [self._states[slot] for slot in slots]
        plan = self._planner.plan(slots, states, allowed, range(self._vocabulary.size))
        logprobs_RV = logits_RV.float().log_softmax(dim=-1)
        scores_RV = self._ruled(logprobs_RV, plan)
        if plan.gates is None:
            return scores_RV
        answers_R, answer_logprobs_R = _answers(logprobs_RV, plan.gates)
        none_RV = torch.full_like(scores_RV[plan.gates.rows], -torch.inf)
        gated_RV = none_RV.scatter(1, answers_R[:, None], answer_logprobs_R[:, None])
        return _with_rows(scores_RV, plan.gates.rows, gated_RV)

    def _picked(self, logits_RV: Tensor, plan: Plan) -> Tensor:
        """Return ids_R of the rows that have no gate, and anything for the others."""
        first = plan.window.start
        scores_RV = self._ruled(logits_RV[:, first : plan.window.stop], plan)
        ids_R = _drawn(scores_RV, plan.draws)
        if plan.form is not None:
            # Where the network scores none of the allowed tokens, the first of them it is.
            rows, first_R = plan.form.rows, plan.form.first_R - first
            allowed_RV = plan.form.allowed_RV.expand(len(first_R), -1)
            is_allowed_R = allowed_RV.gather(1, ids_R[rows][:, None])[:, 0]
            ids_R = _with_rows(ids_R, rows, ids_R[rows].where(is_allowed_R, first_R))
        return ids_R + first

    def _ruled(self, scores_RV: Tensor, plan: Plan) -> Tensor:
        """Return scores_RV of the window, where only what the plan permits can be chosen."""
        first = plan.window.start
        if plan.penalty is not None:
            rows, ids_RL = plan.penalty.rows, plan.penalty.history_RL - first
            less_RV = penalize(scores_RV[rows], ids_RL, plan.penalty.penalties_R)
            scores_RV = _with_rows(scores_RV, rows, less_RV)
        if plan.form is not None:
            rows = plan.form.rows
            formed_RV = restrict(scores_RV[rows], plan.form.allowed_RV)
            scores_RV = _with_rows(scores_RV, rows, formed_RV)
        for ban in plan.bans:
            banned_RV = self._banned(scores_RV[ban.rows], ban, first)
            scores_RV = _with_rows(scores_RV, ban.rows, banned_RV)
        return scores_RV

    def _banned(self, before_RV: Tensor, ban: Ban, first: int) -> Tensor:
        ids, where = [], []
        if ban.size:
            ids_RM, again_RM = repeats(ban.history_RL, ban.lengths_R, ban.size)
            ids.append(ids_RM)
            where.append(again_RM)
        if ban.pads:
            ids.append(ban.lengths_R.new_full((len(before_RV), 1), self._vocabulary.pad))
            where.append(torch.ones_like(ids[-1], dtype=torch.bool))
        after_RV = forbid(before_RV, torch.cat(ids, dim=1) - first, torch.cat(where, dim=1))
        return leave_some(after_RV, before_RV) if ban.may_take_all else after_RV

    def _masses(self, logprobs_RV: Tensor, ids_RM: Tensor) -> Tensor:
        """Return masses_RM of M tokens of each row."""
        cells_RM = ids_RM - self._vocabulary.first_location
        is_location_RM, cells_RM = cells_RM >= 0, cells_RM.clamp(min=0)
        near_RMN = self._near_CN[cells_RM]
        probabilities_RMN = logprobs_RV.gather(1, near_RMN.flatten(1)).exp().view(near_RMN.shape)
        masses_RM = (probabilities_RMN * self._is_near_CN[cells_RM]).sum(-1, dtype=torch.float64)
        return torch.where(is_location_RM, masses_RM.clamp(max=1.0), torch.nan)

    def _counted(self, slot: int, id: int) -> int:
        """Return a token of the text as it stands in the history of a row."""
        words_alone = _counts_words_alone(self._states[slot].rules)
        return BREAK if words_alone and not self._vocabulary.is_piece(id) else id


def _counts_words_alone(rules: Rules) -> bool:
    return rules.no_repeat in (NoRepeat.WORDS, NoRepeat.OFF)


def _drawn(scores_RV: Tensor, draws: tuple[Rows, Draws] | None) -> Tensor:
    """Return the token of each row, drawn or the one with the highest score."""
    if draws is None:
        return scores_RV.argmax(dim=-1)
    rows, how = draws
    drawn_R = draw(scores_RV[rows], how)
    return drawn_R if isinstance(rows, slice) else _with_rows(scores_RV.argmax(-1), rows, drawn_R)


def _answers(logprobs_RV: Tensor, gates: Gates) -> tuple[Tensor, Tensor]:
    return decide(logprobs_RV[gates.rows], gates.yes_R, gates.no_R)


def _with_rows(all_R: Tensor, rows: Rows, some_R: Tensor) -> Tensor:
    """Return a tensor in which some rows are replaced."""
    return some_R if isinstance(rows, slice) else all_R.index_copy(0, rows, some_R)


def _neighbourhoods(vocabulary: Vocabulary, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the nine ids around each cell, and which of them exist."""
    cells_C = torch.arange(vocabulary.num_locations)
    steps_N = torch.arange(-1, 2)
    rows_CN = (cells_C // vocabulary.bins)[:, None] + steps_N.repeat_interleave(3)
    columns_CN = (cells_C % vocabulary.bins)[:, None] + steps_N.repeat(3)
    inside_CN = (rows_CN >= 0) & (rows_CN < vocabulary.bins)
    inside_CN &= (columns_CN >= 0) & (columns_CN < vocabulary.bins)
    near_CN = vocabulary.first_location + rows_CN * vocabulary.bins + columns_CN
    near_CN = near_CN.where(inside_CN, vocabulary.first_location)
    return near_CN.to(device), inside_CN.to(device)
