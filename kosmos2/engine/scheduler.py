"""The one loop that generates: rows join and leave the running batch at every step.

A step reads what each live row has not read yet (a prompt, the last token, tokens that were
forced), chooses one token for each, and lets rows that are done go. Live rows lie in the first
rows of the cache without gaps: the last one moves into a hole. Offline batches, streams and
servers all drive this loop, and a row's answer does not depend on the others.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.engine.chooser import Chooser
from kosmos2.engine.prefixes import BLOCK, PrefixStore, blocks_of, contents
from kosmos2.engine.request import Step, StopReason
from kosmos2.engine.rows import Row, ScoreRow
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.errors import ConfigError, RequestError
from kosmos2.model.decoder import PADDING_ID
from kosmos2.vocab.special import Vocabulary

AnyRow = Row | ScoreRow

SLOT_STEP = 64
"""The cache grows by multiples of this many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is answered at once. None of it changes an answer."""

    max_rows: int = 8
    max_cache_bytes: int = 2 << 30
    """Of keys and values of live rows; a request waits until there is room."""
    max_prefix_bytes: int = 256 << 20
    """Of prompts that are kept for later requests which begin alike; 0 keeps none."""
    max_prefill_tokens: int = 2048
    """Prompt tokens that are read in one pass; a longer prompt is read alone."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_cache_bytes", "max_prefill_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


