"""OWLv2: boxes for phrases that it knows without their caption, each looked for by itself.

Dimension letters: B pictures, Q patches (a box each), N phrases, L tokens of a phrase, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from kosmos2.api.loading import choose_device
from kosmos2.errors import ConfigError
from kosmos2.grit.detectors import Asked, Refused
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import (
    Foreign,
    ahead,
    candidates,
    choose_dtype,
    computing_in,
    of_files,
    precision,
    pretrained,
    surest,
    transformers,
)


class Owl:
    """One look at a picture, whatever the number of phrases; equal phrases are read once.

    Returned are the `rows_per_phrase` surest boxes of every phrase, whatever their scores and
    however they overlap: linking has the thresholds. A phrase of more tokens than the text model
    reads (16) gets no box: the end of English phrases, which would be cut off, names the thing.
    """

    score = "sigmoid(logit) of a patch for the phrase"

    def __init__(
        self,
        model: Foreign,
        tokenizer: Foreign,
        processor: Foreign,
        settings: Detection,
        identity: Mapping[str, str],
    ) -> None:
        if model.config.model_type != "owlv2":
            raise ConfigError(f"detection.model is a {model.config.model_type}, and no owlv2")
        self._device = choose_device(settings.device)
        self._dtype = choose_dtype(settings.dtype, self._device)
        self._identity = identity
        self._model = model.eval().to(self._device, torch.float32)
        self._tokenizer = tokenizer
        self._processor = processor
        self._settings = settings
        self._longest: int = model.config.text_config.max_position_embeddings

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of each picture; nothing is refused."""
        size = self._settings.batch_size
        batches = (asked[start : start + size] for start in range(0, len(asked), size))
        found: list[list[Candidate] | Refused] = []
        for batch, pixels_BCYX in ahead(batches, self._draw):
            found += self._forward(batch, pixels_BCYX)
        return found

    def _draw(self, batch: Sequence[Asked]) -> Tensor:
        """Return pixels_BCYX of pictures padded to squares, right and below, and scaled."""
        images = [each.image for each in batch]
        pixels_BCYX: Tensor = self._processor(images=images, return_tensors="pt")["pixel_values"]
        return pixels_BCYX

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Asked], pixels_BCYX: Tensor) -> list[list[Candidate]]:
        numbers, embedded_MD = self._read(batch)
        if not numbers:
            return [[] for _ in batch]
        rows = [[numbers.get(_words(each, n), 0) for n in range(len(each.spans))] for each in batch]
        longest = max(map(len, rows))
        row_BN = torch.tensor([[*each, *[0] * (longest - len(each))] for each in rows])
        queries_BND = embedded_MD[row_BN.to(self._device)]
        with computing_in(self._dtype, self._device):
            map_BYXD, _ = self._model.image_embedder(pixels_BCYX.to(self._device))
        map_BYXD = map_BYXD.float()
        features_BQD = map_BYXD.flatten(1, 2)
        logits_BQN, _ = self._model.class_predictor(features_BQD, queries_BND)
        boxes_BQ4 = self._model.box_predictor(features_BQD, map_BYXD)
        scores, boxes = surest(
            logits_BQN.sigmoid().transpose(1, 2), boxes_BQ4, self._settings.rows_per_phrase
        )
        return [
            list(chain.from_iterable(_candidates(each, numbers, scores_NK, boxes_NK4)))
            for each, scores_NK, boxes_NK4 in zip(batch, scores, boxes, strict=True)
        ]

    def _read(self, batch: Sequence[Asked]) -> tuple[dict[str, int], Tensor]:
        """Return the row of each phrase that can be read whole, and embedded_MD of the rows."""
        words = dict.fromkeys(_words(each, n) for each in batch for n in range(len(each.spans)))
        ids = {text: self._tokenizer(text, verbose=False)["input_ids"] for text in words}
        short = [text for text, tokens in ids.items() if len(tokens) <= self._longest]
        if not short:
            return {}, torch.empty(0)
        read = self._tokenizer(
            short, padding="max_length", max_length=self._longest, return_tensors="pt"
        ).to(self._device)
        with computing_in(self._dtype, self._device):
            embedded_MD = self._model.owlv2.get_text_features(
                input_ids=read["input_ids"], attention_mask=read["attention_mask"]
            ).pooler_output.float()
        embedded_MD = embedded_MD / embedded_MD.norm(dim=-1, keepdim=True)
        return {text: row for row, text in enumerate(short)}, embedded_MD


def load(settings: Detection) -> Owl:
    """Return the detector of a folder or a hub name, ready on its device."""
    library = transformers()
    model = pretrained(library.Owlv2ForObjectDetection, settings.model)
    tokenizer = pretrained(library.AutoTokenizer, settings.model)
    processor = pretrained(library.AutoImageProcessor, settings.model)
    return Owl(model, tokenizer, processor, settings, identity(settings))


def identity(settings: Detection) -> Mapping[str, str]:
    """Return what boxes depend on; reads the files of the model, loads no weights."""
    library = transformers()
    processor = pretrained(library.AutoImageProcessor, settings.model)
    return {
        "detector": "owlv2",
        "model": settings.model,
        **of_files(settings.model),
        "precision": precision(settings),
        "rows_per_phrase": str(settings.rows_per_phrase),
        "scaling": str(dict(processor.size)),
        "transformers": str(library.__version__),
    }


def _candidates(
    asked: Asked,
    numbers: Mapping[str, int],
    scores_NK: Sequence[Sequence[float]],
    boxes_NK4: Sequence[Sequence[Sequence[float]]],
) -> Iterator[Iterator[Candidate]]:
    width, height = asked.image.size
    across, down = max(width, height) / width, max(width, height) / height  # of the padded square
    for number in range(len(asked.spans)):
        if _words(asked, number) in numbers:
            boxes = [
                (x * across, y * down, w * across, h * down) for x, y, w, h in boxes_NK4[number]
            ]
            yield candidates(number, scores_NK[number], boxes)


def _words(asked: Asked, number: int) -> str:
    start, end = asked.spans[number]
    return asked.caption[start:end]
