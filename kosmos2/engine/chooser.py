"""From logits to the next token of every live row.

A choice has two halves. The host plans which rows have which rules, with what it knows without the
device: forms, seeds, lengths. Then the device computes all rows at once and nobody waits for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from kosmos2.engine.constraint import Allowed, Gate
from kosmos2.engine.history import Histories, upload, upload_floats
from kosmos2.engine.request import Request
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

Rows = slice | Tensor
"""Some rows of a batch: all of them, or their indices on the device."""

MAX_MASKS = 256
"""So many sets of allowed tokens are kept as masks."""


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


@dataclass(slots=True)
class _Slot:
    """What the host knows about a row."""

    rules: Rules
    sampling: Sampling | None
    is_free: bool
    """The rules choose among what a constraint allows, too."""
    num_new: int = 0


@dataclass(frozen=True, slots=True)
class _Ban:
    """Rows whose n-grams of one size, and whose padding, are forbidden alike."""

    rows: Rows
    size: int
    pads: bool
    may_take_all: bool
    history_RL: Tensor
    lengths_R: Tensor


@dataclass(frozen=True, slots=True)
class _Plan:
    """The rows that need something, by what they need. All tensors are on the device."""

    penalties: tuple[Rows, Tensor, Tensor] | None
    """Rows, history_RL and penalties_R."""
    masks: tuple[Rows, Tensor] | None
    """Rows and allowed_RV."""
    bans: tuple[_Ban, ...]
    draws: tuple[Rows, Draws] | None
    gates: tuple[Rows, Tensor, Tensor] | None
    """Rows, yes_R and no_R."""


class Chooser:
    """Chooses the next token of rows, each of which is known by its slot."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._device = device
        self._slots: dict[int, _Slot] = {}
        self._histories = Histories(device)
        self._mask = lru_cache(maxsize=MAX_MASKS)(self._new_mask)
        self._near_CN, self._is_near_CN = _neighbourhoods(vocabulary, device)

    def put(self, slot: int, request: Request) -> None:
        """Take a new row, with its prompt as history; what was at this slot is forgotten."""
        self._slots[slot] = _Slot(
            rules=request.rules,
            sampling=request.sampling if isinstance(request.sampling, Sampling) else None,
            is_free=request.constraint is None or request.constraint.free_text,
        )
        remembered = [
            BREAK if in_image and _knows_words_alone(request.rules) else self._remembered(slot, id)
            for id, in_image in zip(request.ids, request.image_mask, strict=True)
        ]
        self._histories.put(slot, remembered)

    def push(self, slot: int, ids: Sequence[int]) -> None:
        """Append new tokens to a row, chosen or not."""
        for id in ids:
            self._histories.push(slot, self._remembered(slot, id))
        self._slots[slot].num_new += len(ids)

    def move(self, source: int, target: int) -> None:
        """Make the row at the target slot equal to the one at the source."""
        self.reorder([source], [target])

    def reorder(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Make the row at each target slot equal to what was at its source, all at once."""
        copies = [replace(self._slots[source]) for source in sources]
        self._slots.update(zip(targets, copies, strict=True))
        self._histories.reorder(sources, targets)

    def choose(self, logits_RV: Tensor, slots: Sequence[int], allowed: Sequence[Allowed]) -> Chosen:
        """Return the next tokens of the rows at these slots, one for each row of logits."""
        plan = self._plan(slots, allowed)
        logits_RV = logits_RV.float()
        # Rows are reduced one by one in this kernel, so that a row has the same bits in any batch.
        logprobs_RV = logits_RV.log_softmax(dim=-1)
        scores_RV = self._ruled(logits_RV, plan)

        ids_R = scores_RV.argmax(dim=-1)
        if plan.draws is not None:
            rows, draws = plan.draws
            ids_R[rows] = draw(scores_RV[rows], draws)
        picked_R = logprobs_RV.gather(1, ids_R[:, None])[:, 0]
        if plan.gates is not None:
            rows, yes_R, no_R = plan.gates
            ids_R[rows], picked_R[rows] = decide(logprobs_RV[rows], yes_R, no_R)
        return Chosen(ids_R, picked_R, self._masses(logprobs_RV, ids_R))

    def scores(self, logits_RV: Tensor, slots: Sequence[int], allowed: Sequence[Allowed]) -> Tensor:
        """Return scores_RV: log-probabilities after the rules, -inf for what cannot be chosen.

        For a beam search, where rules act on log-probabilities, as in both references. A gate
        leaves its answer alone; how a row is sampled plays no part.
        """
        plan = self._plan(slots, allowed)
        logprobs_RV = logits_RV.float().log_softmax(dim=-1)
        scores_RV = self._ruled(logprobs_RV, plan)
        if plan.gates is not None:
            rows, yes_R, no_R = plan.gates
            ids_R, answers_R = decide(logprobs_RV[rows], yes_R, no_R)
            only_RV = torch.full_like(logprobs_RV[rows], -torch.inf)
            only_RV = only_RV.scatter(1, ids_R[:, None], answers_R[:, None])
            scores_RV = _with_rows(scores_RV, rows, only_RV)
        return scores_RV

    # --- on the device

    def _ruled(self, scores_RV: Tensor, plan: _Plan) -> Tensor:
        """Return scores_RV in which only what constraints and rules permit can be chosen."""
        if plan.penalties is not None:
            rows, history_RL, penalties_R = plan.penalties
            less_RV = penalize(scores_RV[rows], history_RL, penalties_R)
            scores_RV = _with_rows(scores_RV, rows, less_RV)
        if plan.masks is not None:
            rows, allowed_RV = plan.masks
            scores_RV = _with_rows(scores_RV, rows, restrict(scores_RV[rows], allowed_RV))
        for ban in plan.bans:
            scores_RV = _with_rows(scores_RV, ban.rows, self._banned(scores_RV[ban.rows], ban))
        return scores_RV

    def _banned(self, before_RV: Tensor, ban: _Ban) -> Tensor:
        ids, where = [], []
        if ban.size:
            ids_RM, again_RM = repeats(ban.history_RL, ban.lengths_R, ban.size)
            ids.append(ids_RM)
            where.append(again_RM)
        if ban.pads:
            ids.append(ban.lengths_R.new_full((len(before_RV), 1), self._vocabulary.pad))
            where.append(torch.ones_like(ids[-1], dtype=torch.bool))
        after_RV = forbid(before_RV, torch.cat(ids, dim=1), torch.cat(where, dim=1))
        return leave_some(after_RV, before_RV) if ban.may_take_all else after_RV

    def _masses(self, logprobs_RV: Tensor, ids_R: Tensor) -> Tensor:
        cells_R = ids_R - self._vocabulary.first_location
        is_location_R, cells_R = cells_R >= 0, cells_R.clamp(min=0)
        near_RN = logprobs_RV.gather(1, self._near_CN[cells_R]).exp()
        masses_R = (near_RN * self._is_near_CN[cells_R]).sum(dim=-1, dtype=torch.float64)
        return torch.where(is_location_R, masses_R.clamp(max=1.0), torch.nan)

    # --- on the host

    def _plan(self, slots: Sequence[int], allowed: Sequence[Allowed]) -> _Plan:
        assert len(slots) == len(allowed)
        states = [self._slots[slot] for slot in slots]
        ruled = [
            row
            for row, (state, ids) in enumerate(zip(states, allowed, strict=True))
            if ids is None or (state.is_free and not isinstance(ids, Gate))
        ]
        self._histories.write()
        return _Plan(
            penalties=self._plan_penalties(slots, ruled),
            masks=self._plan_masks(allowed),
            bans=self._plan_bans(slots, ruled, allowed),
            draws=self._plan_draws(states),
            gates=self._plan_gates(allowed),
        )

    def _plan_penalties(
        self, slots: Sequence[int], ruled: Sequence[int]
    ) -> tuple[Rows, Tensor, Tensor] | None:
        penalties = {row: self._slots[slots[row]].rules.repetition_penalty for row in ruled}
        rows = [row for row, penalty in penalties.items() if penalty != 1]
        if not rows:
            return None
        history_RL, _ = self._histories.read([slots[row] for row in rows])
        penalties_R = upload_floats([penalties[row] for row in rows], self._device)
        return self._rows(rows, len(slots)), history_RL, penalties_R

    def _plan_masks(self, allowed: Sequence[Allowed]) -> tuple[Rows, Tensor] | None:
        masks = {row: self._mask(ids) for row, ids in enumerate(allowed) if isinstance(ids, tuple)}
        if not masks:
            return None
        return self._rows(list(masks), len(allowed)), torch.stack(list(masks.values()))

    def _plan_bans(
        self, slots: Sequence[int], ruled: Sequence[int], allowed: Sequence[Allowed]
    ) -> tuple[_Ban, ...]:
        groups: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
        for row in ruled:
            size, ids = self._blocked_size(slots[row]), allowed[row]
            pads = self._slots[slots[row]].rules.no_repeat is not NoRepeat.TRANSFORMERS
            num_left = sum(map(len, ids)) if isinstance(ids, tuple) else self._vocabulary.size
            num_taken = pads + (self._histories.length(slots[row]) if size else 0)
            if num_taken:
                groups[size, pads, num_left <= num_taken].append(row)
        return tuple(
            _Ban(
                self._rows(rows, len(slots)), *key, *self._histories.read([slots[r] for r in rows])
            )
            for key, rows in groups.items()
        )

    def _blocked_size(self, slot: int) -> int:
        """Return the size of n-grams that cannot come twice, 0 where none is blocked now."""
        state = self._slots[slot]
        size = state.rules.blocked_size
        if state.num_new == 0 and state.rules.no_repeat is NoRepeat.ORIGINAL:
            return 0
        return size if self._histories.length(slot) >= size else 0

    def _plan_draws(self, states: Sequence[_Slot]) -> tuple[Rows, Draws] | None:
        drawn = {row: each.sampling for row, each in enumerate(states) if each.sampling}
        if not drawn:
            return None
        # To keep the whole vocabulary is no limit, which is 0.
        ks = [each.top_k if each.top_k < self._vocabulary.size else 0 for each in drawn.values()]
        numbers = [
            [each.temperature for each in drawn.values()],
            [each.top_p for each in drawn.values()],
            [each.min_p for each in drawn.values()],
            [each.uniform(states[row].num_new) for row, each in drawn.items()],
        ]
        temperature_R, p_R, min_p_R, uniform_R = upload_floats(numbers, self._device)
        return self._rows(list(drawn), len(states)), Draws(
            temperature_R=temperature_R,
            k_R=upload(ks, self._device),
            p_R=p_R,
            min_p_R=min_p_R,
            uniform_R=uniform_R,
            most_k=max(ks),
            any_p=any(each.top_p < 1 for each in drawn.values()),
            any_min_p=any(each.min_p > 0 for each in drawn.values()),
        )

    def _plan_gates(self, allowed: Sequence[Allowed]) -> tuple[Rows, Tensor, Tensor] | None:
        gates = {row: gate for row, gate in enumerate(allowed) if isinstance(gate, Gate)}
        if not gates:
            return None
        answers = [[gate.yes for gate in gates.values()], [gate.no for gate in gates.values()]]
        yes_R, no_R = upload(answers, self._device)
        return self._rows(list(gates), len(allowed)), yes_R, no_R

    def _rows(self, rows: Sequence[int], num_rows: int) -> Rows:
        return slice(None) if len(rows) == num_rows else upload(rows, self._device)

    def _remembered(self, slot: int, id: int) -> int:
        """Return a token of the text as it stands in the history of a row."""
        words_alone = _knows_words_alone(self._slots[slot].rules)
        return BREAK if words_alone and not self._vocabulary.is_piece(id) else id

    def _new_mask(self, ids: tuple[range, ...]) -> Tensor:
        assert ids, "where a form is complete there is no next token"
        mask_V = torch.zeros(self._vocabulary.size, dtype=torch.bool)
        for each in ids:
            mask_V[each.start : each.stop : each.step] = True
        return mask_V.to(self._device)


def _knows_words_alone(rules: Rules) -> bool:
    return rules.no_repeat in (NoRepeat.WORDS, NoRepeat.OFF)


def _with_rows(scores_RV: Tensor, rows: Rows, new_RV: Tensor) -> Tensor:
    return new_RV if isinstance(rows, slice) else scores_RV.index_copy(0, rows, new_RV)


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
