"""GLIP behind the protocol of detectors: captions with phrases in, their boxes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kosmos2.api.loading import choose_device
from kosmos2.boxes import Box
from kosmos2.errors import ConfigError, RequestError
from kosmos2.grit.canvas import Scaling, Size
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.glip import checkpoint
from kosmos2.grit.glip.boxes import Rows, find
from kosmos2.grit.glip.network import Glip, Seen
from kosmos2.grit.linking import Candidate
from kosmos2.grit.looks import Look, Looker, shares
from kosmos2.grit.prompts import Prompt
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import (
    Foreign,
    choose_dtype,
    computing_in,
    precision,
    pretrained,
    transformers,
    weights_hash,
)
from kosmos2.weights.tensors import sha256

LONGEST_TEXT = 256
"""Tokens (LANGUAGE_BACKBONE.MAX_QUERY_LEN)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlipScaling(Scaling):
    """As data/transforms/transforms.py scales: both sides follow from the rounded short one."""

    def size(self, width: int, height: int) -> Size:
        """Return the height and width that a picture of this size is scaled to."""
        short, long = min(width, height), max(width, height)
        side = self.shortest
        if long / short * side > self.longest:
            side = max(1, round(self.longest * short / long))
        if side == short:
            return height, width
        sides = side, max(1, side * long // short)
        return sides if height <= width else (sides[1], sides[0])


class GlipDetector(Looker):
    """At most 100 boxes a picture, as the reference gives them: `rows_per_phrase` has no part.

    It reads the caption as it is; one of more than 256 tokens is split between sentences. A phrase
    without a token (of invisible characters only) gets no box.
    """

    score = (
        "sqrt(mean over a phrase's tokens of sigmoid(dot product of a place and the token) x "
        "sigmoid(centredness of the place)), boxes of a phrase apart by IoU 0.6"
    )

    def __init__(
        self,
        model: Glip,
        tokenizer: Foreign,
        settings: Detection,
        scaling: Scaling | None = None,
        weights: str = "",
    ) -> None:
        embedding = model.get_parameter(
            "language_backbone.body.model.embeddings.word_embeddings.weight"
        )
        positions = model.get_parameter(
            "language_backbone.body.model.embeddings.position_embeddings.weight"
        )
        if len(tokenizer) != len(embedding) or not tokenizer.is_fast:
            raise ConfigError(
                f"detection.model: its tokenizer must be fast and have the {len(embedding)} tokens "
                f"that the weights have, got {len(tokenizer)}. GLIP-T needs the files of BERT "
                "base, uncased (vocab.txt or tokenizer.json) beside its checkpoint."
            )
        super().__init__(
            tokenizer, scaling or GlipScaling(), settings, min(LONGEST_TEXT, len(positions))
        )
        self._device = choose_device(settings.device)
        self._dtype = choose_dtype(settings.dtype, self._device)
        self._weights = weights or weights_hash(model)
        self._model = model.eval().to(self._device, torch.float32)

    @property
    def identity(self) -> Mapping[str, str]:
        return _identity(self._settings, self._weights, self._scaling)

    def _texts(self, asked: Asked) -> tuple[Prompt, ...] | Refused:
        whole = Prompt(asked.caption, tuple(range(len(asked.spans))), asked.spans)
        if self._settings.prompt == "caption" and self._fits(asked.caption):
            return (whole,) if asked.spans else ()
        return super()._texts(asked)

    @torch.inference_mode()
    def _forward(
        self, batch: Sequence[Look], bytes_BYXC: Tensor, mask_BYX: Tensor
    ) -> list[list[Candidate]]:
        ids_BT, seen_BT = (text.to(self._device) for text in self._text(batch))
        mask_BYX = mask_BYX.to(self._device)
        pixels_BCYX = self._scaling.normalise(bytes_BYXC.to(self._device), mask_BYX)
        with computing_in(self._dtype, self._device):
            seen = self._model(pixels_BCYX.flip(1), ids_BT, seen_BT.bool())  # blue, green, red
        _check(seen)
        share_BNT = shares(batch, ids_BT.shape[1]).to(self._device)
        found = []
        for number, look in enumerate(batch):
            size = self._scaling.size(*look.image.size)
            rows = find(seen, number, share_BNT[number], size)
            found.append(_candidates(rows, look.prompt, size))
        return found


def load(settings: Detection) -> GlipDetector:
    """Return the detector of a checkpoint (.pth) with BERT's tokenizer files beside it.

    `detection.model` is the checkpoint or its folder, which must then hold no other.
    """
    library = transformers()
    path = _checkpoint(settings)
    tokenizer = pretrained(library.BertTokenizerFast, str(path.parent))
    return GlipDetector(checkpoint.load(path), tokenizer, settings, weights=_hash(path))


def identity(settings: Detection) -> Mapping[str, str]:
    """Return what boxes depend on; reads the checkpoint's bytes, loads no weights."""
    return _identity(settings, _hash(_checkpoint(settings)), GlipScaling())


def _identity(settings: Detection, weights: str, scaling: Scaling) -> Mapping[str, str]:
    return {
        "detector": "glip",
        "model": settings.model,
        "weights": weights,
        "precision": precision(settings),
        "prompt": settings.prompt,
        "scaling": str(scaling),
        "transformers": str(transformers().__version__),
    }


def _hash(path: Path) -> str:
    return f"sha256:{sha256(path)}"


def _checkpoint(settings: Detection) -> Path:
    path = Path(settings.model)
    if path.is_dir():
        checkpoints = sorted(path.glob("*.pth"))
        if len(checkpoints) != 1:
            raise ConfigError(
                f"detection.model: {path} must hold one checkpoint (.pth), got "
                f"{[each.name for each in checkpoints]}. Name the file itself instead."
            )
        (path,) = checkpoints
    if not path.is_file():
        raise ConfigError(
            f"detection.model: {path} is no file. Give the checkpoint of GLIP-T (.pth), with the "
            "tokenizer files of BERT base, uncased, in the same folder."
        )
    return path


def _candidates(rows: Rows, prompt: Prompt, size: Size) -> list[Candidate]:
    """Return normalised boxes that have a width and a height."""
    sides_4 = rows.box_R4.new_tensor([size[1], size[0]]).repeat(2)
    found = []
    for row, score, (x0, y0, x1, y1) in zip(
        rows.phrase_R.tolist(),
        rows.score_R.tolist(),
        (rows.box_R4 / sides_4).tolist(),
        strict=True,
    ):
        if x0 < x1 and y0 < y1:
            box = Box(x0, y0, x1, y1)
            found.append(Candidate(phrase=prompt.phrases[row], box=box, score=score))
    return found


def _check(seen: Sequence[Seen]) -> None:
    for level in seen:
        if not all(
            part.isfinite().all() for part in (level.logits_BVT, level.shifts_BV4, level.centred_BV)
        ):
            raise RequestError(
                "the detector computed numbers that are not finite; with detection.dtype = fp16 "
                "this is too large a number: use bf16 or fp32"
            )
