"""The one loop that generates: rows join and leave the running batch at every step.

A step reads what each live row has not read yet (a prompt, the last token, tokens that were
forced), chooses one token for each, and lets rows that are done go. Live rows lie in the first
rows of the cache without gaps: the last one moves into a hole. Offline batches, streams and
servers all drive this loop, and a row's answer does not depend on the others.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2.engine.beam import Heir, Hypothesis, OriginalHypothesis
from kosmos2.engine.chooser import Chooser, step_of
from kosmos2.engine.prefixes import BLOCK, Content, PrefixStore, blocks_of, contents
from kosmos2.engine.request import StopReason
from kosmos2.engine.rows import Owner, Row, ScoreRow
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
    """Of keys and values of live rows; a request waits until there is room.

    While rows move to memory of another size, there is both the old and the new.
    """
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
        self._waiting: deque[Owner] = deque()
        self.failure: str | None = None
        """What went wrong in the last step that failed."""
        self._rows: list[AnyRow] = []
        self._stepping = False
        self._cache = runner.new_cache(0, 0)

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._waiting)

    @property
    def num_live(self) -> int:
        return len(self._rows)

    def submit(self, owner: Owner) -> None:
        """Let a row, or the rows of a search, wait for their turn."""
        if owner.num_rows > self.limits.max_rows:
            raise RequestError(
                f"a search of {owner.num_rows} beams needs as many rows, {self.limits.max_rows} "
                "are given. Take fewer beams, or raise max_rows."
            )
        needed = self._bytes(owner.num_rows, owner.longest)
        if needed > self.limits.max_cache_bytes:
            raise RequestError(
                f"{owner.num_rows} texts of {owner.longest} tokens need {needed:,} bytes of cache, "
                f"{self.limits.max_cache_bytes:,} are given. Ask for fewer new tokens or beams, or "
                "raise max_cache_bytes."
            )
        owner.jump()
        if owner.stop is None:
            self._waiting.append(owner)

    @torch.inference_mode()
    def cancel(self, owner: Owner) -> None:
        """Forget an owner of rows, live or waiting; one that has stopped stays as it is."""
        if owner.stop is not None:
            return
        owner.stop = StopReason.CANCELLED
        if self._stepping:
            return  # the garbage collector closes a stream whenever it likes: `step` lets it go
        if owner in self._waiting:
            self._waiting.remove(owner)
        else:
            self._retire()

    @torch.inference_mode()
    def step(self) -> None:
        """Bring every live row one chosen token further; admit whom there is room for."""
        joining: list[AnyRow] = []
        self._stepping = True
        try:
            joining += self._admit()
            hidden = [self._extend(0, self._rows)] if self._rows else []
            hidden += self._join(joining)
            if hidden:
                self._choose(torch.cat(hidden))
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
            # What is half done cannot go on; rows that wait can.
            for row in (*self._rows, *joining):
                row.owner.stop = row.owner.stop or StopReason.CANCELLED
            self._rows.clear()
            self._cache.lengths = [0] * len(self._cache.lengths)
            raise
        finally:
            self._stepping = False
        self._retire()

    # --- admission

    def _admit(self) -> list[AnyRow]:
        """Take from the waiting rows those there is room for, in their order."""
        admitted: list[Owner] = []
        live = dict.fromkeys(row.owner for row in self._rows)
        num_rows = sum(owner.num_rows for owner in live)
        longest = max((owner.longest for owner in live), default=0)
        for owner in self._waiting:
            after = num_rows + owner.num_rows
            longest_after = max(longest, owner.longest)
            if after > self.limits.max_rows:
                break
            if num_rows and self._bytes(after, longest_after) > self.limits.max_cache_bytes:
                break
            num_rows, longest = after, longest_after
            admitted.append(owner)
        if admitted:
            self._make_room(num_rows, longest)
        for _ in admitted:
            self._waiting.popleft()
        return [row for owner in admitted for row in owner.rows]

    def _make_room(self, num_rows: int, longest: int) -> None:
        """Have a cache for so many rows; memory that is not touched is not taken on a CPU."""
        if num_rows <= self._cache.num_rows and longest <= self._cache.capacity:
            return
        capacity = max(_rounded(longest), self._cache.capacity if self._rows else 0)
        if self._bytes(num_rows, capacity) > self.limits.max_cache_bytes:
            capacity = _rounded(longest)  # the rows that needed more have left
        affordable = self.limits.max_cache_bytes // self._bytes(1, capacity)
        num_rows = max(num_rows, min(affordable, self.limits.max_rows))
        if self._rows:
            self._cache.grow(num_rows, capacity)
        else:
            self._cache = self._runner.new_cache(0, 0)  # let go of the old memory first
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
            wave: list[AnyRow] = []
            later: list[AnyRow] = []
            begun: set[tuple[tuple[Content, ...], ...]] = set()
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
            most = (len(row.pending) - row.num_asked) // BLOCK  # what is asked about is read
            for block in self.prefixes.find(blocks_of(contents(row.request)))[:most]:
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
        behind = Behind(logits_MV, list(itertools.accumulate(row.num_asked for row in self._rows)))
        writing: dict[int, Row] = {}
        searching: dict[int, dict[int, Hypothesis]] = defaultdict(dict)
        for slot, row in enumerate(self._rows):
            if isinstance(row, ScoreRow | OriginalHypothesis):
                row.hear(behind.all_of(slot, row.num_asked))
            if isinstance(row, Hypothesis):
                searching[row.search.num_rows][slot] = row
            elif isinstance(row, Row):
                writing[slot] = row
        if writing:
            self._write(writing, behind.last_of(list(writing)))
        for width, beams in searching.items():
            self._search(beams, behind.last_of(list(beams)), 2 * width)

    def _write(self, rows: dict[int, Row], logits_RV: Tensor) -> None:
        """Bring the rows at some slots one token further."""
        allowed = [row.allowed for row in rows.values()]
        chosen = self._chooser.choose(logits_RV, list(rows), allowed).host()
        for (slot, row), id, logprob, mass in zip(rows.items(), *chosen, strict=True):
            row.take(step_of(id, logprob, mass))
            if row.stop is None:
                self._chooser.push(slot, [id, *row.jump()])

    def _search(self, beams: dict[int, Hypothesis], logits_RV: Tensor, most: int) -> None:
        """Bring the searches whose beams lie at some slots one choice further."""
        allowed = [beam.allowed for beam in beams.values()]
        offers = self._chooser.offer(logits_RV, list(beams), allowed, most).host()
        offered = dict(zip(beams.values(), offers, strict=True))
        slots = {beam: slot for slot, beam in beams.items()}
        for search in dict.fromkeys(beam.search for beam in beams.values()):
            parents = {beam: slots[beam] for beam in search.rows}
            heirs = search.take([offered[beam] for beam in search.rows])
            if search.stop is None:
                self._bequeath(parents, heirs)

    def _bequeath(self, slots: dict[Hypothesis, int], heirs: Sequence[Heir]) -> None:
        """Give each text that goes on a row: the first of a parent its own, the others a copy."""
        free, copied = dict(slots), []
        placed: dict[int, Hypothesis] = {}
        for parent, child in heirs:
            if parent in free:
                placed[free.pop(parent)] = child
            else:
                copied.append(Heir(parent, child))
        sources, targets = [slots[parent] for parent, _ in copied], []
        for (parent, child), source in zip(copied, sources, strict=True):
            target, num_shared = len(self._rows), 0
            if free:
                gone, target = free.popitem()
                num_shared = parent.num_shared(gone)
            else:
                self._rows.append(child)
            self._cache.copy_row(source, target, num_shared)
            targets.append(target)
            placed[target] = child
        if copied:
            self._chooser.reorder(sources, targets)
        for slot, child in placed.items():
            self._rows[slot] = child
            self._chooser.push(slot, child.pending)
        for gone in free:
            gone.stop = StopReason.CANCELLED

    def _retire(self) -> None:
        """Let rows that have stopped go; the last row moves into each hole."""
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].stop is None and self._rows[slot].owner.stop is None:
                continue
            last = len(self._rows) - 1
            if slot != last:
                self._cache.copy_row(last, slot)
                self._chooser.move(last, slot)
                self._rows[slot] = self._rows[last]
            self._rows.pop()
            self._cache.lengths[last] = 0


@dataclass(frozen=True, slots=True, eq=False)
class Behind:
    """The logits of one step: for each row as many as it asked for, up to its end."""

    logits_MV: Tensor
    ends: list[int]

    def all_of(self, slot: int, num_asked: int) -> Tensor:
        """Return logits_TV behind every token that a row asked about."""
        return self.logits_MV[self.ends[slot] - num_asked : self.ends[slot]]

    def last_of(self, slots: Sequence[int]) -> Tensor:
        """Return logits_RV behind the last token of some rows."""
        if len(slots) == len(self.logits_MV):
            return self.logits_MV
        return self.logits_MV[[self.ends[slot] - 1 for slot in slots]]


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
