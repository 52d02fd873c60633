"""Grounding DINO and its kin (MM Grounding DINO, LLMDet): boxes with a score for every token.

The scores of phrases are made as GLIP makes them. What transformers offers for it
(`post_process_grounded_object_detection`) gives words put together again from tokens, and no place
in the caption.

Dimension letters: B pictures, Q queries (a box each), T tokens of the text, N phrases,
C channels, Y and X pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from kosmos2.api.loading import choose_device
from kosmos2.errors import ConfigError
from kosmos2.grit.canvas import Scaling
from kosmos2.grit.linking import Candidate
from kosmos2.grit.looks import Look, Looker, shares
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import (
    Foreign,
    candidates,
    choose_dtype,
    computing_in,
    of_files,
    precision,
    pretrained,
    surest,
    transformers,
)

KINDS = ("mm-grounding-dino", "grounding-dino")
"""What transformers calls these networks; LLMDet is weights for the first."""
SEGMENT_ENDS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Written into the networks' code by number: a vocabulary must agree."""


class GroundingDino(Looker):
    """Returned are the `rows_per_phrase` surest boxes of every phrase, whatever their scores and
    however they overlap: linking has the thresholds. A phrase without a token (of invisible
    characters only) gets no box.
    """

    score = "mean over a phrase's tokens of sigmoid(logit) of a query for the token"

    def __init__(
        self,
        model: Foreign,
        tokenizer: Foreign,
        scaling: Scaling,
        settings: Detection,
        identity: Mapping[str, str],
    ) -> None:
        _check(model, tokenizer)
        text = model.config.text_config
        longest = min(model.config.max_text_len, text.max_position_embeddings)
        super().__init__(tokenizer, scaling, settings, longest)
        self._device = choose_device(settings.device)
        self._dtype = choose_dtype(settings.dtype, self._device)
        self._identity = identity
        self._model = model.eval().to(self._device, torch.float32)

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    @torch.inference_mode()
    def _forward(
        self, batch: Sequence[Look], bytes_BYXC: Tensor, mask_BYX: Tensor
    ) -> list[list[Candidate]]:
        ids_BT, seen_BT = (text.to(self._device) for text in self._text(batch))
        share_BNT = shares(batch, ids_BT.shape[1]).to(self._device)
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


def load(settings: Detection) -> GroundingDino:
    """Return the detector of a folder or a hub name, ready on its device."""
    library = transformers()
    model = pretrained(library.AutoModelForZeroShotObjectDetection, settings.model)
    tokenizer = pretrained(library.AutoTokenizer, settings.model)
    return GroundingDino(model, tokenizer, _scaling(settings), settings, identity(settings))


def identity(settings: Detection) -> Mapping[str, str]:
    """Return what boxes depend on; reads the files of the model, loads no weights."""
    return {
        "detector": settings.name,
        "model": settings.model,
        **of_files(settings.model),
        "precision": precision(settings),
        "prompt": settings.prompt,
        "rows_per_phrase": str(settings.rows_per_phrase),
        "scaling": str(_scaling(settings)),
        "transformers": str(transformers().__version__),
    }


def _scaling(settings: Detection) -> Scaling:
    return Scaling.of(pretrained(transformers().AutoImageProcessor, settings.model))


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
