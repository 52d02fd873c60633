"""Grounding DINO and its kin (MM Grounding DINO, LLMDet): boxes with a score for every token.

The scores of phrases are made as GLIP makes them. What transformers offers for it
(`post_process_grounded_object_detection`) gives words put together again from tokens, and no place
in the caption.

Dimension letters: B pictures, Q queries (a box each), T tokens of the text, N phrases,
C channels, Y and X pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from kosmos2.api.loading import choose_device
from kosmos2.errors import ConfigError
from kosmos2.grit.canvas import Scaling, Size
from kosmos2.grit.detectors import Asked, Refused, Span
from kosmos2.grit.linking import Candidate
from kosmos2.grit.prompts import Prompt, prompts
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import (
    DTYPES,
    Foreign,
    ahead,
    candidates,
    choose_dtype,
    computing_in,
    pretrained,
    surest,
    transformers,
    weights_hash,
)

KINDS = ("mm-grounding-dino", "grounding-dino")
"""What transformers calls these networks; LLMDet is weights for the first."""
SEGMENT_ENDS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Written into the networks' code by number: a vocabulary must agree."""


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


class GroundingDino:
    """One forward pass a picture, whatever the number of phrases.

    Returned are the `rows_per_phrase` surest boxes of every phrase, whatever their scores and
    however they overlap: linking has the thresholds. Pictures of one size (see `Scaling`) share a
    batch; ask for hundreds at once, so that batches fill. A phrase without a token (of invisible
    characters only) gets no box.
    """

    score = "mean over a phrase's tokens of sigmoid(logit) of a query for the token"

    def __init__(
        self, model: Foreign, tokenizer: Foreign, scaling: Scaling, settings: Detection
    ) -> None:
        _check(model, tokenizer)
        self._device = choose_device(settings.device)
        self._dtype = choose_dtype(settings.dtype, self._device)
        self._weights = weights_hash(model)
        self._model = model.eval().to(self._device, torch.float32)
        self._tokenizer = tokenizer
        self._scaling = scaling
        self._settings = settings
        text = model.config.text_config
        self._longest: int = min(model.config.max_text_len, text.max_position_embeddings)

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "detector": self._settings.name,
            "model": self._settings.model,
            "weights": self._weights,
            "precision": next(name for name, kind in DTYPES.items() if kind == self._dtype),
            "prompt": self._settings.prompt,
            "rows_per_phrase": str(self._settings.rows_per_phrase),
            "scaling": str(self._scaling),
            "transformers": str(transformers().__version__),
        }

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of each picture; a sentence over the text limit refuses the pair."""
        found: list[list[Candidate] | Refused] = [[] for _ in asked]
        looks = []
        for number, each in enumerate(asked):
            texts = prompts(each.caption, each.spans, self._settings.prompt, self._fits)
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

    @torch.inference_mode()
    def _forward(
        self, batch: Sequence[Look], bytes_BYXC: Tensor, mask_BYX: Tensor
    ) -> list[list[Candidate]]:
        ids_BT, seen_BT = self._text(batch)
        share_BNT = _shares(batch, ids_BT.shape[1]).to(self._device)
        mask_BYX = mask_BYX.to(self._device)
        with computing_in(self._dtype, self._device):
            output = self._model(
                pixel_values=self._scaling.normalise(bytes_BYXC.to(self._device), mask_BYX),
                pixel_mask=mask_BYX.long(),
                input_ids=ids_BT,
                attention_mask=seen_BT,
            )
        probability_BQT = output.logits[..., : ids_BT.shape[1]].float().sigmoid()
        scores_BNQ = share_BNT @ probability_BQT.transpose(1, 2)
        scores, boxes = surest(
            scores_BNQ, output.pred_boxes.float(), self._settings.rows_per_phrase
        )
        return [
            [
                candidate
                for row, phrase in enumerate(look.prompt.phrases)
                for candidate in candidates(phrase, scores_NK[row], boxes_NK4[row])
            ]
            for look, scores_NK, boxes_NK4 in zip(batch, scores, boxes, strict=True)
        ]

    def _text(self, batch: Sequence[Look]) -> tuple[Tensor, Tensor]:
        """Return ids_BT and what of them is no padding."""
        longest = max(len(look.ids) for look in batch)
        ids_BT = torch.full((len(batch), longest), self._tokenizer.pad_token_id)
        seen_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, look in enumerate(batch):
            ids_BT[row, : len(look.ids)] = torch.tensor(look.ids)
            seen_BT[row, : len(look.ids)] = 1
        return ids_BT.to(self._device), seen_BT.to(self._device)


def load(settings: Detection) -> GroundingDino:
    """Return the detector of a folder or a hub name, ready on its device."""
    library = transformers()
    model = pretrained(library.AutoModelForZeroShotObjectDetection, settings.model)
    tokenizer = pretrained(library.AutoTokenizer, settings.model)
    processor = pretrained(library.AutoImageProcessor, settings.model)
    return GroundingDino(model, tokenizer, Scaling.of(processor), settings)


def _shares(batch: Sequence[Look], length: int) -> Tensor:
    """Return share_BNT: of each phrase, 1 / n for each of its n tokens; zeros where none is."""
    share_BNT = torch.zeros(len(batch), max(len(look.prompt.spans) for look in batch), length)
    for look, share_NT in zip(batch, share_BNT, strict=True):
        for row, (start, end) in enumerate(look.prompt.spans):
            tokens = [n for n, (a, b) in enumerate(look.offsets) if a < end and start < b and a < b]
            if tokens:
                share_NT[row, tokens] = 1 / len(tokens)
    return share_BNT


def _check(model: Foreign, tokenizer: Foreign) -> None:
    kind = model.config.model_type
    if kind not in KINDS:
        raise ConfigError(
            f"detection.model is a {kind}, and this detector runs {' and '.join(KINDS)}"
        )
    ids: Callable[[str], int] = tokenizer.convert_tokens_to_ids
    wrong = {mark: ids(mark) for mark, number in SEGMENT_ENDS.items() if ids(mark) != number}
    if wrong or not tokenizer.is_fast:
        raise ConfigError(
            f"detection.model must have the vocabulary of BERT (uncased) with {SEGMENT_ENDS} and "
            f"a fast tokenizer; here {wrong or 'it is slow'}"
        )
