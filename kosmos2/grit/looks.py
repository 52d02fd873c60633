"""What detectors that read a whole caption share: texts to tokens, pictures of one size to batches.

Dimension letters: B pictures, T tokens of the text, N phrases, C channels, Y and X pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from kosmos2.grit.canvas import Scaling, Size
from kosmos2.grit.detectors import Asked, Refused, Span
from kosmos2.grit.linking import Candidate
from kosmos2.grit.prompts import Prompt, prompts
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import Foreign, ahead


@dataclass(frozen=True, slots=True)
class Look:
    """One forward pass for one picture."""

    asked: int
    """Which of the pairs."""
    image: Image.Image
    prompt: Prompt
    ids: tuple[int, ...]
    offsets: tuple[Span, ...]
    """The characters of the prompt that each token stands for; none for marks of the model."""


class Looker(ABC):
    """One forward pass a picture, whatever the number of phrases.

    Pictures of one size (see `Scaling`) share a batch; ask for hundreds at once, so that batches
    fill.
    """

    def __init__(
        self, tokenizer: Foreign, scaling: Scaling, settings: Detection, longest: int
    ) -> None:
        self._tokenizer = tokenizer
        self._scaling = scaling
        self._settings = settings
        self._longest = longest

    @abstractmethod
    def _forward(
        self, batch: Sequence[Look], bytes_BYXC: Tensor, mask_BYX: Tensor
    ) -> list[list[Candidate]]:
        """Return the boxes of each look, for phrases as the caption counts them."""

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of each picture; a sentence over the text limit refuses the pair."""
        found: list[list[Candidate] | Refused] = [[] for _ in asked]
        looks = []
        for number, each in enumerate(asked):
            texts = self._texts(each)
            if isinstance(texts, Refused):
                found[number] = texts
            else:
                looks += [self._look(number, each, prompt) for prompt in texts]
        for batch, drawn in ahead(self._batches(looks), self._draw):
            for look, boxes in zip(batch, self._forward(batch, *drawn), strict=True):
                kept = found[look.asked]
                assert isinstance(kept, list)
                kept += boxes
        return found

    def _texts(self, asked: Asked) -> tuple[Prompt, ...] | Refused:
        return prompts(asked.caption, asked.spans, self._settings.prompt, self._fits)

    def _fits(self, text: str) -> bool:
        tokens: Sequence[int] = self._encode(text)["input_ids"]
        return len(tokens) <= self._longest

    def _encode(self, text: str) -> Foreign:
        return self._tokenizer(text, return_offsets_mapping=True, verbose=False)

    def _look(self, number: int, asked: Asked, prompt: Prompt) -> Look:
        encoded = self._encode(prompt.text)
        offsets = tuple((start, end) for start, end in encoded["offset_mapping"])
        return Look(number, asked.image, prompt, tuple(encoded["input_ids"]), offsets)

    def _batches(self, looks: Sequence[Look]) -> Iterator[list[Look]]:
        """Yield looks of one canvas, at most `batch_size` together."""
        by_canvas: dict[Size, list[Look]] = {}
        for look in looks:
            by_canvas.setdefault(self._scaling.canvas(*look.image.size), []).append(look)
        size = self._settings.batch_size
        for same in by_canvas.values():
            yield from (same[start : start + size] for start in range(0, len(same), size))

    def _draw(self, batch: Sequence[Look]) -> tuple[Tensor, Tensor]:
        return self._scaling.draw([look.image for look in batch])

    def _text(self, batch: Sequence[Look]) -> tuple[Tensor, Tensor]:
        """Return ids_BT and seen_BT, which is 1 for what is no padding."""
        longest = max(len(look.ids) for look in batch)
        ids_BT = torch.full((len(batch), longest), self._tokenizer.pad_token_id)
        seen_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, look in enumerate(batch):
            ids_BT[row, : len(look.ids)] = torch.tensor(look.ids)
            seen_BT[row, : len(look.ids)] = 1
        return ids_BT, seen_BT


def shares(batch: Sequence[Look], length: int) -> Tensor:
    """Return share_BNT: of each phrase, 1 / n for each of its n tokens; zeros where none is."""
    share_BNT = torch.zeros(len(batch), max(len(look.prompt.spans) for look in batch), length)
    for look, share_NT in zip(batch, share_BNT, strict=True):
        for row, (start, end) in enumerate(look.prompt.spans):
            tokens = [n for n, (a, b) in enumerate(look.offsets) if a < end and start < b and a < b]
            if tokens:
                share_NT[row, tokens] = 1 / len(tokens)
    return share_BNT
