"""Which rows of a step need which rule: what the host knows before there are scores.

Everything that the choice needs of a row is brought to the device here, so that the choice itself
never waits. The tensors of a plan are all on the device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kosmos2.engine.constraint import Allowed, Gate
from kosmos2.engine.history import Histories, upload, upload_floats
from kosmos2.engine.sampling import Draws, NoRepeat, Rules, Sampling
from kosmos2.vocab.special import Vocabulary

Rows = slice | Tensor
"""Some rows of a batch: all of them, or their indices on the device."""

MAX_MASKS = 256
"""So many sets of allowed tokens are kept as masks."""


@dataclass(slots=True)
class RowState:
    """What the host knows about a row."""

    rules: Rules
    sampling: Sampling | None
    is_free: bool
    """The rules choose among what a constraint allows, too."""
    num_new: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Penalty:
    """Rows whose tokens become less likely when they come again."""

    rows: Rows
    history_RL: Tensor
    penalties_R: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """Rows whose next token must be one of some."""

    rows: Rows
    allowed_RV: Tensor
    """Of the ids of the window; one row where all rows have the same."""
    first_R: Tensor
    """The lowest of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Ban:
    """Rows whose n-grams of one size, and whose padding, are forbidden alike."""

    rows: Rows
    size: int
    pads: bool
    may_take_all: bool
    history_RL: Tensor
    lengths_R: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """Rows with a question instead of scores."""

    rows: Rows
    yes_R: Tensor
    no_R: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The rows that need something, by what they need."""

    window: range
    """All ids that may be chosen lie in it; scores are looked at within it alone."""
    penalty: Penalty | None
    form: Form | None
    bans: tuple[Ban, ...]
    draws: tuple[Rows, Draws] | None
    gates: Gates | None


class Planner:
    """Makes plans of the rows of one device."""

    def __init__(self, vocabulary: Vocabulary, histories: Histories, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._histories = histories
        self._device = device
        self._mask = lru_cache(maxsize=MAX_MASKS)(self._new_mask)

    def window(self, states: Sequence[RowState], allowed: Sequence[Allowed]) -> range:
        """Return a range with all that may be chosen: small where every row writes boxes."""
        # A draw sums all scores of its row, and no rounding may depend on what mates may choose.
        if any(ids is None for ids in allowed) or any(state.sampling for state in states):
            return range(self._vocabulary.size)
        forms = [ids for ids in allowed if isinstance(ids, tuple)] or [(range(1),)]
        assert all(forms), "where a form is complete there is no next token"
        return range(min(ids[0].start for ids in forms), max(ids[-1].stop for ids in forms))

    def plan(
        self,
        slots: Sequence[int],
        states: Sequence[RowState],
        allowed: Sequence[Allowed],
        window: range,
    ) -> Plan:
        """Return what the rows at these slots need for their next token."""
        ruled = [
            row
            for row, (state, ids) in enumerate(zip(states, allowed, strict=True))
            if ids is None or (state.is_free and not isinstance(ids, Gate))
        ]
        return Plan(
            window=window,
            penalty=self._penalty(slots, states, ruled),
            form=self._form(allowed, window),
            bans=self._bans(slots, states, ruled, allowed),
            draws=self._draws(states),
            gates=self._gates(allowed),
        )

    def _penalty(
        self, slots: Sequence[int], states: Sequence[RowState], ruled: Sequence[int]
    ) -> Penalty | None:
        rows = [row for row in ruled if states[row].rules.repetition_penalty != 1]
        if not rows:
            return None
        penalties = [states[row].rules.repetition_penalty for row in rows]
        history_RL, _ = self._histories.read([slots[row] for row in rows])
        return Penalty(
            self._rows(rows, len(slots)), history_RL, upload_floats(penalties, self._device)
        )

    def _form(self, allowed: Sequence[Allowed], window: range) -> Form | None:
        forms = {row: ids for row, ids in enumerate(allowed) if isinstance(ids, tuple)}
        if not forms:
            return None
        alike = len(set(forms.values())) == 1
        masks = [self._mask(ids) for ids in list(forms.values())[: 1 if alike else None]]
        return Form(
            self._rows(list(forms), len(allowed)),
            torch.stack([mask_V[window.start : window.stop] for mask_V in masks]),
            upload([ids[0].start for ids in forms.values()], self._device),
        )

    def _bans(
        self,
        slots: Sequence[int],
        states: Sequence[RowState],
        ruled: Sequence[int],
        allowed: Sequence[Allowed],
    ) -> tuple[Ban, ...]:
        groups: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
        for row in ruled:
            ids, length = allowed[row], self._histories.length(slots[row])
            size = _blocked_size(states[row], length)
            pads = states[row].rules.no_repeat is not NoRepeat.TRANSFORMERS
            num_left = sum(map(len, ids)) if isinstance(ids, tuple) else self._vocabulary.size
            num_taken = pads + (length if size else 0)
            if num_taken:
                groups[size, pads, num_left <= num_taken].append(row)
        return tuple(
            Ban(self._rows(rows, len(slots)), *key, *self._histories.read([slots[r] for r in rows]))
            for key, rows in groups.items()
        )

    def _draws(self, states: Sequence[RowState]) -> tuple[Rows, Draws] | None:
        drawn = {row: state.sampling for row, state in enumerate(states) if state.sampling}
        if not drawn:
            return None
        samplings = list(drawn.values())
        # To keep the whole vocabulary is no limit, which is 0.
        ks = [each.top_k if each.top_k < self._vocabulary.size else 0 for each in samplings]
        numbers = [
            [each.temperature for each in samplings],
            [each.top_p for each in samplings],
            [each.min_p for each in samplings],
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
            any_p=any(each.top_p < 1 for each in samplings),
            any_min_p=any(each.min_p > 0 for each in samplings),
        )

    def _gates(self, allowed: Sequence[Allowed]) -> Gates | None:
        gates = {row: gate for row, gate in enumerate(allowed) if isinstance(gate, Gate)}
        if not gates:
            return None
        answers = [[gate.yes for gate in gates.values()], [gate.no for gate in gates.values()]]
        return Gates(self._rows(list(gates), len(allowed)), *upload(answers, self._device))

    def _rows(self, rows: Sequence[int], num_rows: int) -> Rows:
        return slice(None) if len(rows) == num_rows else upload(rows, self._device)

    def _new_mask(self, ids: tuple[range, ...]) -> Tensor:
        mask_V = torch.zeros(self._vocabulary.size, dtype=torch.bool)
        for each in ids:
            mask_V[each.start : each.stop] = True
        return mask_V.to(self._device)


def _blocked_size(state: RowState, length: int) -> int:
    """Return the size of n-grams that cannot come twice, 0 where none is blocked yet."""
    if state.rules.no_repeat is NoRepeat.ORIGINAL and state.num_new == 0:
        return 0
    size = state.rules.blocked_size
    return size if length >= size else 0
