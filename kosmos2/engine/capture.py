"""A runner whose decode step is recorded once and replayed: what a GPU needs to be kept busy.

One new token for each of R rows is a program of fixed shapes over fixed memory: ids, rows of the
cache and lengths lie on the device, R is rounded up to a bucket, rows that are too many write to a
row of the cache that nobody uses. On CUDA a program is a graph; elsewhere it is the same function,
called. Nothing inside a step waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from kosmos2.engine.cache import RowCache
from kosmos2.engine.programs import (
    CapturedCache,
    Decoded,
    FoundT,
    Inputs,
    Program,
    Recorder,
    Size,
    Uploads,
    pinned,
    recorder_for,
)
from kosmos2.engine.runner import FIRST_POSITION, Runner
from kosmos2.kernels.cuda import operations_for
from kosmos2.kernels.operations import MOST_QUERIES, Feedforward, Operations, Places
from kosmos2.model.decoder import PADDING_ID, sinusoids

ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
FEWEST_SLOTS = 256
"""Programs are made for rows of at most 256 tokens, 512, 1,024, and so on."""


class CapturedRunner(Runner):
    """A runner for CUDA devices; on others it does the same, without the gain.

    Prompts are read as the plain runner does; programs begin with the second token of an answer.
    """

    def __init__(self, runner: Runner, operations: Operations, recorder: Recorder) -> None:
        super().__init__(
            runner.config,
            runner.precision,
            vision=runner.vision,
            resampler=runner.resampler,
            table=runner.table,
            blocks=runner.blocks,
            norm=runner.norm,
        )
        self._operations = operations
        self._recorder = recorder
        self._uploads = Uploads(self.device)
        self._feedforwards = [
            Feedforward(block.feedforward_norm, block.expand, block.expanded_norm, block.contract)
            for block in self.blocks
        ]

    @classmethod
    def of(cls, runner: Runner) -> CapturedRunner:
        """Return a runner with another one's weights and the best kernels of its device."""
        operations = operations_for(runner.device, runner.dtype)
        return cls(runner, operations, recorder_for(runner.device))

    def encode_images(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD; pixels travel while the device still works on earlier ones."""
        return super().encode_images(self._uploads.send(pixels_NCYX))

    def new_cache(self, num_rows: int, capacity: int) -> CapturedCache:
        """Return an empty cache for rows of this model."""
        return CapturedCache(self.config.text, num_rows, capacity, self.cache_dtype, self.device)

    @torch.inference_mode()
    def extend(
        self,
        cache: RowCache,
        first: int,
        x_ND: Tensor,
        counts: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """Append counts[r] tokens to row first + r; return hidden_MD of the wanted packed tokens.

        One token for each row is a program; a few are the same kernels, not recorded.
        """
        if not isinstance(cache, CapturedCache) or max(counts) > MOST_QUERIES:
            return super().extend(cache, first, x_ND, counts, wanted)
        in_order = list(wanted) == list(range(len(counts)))
        if max(counts) > 1 or len(counts) > ROW_BUCKETS[-1] or not in_order:
            return self._extend_few(cache, first, x_ND, counts, wanted)
        lengths = [start for start, _ in cache.append(first, counts)]
        program = self._from_vectors(cache, (len(counts), max(lengths) + 1))
        program.inputs.x_RD[: len(counts)].copy_(x_ND)
        program.inputs.put([0] * len(counts), first, lengths, cache.spare)
        return program.replay()[: len(counts)].clone()

    @torch.inference_mode()
    def decode(self, cache: CapturedCache, first: int, ids: Sequence[int]) -> Decoded:
        """Append one token to each row from `first` on, at most 128; return what follows.

        The same as `enter`, `extend` and `logits`, as one program.
        """
        lengths = [start for start, _ in cache.append(first, [1] * len(ids))]
        program = self._from_tokens(cache, (len(ids), max(lengths) + 1))
        program.inputs.put(ids, first, lengths, cache.spare)
        return program.replay().first(len(ids))

    @torch.inference_mode()
    def decode_greedily(
        self, cache: CapturedCache, first: int, ids: Sequence[int], num_steps: int
    ) -> Tensor:
        """Append ids and then what the model itself would say; return its choices, ids_RT.

        Each choice is the next step's input on the device; nothing waits for the host.
        """
        lengths = [start for start, _ in cache.append(first, [num_steps] * len(ids))]
        program = self._from_tokens(cache, (len(ids), max(lengths) + num_steps))
        program.inputs.put(ids, first, lengths, cache.spare)
        chosen = [program.replay().ids_R[: len(ids)].clone() for _ in range(num_steps)]
        return torch.stack(chosen, dim=1)

    @torch.inference_mode()
    def warm(self, cache: CapturedCache, row_counts: Iterable[int]) -> None:
        """Make the programs for some numbers of rows and every length that the cache can hold."""
        for num_rows in row_counts:
            for num_slots in slot_buckets(cache.capacity):
                self._from_vectors(cache, (num_rows, num_slots))
                self._from_tokens(cache, (num_rows, num_slots))

    # --- programs

    def _from_vectors(self, cache: CapturedCache, size: Size) -> Program[Tensor]:
        """Return the program from x_RD to hidden_RD."""

        def read(inputs: Inputs) -> Tensor:
            return self._read(inputs.x_RD, cache.memory, inputs.places, inputs.num_slots)

        return self._program(cache, cache.from_vectors, size, read)

    def _from_tokens(self, cache: CapturedCache, size: Size) -> Program[Decoded]:
        """Return the program from ids_R to the next ids_R, which it leaves as its own input."""

        def decode(inputs: Inputs) -> Decoded:
            return self._decode(inputs, cache.memory)

        return self._program(cache, cache.from_tokens, size, decode)

    def _program(
        self,
        cache: CapturedCache,
        programs: dict[Size, Program[FoundT]],
        size: Size,
        work: Callable[[Inputs], FoundT],
    ) -> Program[FoundT]:
        """Return the smallest program that is large enough, recorded when first asked for."""
        assert size[0] <= ROW_BUCKETS[-1] and cache.capacity > 2, (size, cache.capacity)
        num_rows = next(bucket for bucket in ROW_BUCKETS if bucket >= size[0])
        num_slots = next(each for each in slot_buckets(cache.capacity) if each >= size[1])
        if (num_rows, num_slots) not in programs:
            inputs = self._inputs(cache, num_rows, num_slots)
            replay = self._recorder.record(lambda: work(inputs))
            programs[num_rows, num_slots] = Program(inputs, replay)
        return programs[num_rows, num_slots]

    def _inputs(self, cache: CapturedCache, num_rows: int, num_slots: int) -> Inputs:
        """Return inputs of which every row is spare: what recording writes, nobody reads."""
        width = self.config.text.width
        positions_S = torch.arange(PADDING_ID, num_slots + FIRST_POSITION, device=self.device)
        inputs = Inputs(
            numbers_3R=torch.empty(3, num_rows, dtype=torch.int32, device=self.device),
            x_RD=torch.zeros(num_rows, width, dtype=self.dtype, device=self.device),
            starts_R=torch.arange(num_rows + 1, dtype=torch.int32, device=self.device),
            places_SD=sinusoids(positions_S, width).to(self.dtype),
            num_slots=num_slots,
        )
        inputs.put([], 0, [], cache.spare)
        return inputs

    # --- what programs do

    def _decode(self, inputs: Inputs, memory_LRSCD: Tensor) -> Decoded:
        place_R = torch.where(
            inputs.ids_R == PADDING_ID, 0, inputs.lengths_R + (FIRST_POSITION - PADDING_ID)
        )
        vectors_RD = self.table.rows(inputs.ids_R)
        x_RD = (self._scale * vectors_RD + inputs.places_SD[place_R]).to(self.dtype)
        hidden_RD = self._read(x_RD, memory_LRSCD, inputs.places, inputs.num_slots)
        logits_RV = self._operations.scores(hidden_RD, self.table)
        best_R, ids_R = logits_RV.max(dim=-1)
        logprobs_R = best_R - logits_RV.logsumexp(dim=-1)
        inputs.ids_R.copy_(ids_R)
        inputs.lengths_R.add_(1)
        return Decoded(logits_RV, ids_R.int(), logprobs_R)

    def _read(self, x_ND: Tensor, memory_LRSCD: Tensor, places: Places, num_slots: int) -> Tensor:
        """Return hidden_ND of N packed tokens."""
        do, num_heads = self._operations, self.config.text.num_heads
        change_ND: Tensor | None = None
        for layer, block in enumerate(self.blocks):
            x_ND, qkv_N3D = do.project(x_ND, change_ND, block.attention_norm, block.qkv)
            mixed_ND = do.attend(qkv_N3D, memory_LRSCD[layer], places, num_heads, num_slots)
            _, change_ND = do.project(mixed_ND, None, block.mixed_norm, block.output)
            x_ND, change_ND = do.feedforward(x_ND, change_ND, self._feedforwards[layer])
        assert change_ND is not None
        return do.finish(x_ND, change_ND, self.norm)

    def _extend_few(
        self,
        cache: CapturedCache,
        first: int,
        x_ND: Tensor,
        counts: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """Return hidden_MD of the wanted among a few tokens a row."""
        spans = cache.append(first, counts)
        starts = [0, *accumulate(counts)]
        numbers = [range(first, first + len(counts)), [start for start, _ in spans], starts, wanted]
        slots_R, lengths_R, starts_R, wanted_M = (
            pinned([each], self.device).to(self.device, non_blocking=True)[0] for each in numbers
        )
        places = Places(slots_R, lengths_R, starts_R)
        num_slots = max(stop for _, stop in spans)
        return self._read(x_ND, cache.memory, places, num_slots)[wanted_M]


def slot_buckets(capacity: int) -> list[int]:
    """Return 256, 512, ... and last the capacity."""
    buckets = []
    bucket = FEWEST_SLOTS
    while bucket < capacity:
        buckets.append(bucket)
        bucket *= 2
    return [*buckets, capacity]
