"""The tokens of every row on the device, where the rules look for repetitions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kosmos2.engine.sampling import BREAK

SLOT_STEP, TOKEN_STEP = 8, 128
"""The memory grows to twice what is needed, in multiples of these."""


class Histories:
    """One growing row of ids at each slot. Copies are made on the device, whatever the lengths."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory_SL = torch.full((0, 0), BREAK, device=device)
        self._lengths: list[int] = []
        self._unwritten: list[tuple[int, int, int]] = []

    def put(self, slot: int, ids: Sequence[int]) -> None:
        """Begin a row anew."""
        self.write()
        self._grow(slot + 1, len(ids))
        self._lengths[slot] = len(ids)
        self._memory_SL[slot] = BREAK
        self._memory_SL[slot, : len(ids)] = upload(ids, self._device)

    def push(self, slot: int, id: int) -> None:
        """Append to a row; the device hears of it at the next `write`."""
        self._unwritten.append((slot, self._lengths[slot], id))
        self._lengths[slot] += 1

    def length(self, slot: int) -> int:
        """Return the number of tokens of a row."""
        return self._lengths[slot]

    def reorder(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Make the row at each target equal to what was at its source, all at once."""
        self.write()
        self._grow(max(targets) + 1, 0)
        for target, length in zip(targets, [self._lengths[at] for at in sources], strict=True):
            self._lengths[target] = length
        sources_N, targets_N = upload([sources, targets], self._device)
        self._memory_SL[targets_N] = self._memory_SL[sources_N]

    def write(self) -> None:
        """Bring pushed ids to the device."""
        if not self._unwritten:
            return
        self._grow(0, 1 + max(at for _, at, _ in self._unwritten))
        slots_N, at_N, ids_N = upload(list(zip(*self._unwritten, strict=True)), self._device)
        self._memory_SL[slots_N, at_N] = ids_N
        self._unwritten.clear()

    def read(self, slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return history_RL, as long as the longest row and BREAK behind the others, and lengths_R.

        Where the slots lie together it is a view.
        """
        self.write()
        lengths = [self._lengths[slot] for slot in slots]
        together = list(slots) == list(range(slots[0], slots[0] + len(slots)))
        rows = slice(slots[0], slots[-1] + 1) if together else upload(slots, self._device)
        return self._memory_SL[rows, : max(lengths)], upload(lengths, self._device)

    def _grow(self, num_slots: int, length: int) -> None:
        """Have room for so many rows and so many tokens of each."""
        held_slots, held_length = self._memory_SL.shape
        if num_slots <= held_slots and length <= held_length:
            return
        memory_SL = self._memory_SL.new_full(
            (_more(held_slots, num_slots, SLOT_STEP), _more(held_length, length, TOKEN_STEP)),
            BREAK,
        )
        memory_SL[:held_slots, :held_length] = self._memory_SL
        self._memory_SL = memory_SL
        self._lengths += [0] * (len(memory_SL) - held_slots)


def upload(values: Sequence[int] | Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return integers on the device; the host does not wait until they are there."""
    return _sent(torch.tensor(values, dtype=torch.int64), device)


def upload_floats(
    values: Sequence[float] | Sequence[Sequence[float]], device: torch.device
) -> Tensor:
    """Return float64 numbers on the device; the host does not wait until they are there."""
    return _sent(torch.tensor(values, dtype=torch.float64), device)


def _sent(host: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def _more(held: int, needed: int, step: int) -> int:
    return held if needed <= held else -(-2 * needed // step) * step