class Scheduler:
    """Live rows, waiting rows, and the memory they share."""

    def __init__(self, runner: Runner, vocabulary: Vocabulary, limits: Limits) -> None:
        self.limits = limits
        self.prefixes = PrefixStore(limits.max_prefix_bytes)
        self._runner = runner
        self._vocabulary = vocabulary
        self._chooser = Chooser(vocabulary, runner.device)
        self._waiting: deque[AnyRow] = deque()
        self._rows: list[AnyRow] = []
        self._cache = runner.new_cache(0, 0)

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._waiting)

    @property
    def num_live(self) -> int:
        return len(self._rows)

    def submit(self, row: AnyRow) -> None:
        """Let a row wait for its turn."""
        needed = self._bytes(1, row.longest)
        if needed > self.limits.max_cache_bytes:
            raise RequestError(
                f"a text of {row.longest} tokens needs {needed:,} bytes of cache, "
                f"{self.limits.max_cache_bytes:,} are given. Ask for fewer new tokens, or raise "
                "max_cache_bytes."
            )
        if isinstance(row, Row):
            row.jump()
        if row.stop is None:
            self._waiting.append(row)

    def cancel(self, row: AnyRow) -> None:
        """Forget a row, live or waiting; one that has stopped stays as it is."""
        if row.stop is not None:
            return
        row.stop = StopReason.CANCELLED
        if row in self._waiting:
            self._waiting.remove(row)
        else:
            self._retire()

    @torch.inference_mode()
    def step(self) -> None:
        """Bring every live row one chosen token further; admit whom there is room for."""
        joining = self._admit()
        try:
            hidden = [self._extend(0, self._rows)] if self._rows else []
            hidden += self._join(joining)
            if hidden:
                self._choose(torch.cat(hidden))
        except BaseException:
            # What is half done cannot go on; rows that wait can.
            for row in (*self._rows, *joining):
                row.stop = row.stop or StopReason.CANCELLED
            self._rows.clear()
            raise
        self._retire()

    # --- admission

    def _admit(self) -> list[AnyRow]:
        """Take from the waiting rows those there is room for, in their order."""
        admitted: list[AnyRow] = []
        longest = max((row.longest for row in self._rows), default=0)
        while self._waiting:
            longest = max(longest, self._waiting[0].longest)
            num_rows = len(self._rows) + len(admitted) + 1
            if num_rows > self.limits.max_rows:
                break
            if num_rows > 1 and self._bytes(num_rows, longest) > self.limits.max_cache_bytes:
                break
            admitted.append(self._waiting.popleft())
        if admitted:
            live = [*self._rows, *admitted]
            self._make_room(len(live), max(row.longest for row in live))
        return admitted

    def _make_room(self, num_rows: int, longest: int) -> None:
        """Have a cache for so many rows; memory that is not touched is not taken on a CPU."""
        capacity = _rounded(longest)
        if self._rows:
            capacity = max(capacity, self._cache.capacity)
        if num_rows <= self._cache.num_rows and capacity <= self._cache.capacity:
            return
        affordable = self.limits.max_cache_bytes // self._bytes(1, capacity)
        num_rows = max(num_rows, min(affordable, self.limits.max_rows))
        if self._rows:
            self._cache.grow(num_rows, capacity)
        else:
            self._cache = self._runner.new_cache(num_rows, capacity)

    def _bytes(self, num_rows: int, num_tokens: int) -> int:
        text = self._runner.config.text
        per_token = text.num_layers * 2 * text.width * self._runner.cache_dtype.itemsize
        return num_rows * _rounded(num_tokens) * per_token

    # --- reading

    def _join(self, joining: list[AnyRow]) -> list[Tensor]:
        """Read the prompts of new rows; return hidden_MD of what they want to know.

        A row whose prompt begins like that of another new one is read after it, and finds the
        common part in the store.
        """
        hidden = []
        while joining:
            wave, later, begun = [], [], set()
            for row in joining:
                keys = blocks_of(contents(row.request))
                found = len(self.prefixes.find(keys))
                missing = {tuple(keys[: end + 1]) for end in range(found, len(keys))}
                if self.prefixes.max_bytes and missing & begun:
                    later.append(row)
                else:
                    wave.append(row)
                    begun |= missing
            for chunk in _by_tokens(wave, self.limits.max_prefill_tokens):
                hidden.append(self._read_prompts(chunk))
            joining = later
        return hidden

    def _read_prompts(self, rows: Sequence[AnyRow]) -> Tensor:
        first = len(self._rows)
        for slot, row in enumerate(rows, start=first):
            self._cache.lengths[slot] = 0
            for block in self.prefixes.find(blocks_of(contents(row.request))):
                self._cache.write(slot, block.memory)
            row.pending = row.pending[self._cache.lengths[slot] :]
            if isinstance(row, Row):
                self._chooser.put(slot, row.request)
                self._chooser.push(slot, [step.id for step in row.steps])
        self._rows += rows
        hidden_MD = self._extend(first, rows)
        for slot, row in enumerate(rows, start=first):
            self._keep_prefix(slot, row)
        return hidden_MD

    def _keep_prefix(self, slot: int, row: AnyRow) -> None:
        keys = blocks_of(contents(row.request))
        blocks = self.prefixes.find(keys)
        for start in range(len(blocks) * BLOCK, len(keys) * BLOCK, BLOCK):
            memory = self._cache.read(slot, start, start + BLOCK)
            parent = blocks[-1] if blocks else None
            block = self.prefixes.add(parent, keys[start // BLOCK], memory, row.request.latents)
            if block is None:
                return
            blocks.append(block)

    def _extend(self, first: int, rows: Sequence[AnyRow]) -> Tensor:
        """Read what is pending of some rows; return hidden_MD behind the tokens they ask about."""
        ids: list[int] = []
        positions: list[int] = []
        mask: list[bool] = []
        latents: list[Tensor] = []
        wanted: list[int] = []
        for slot, row in enumerate(rows, start=first):
            start, stop = self._cache.lengths[slot], self._cache.lengths[slot] + len(row.pending)
            ids += row.pending
            positions += range(start + FIRST_POSITION, stop + FIRST_POSITION)
            in_image = row.request.image_mask[start:stop]
            mask += (*in_image, *[False] * (len(row.pending) - len(in_image)))
            if any(in_image):
                read = sum(row.request.image_mask[:start])
                vectors_MD = torch.cat(row.request.latents).to(self._runner.device)
                latents.append(vectors_MD[read : read + sum(in_image)])
            wanted += range(len(ids) - row.num_asked, len(ids))
        x_ND = self._runner.enter(
            ids, self._placed(ids, positions), mask, torch.cat(latents) if latents else None
        )
        counts = [len(row.pending) for row in rows]
        return self._runner.extend(self._cache, first, x_ND, counts, wanted)

    def _placed(self, ids: Sequence[int], positions: Sequence[int]) -> Sequence[int]:
        # Only under NoRepeat.TRANSFORMERS can padding be chosen; there it has padding's position.
        if self._vocabulary.pad not in ids:
            return positions
        return [
            PADDING_ID if id == self._vocabulary.pad else position
            for id, position in zip(ids, positions, strict=True)
        ]

    # --- choosing

    def _choose(self, hidden_MD: Tensor) -> None:
        logits_MV = self._runner.logits(hidden_MD)
        asked = [row.num_asked for row in self._rows]
        ends = list(itertools.accumulate(asked))
        for row, end in zip(self._rows, ends, strict=True):
            if isinstance(row, ScoreRow):
                row.take(logits_MV[end - row.num_asked : end])
        writing = [(slot, row) for slot, row in enumerate(self._rows) if isinstance(row, Row)]
        if not writing:
            return
        if len(writing) < len(self._rows):
            logits_MV = logits_MV[[ends[slot] - 1 for slot, _ in writing]]
        slots, allowed = [slot for slot, _ in writing], [row.allowed for _, row in writing]
        chosen = self._chooser.choose(logits_MV, slots, allowed).host()
        for (slot, row), id, logprob, mass in zip(writing, *chosen, strict=True):
            row.take(Step(id=id, logprob=logprob, mass=None if math.isnan(mass) else mass))
            if row.stop is None:
                self._chooser.push(slot, [id, *row.jump()])

    def _retire(self) -> None:
        """Let rows that have stopped go; the last row moves into each hole."""
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].stop is None:
                continue
            last = len(self._rows) - 1
            if slot != last:
                self._cache.copy_row(last, slot)
                self._chooser.move(last, slot)
                self._rows[slot] = self._rows[last]
            self._rows.pop()


def _rounded(num_tokens: int) -> int:
    return -(-num_tokens // SLOT_STEP) * SLOT_STEP


def _by_tokens(rows: Sequence[AnyRow], limit: int) -> Iterator[list[AnyRow]]:
    """Yield runs of rows with at most `limit` pending tokens, or one row."""
    run: list[AnyRow] = []
    for row in rows:
        if run and sum(len(each.pending) for each in (*run, row)) > limit:
            yield run
            run = []
        run.append(row)
    if run:
        yield run
