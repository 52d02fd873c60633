"""What the engine computes with: the network's numbers, arranged for answering, not for learning.

Rows of unequal length are packed one after the other, so nothing is ever padded: N tokens of all
rows go through the matrices together, and only attention looks at the rows one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.engine.cache import RowCache
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import Table
from kosmos2.model import ModelConfig, TextConfig
from kosmos2.model.attention import split_heads
from kosmos2.model.decoder import PADDING_ID, sinusoids
from kosmos2.model.resampler import Resampler
from kosmos2.model.vision import VisionTower

FIRST_POSITION = PADDING_ID + 1
"""The position of the first token of a row, as in fairseq."""


@dataclass(frozen=True, slots=True)
class Extension:
    """Where the N packed tokens of one call go, and what each may look at."""

    rows: slice
    slots_N: Tensor
    """Indices into the rows and slots of the cache, flattened."""
    num_keys: int
    """The longest row after the call."""
    mask_BTS: Tensor | None
    """True where a query may look; None where all may look everywhere."""
    pad_BT: Tensor | None
    """The packed index of each query, where rows append unequal numbers of tokens."""
    unpad_N: Tensor | None


def plan(cache: RowCache, first: int, counts: Sequence[int]) -> Extension:
    """Take the slots for counts[r] more tokens of row first + r."""
    spans = cache.append(first, counts)
    slots = [
        row * cache.capacity + slot
        for row, span in enumerate(spans, start=first)
        for slot in range(*span)
    ]
    num_keys = max(stop for _, stop in spans)
    longest = max(counts)
    alike = all(span == (num_keys - 1, num_keys) for span in spans)
    device = cache.memory.device
    pad_BT, unpad_N = _padding(counts, longest, device)
    return Extension(
        rows=slice(first, first + len(counts)),
        slots_N=torch.tensor(slots, device=device),
        num_keys=num_keys,
        mask_BTS=None if alike else _mask(spans, longest, num_keys, device),
        pad_BT=pad_BT,
        unpad_N=unpad_N,
    )


def _mask(
    spans: Sequence[tuple[int, int]], num_queries: int, num_keys: int, device: torch.device
) -> Tensor:
    starts_B = torch.tensor([start for start, _ in spans], device=device)
    last_BT = starts_B[:, None] + torch.arange(num_queries, device=device)
    return torch.arange(num_keys, device=device) <= last_BT[:, :, None]


def _padding(
    counts: Sequence[int], longest: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    if min(counts) == longest:
        return None, None
    starts = [0, *itertools.accumulate(counts)]
    pad = [[start + min(at, count - 1) for at in range(longest)] for start, count in
           zip(starts, counts, strict=False)]  # fmt: skip
    unpad = [row * longest + at for row, count in enumerate(counts) for at in range(count)]
    return torch.tensor(pad, device=device), torch.tensor(unpad, device=device)


class FusedBlock(nn.Module):
    """A `DecoderBlock` over packed tokens and a cache; a test holds it equal to that one."""

    def __init__(self, config: TextConfig, layer: int, parts: BlockParts) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_heads
        self.attention_norm = parts.attention_norm
        self.qkv = parts.qkv
        self.mixed_norm = parts.mixed_norm
        self.output = parts.output
        self.feedforward_norm = parts.feedforward_norm
        self.expand = parts.expand
        self.expanded_norm = parts.expanded_norm
        self.contract = parts.contract

    def forward(
        self, x_ND: Tensor, cache: RowCache, extension: Extension, wanted_M: Tensor | None
    ) -> Tensor:
        """Return x_MD of the wanted tokens, all where wanted_M is None; the cache has them all."""
        mixed_ND = self._attention(self.attention_norm(x_ND), cache, extension)
        if wanted_M is not None:
            x_ND, mixed_ND = x_ND[wanted_M], mixed_ND[wanted_M]
        x_ND = x_ND + self.output(self.mixed_norm(mixed_ND))

        expanded_NF = F.gelu(self.expand(self.feedforward_norm(x_ND)))
        contracted_ND: Tensor = self.contract(self.expanded_norm(expanded_NF))
        return x_ND + contracted_ND

    def _attention(self, x_ND: Tensor, cache: RowCache, extension: Extension) -> Tensor:
        width = x_ND.shape[1]
        query_ND, memory_N2D = self.qkv(x_ND).split([width, 2 * width], dim=1)
        held_X2D = cache.memory[self.layer].view(-1, 2 * width)
        held_X2D.index_copy_(0, extension.slots_N, memory_N2D.to(held_X2D.dtype))

        if extension.pad_BT is not None:
            query_BTD = query_ND[extension.pad_BT]
        else:
            num_rows = extension.rows.stop - extension.rows.start
            query_BTD = query_ND.view(num_rows, -1, width)
        held_BS2D = cache.memory[self.layer, extension.rows, : extension.num_keys]
        mixed_BTD = attend_rows(query_BTD, held_BS2D, extension.mask_BTS, self.num_heads)
        mixed_ND = mixed_BTD.flatten(0, 1)
        return mixed_ND if extension.unpad_N is None else mixed_ND[extension.unpad_N]


@dataclass(frozen=True, slots=True)
class BlockParts:
    """The layers of one block; qkv is query, key and value as one matrix."""

    attention_norm: nn.Module
    qkv: nn.Module
    mixed_norm: nn.Module
    output: nn.Module
    feedforward_norm: nn.Module
    expand: nn.Module
    expanded_norm: nn.Module
    contract: nn.Module


def attend_rows(
    query_BTD: Tensor, held_BS2D: Tensor, mask_BTS: Tensor | None, num_heads: int
) -> Tensor:
    """Return mixed_BTD of queries over the slots of their rows."""
    query_BHTK = split_heads(query_BTD.to(held_BS2D.dtype), num_heads)
    key_BHSK = split_heads(held_BS2D[:, :, 0], num_heads)
    value_BHSK = split_heads(held_BS2D[:, :, 1], num_heads)
    mask_BHTS = None if mask_BTS is None else mask_BTS.unsqueeze(1)
    mixed_BHTK = F.scaled_dot_product_attention(
        query_BHTK, key_BHSK, value_BHSK, attn_mask=mask_BHTS
    )
    return mixed_BHTK.transpose(1, 2).flatten(2).to(query_BTD.dtype)


class Runner:
    """A network ready to answer, on any device. `engine.build` makes one."""

    def __init__(
        self,
        config: ModelConfig,
        precision: Precision,
        *,
        vision: VisionTower,
        resampler: Resampler,
        table: Table,
        blocks: Sequence[FusedBlock],
        norm: nn.Module,
    ) -> None:
        self.config = config
        self.precision = precision
        self.vision = vision
        self.resampler = resampler
        self.table = table
        self.blocks = list(blocks)
        self.norm = norm
        self.dtype = vision.positions.dtype
        self.device = vision.positions.device
        self.cache_dtype = self.dtype
        if self.device.type == "cpu" and self.dtype.itemsize < 4:
            # Attention of few queries in bf16 takes a CPU 5 to 8 times as long as in fp32.
            self.cache_dtype = torch.float32
        self._scale = config.text.width**0.5 if config.text.scale_embedding else 1.0
        self._places_XD = torch.empty(0, config.text.width, dtype=self.dtype, device=self.device)

    def encode_images(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD of N pictures."""
        pixels_NCYX = pixels_NCYX.to(device=self.device, dtype=self.dtype)
        latents_NQD: Tensor = self.resampler(self.vision(pixels_NCYX))
        return latents_NQD

    def enter(
        self, ids: Sequence[int], positions: Sequence[int], image_mask: Sequence[bool],
        latents_MD: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Return x_ND, what the first block reads of N tokens.

        The vectors of latents_MD, in their order, are where image_mask is True.
        """
        vectors_ND = self.table.rows(torch.tensor(ids, device=self.device))
        if latents_MD is not None:
            slots = [slot for slot, in_image in enumerate(image_mask) if in_image]
            vectors_ND = vectors_ND.index_copy(
                0,
                torch.tensor(slots, device=self.device),
                latents_MD.to(device=self.device, dtype=self.dtype),
            )
        return self._scale * vectors_ND + self._places(positions)

    def new_cache(self, num_rows: int, capacity: int) -> RowCache:
        """Return an empty cache for rows of this model."""
        return RowCache(self.config.text, num_rows, capacity, self.cache_dtype, self.device)

    def extend(
        self,
        cache: RowCache,
        first: int,
        x_ND: Tensor,
        counts: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """Append counts[r] tokens to row first + r; return hidden_MD of the wanted packed tokens.

        N = sum(counts). Hidden states are behind the last norm, ready for `logits`.
        """
        extension = plan(cache, first, counts)
        wanted_M = None
        if len(wanted) < len(x_ND):
            wanted_M = torch.tensor(wanted, dtype=torch.long, device=self.device)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            # Behind the last block only the wanted tokens are read: the others stop there.
            x_ND = block(x_ND, cache, extension, wanted_M if layer == last else None)
        hidden_MD: Tensor = self.norm(x_ND)
        return hidden_MD

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Return logits_MV in float32."""
        return self.table.logits(hidden_MD)

    def _places(self, positions: Sequence[int]) -> Tensor:
        """Return the sinusoids of positions, from a table that grows by need."""
        if max(positions) >= len(self._places_XD):
            size = max(256, 2 * max(positions))
            places_XD = sinusoids(torch.arange(size, device=self.device), self.config.text.width)
            self._places_XD = places_XD.to(self.dtype)
        return self._places_XD[torch.tensor(positions, device=self.device)]
