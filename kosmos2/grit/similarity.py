"""How alike a picture and its caption are, by any CLIP or SigLIP of transformers.

Dimension letters: B pairs, D width of the space that pictures and texts share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image

from kosmos2.api.loading import choose_device
from kosmos2.errors import ConfigError, RequestError
from kosmos2.grit.recipe import Quality
from kosmos2.grit.running import (
    DTYPES,
    Foreign,
    ahead,
    choose_dtype,
    computing_in,
    device_named,
    of_files,
    pretrained,
    transformers,
)

KEY = "quality.similarity"


class Similarity:
    """The cosine of the two towers' features; a caption over the text limit is cut off."""

    def __init__(
        self, model: Foreign, tokenizer: Foreign, processor: Foreign, quality: Quality
    ) -> None:
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise ConfigError(
                f"{KEY} is a {model.config.model_type}, which has no features of pictures and "
                "texts to compare: name a CLIP or SigLIP"
            )
        self._device = choose_device(quality.device)
        self._dtype = choose_dtype(quality.dtype, self._device)
        self._model = model.eval().to(self._device, torch.float32)
        self._tokenizer = tokenizer
        self._processor = processor
        self._batch_size = quality.batch_size
        self._longest: int = model.config.text_config.max_position_embeddings
        # SigLIP's text tower was trained to read the padding, and without a mask.
        self._masked = "siglip" not in model.config.model_type

    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        """Return the cosine of each upright RGB picture with its caption, -1 to 1."""
        pairs = list(zip(images, captions, strict=True))
        size = self._batch_size
        batches = (pairs[start : start + size] for start in range(0, len(pairs), size))
        return [
            score for batch, drawn in ahead(batches, self._draw) for score in self._forward(drawn)
        ]

    def _draw(self, batch: Sequence[tuple[Image.Image, str]]) -> dict[str, Foreign]:
        seen = self._processor(images=[image for image, _ in batch], return_tensors="pt")
        read = self._tokenizer(
            [caption for _, caption in batch],
            padding="max_length",  # never a neighbour's length
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        )
        wanted = ("input_ids", "attention_mask") if self._masked else ("input_ids",)
        return {**seen, **{name: read[name] for name in wanted if name in read}}

    @torch.inference_mode()
    def _forward(self, drawn: dict[str, Foreign]) -> list[float]:
        inputs = {name: value.to(self._device) for name, value in drawn.items()}
        with computing_in(self._dtype, self._device):
            output = self._model(**inputs)
        cosine_B = torch.nn.functional.cosine_similarity(
            output.image_embeds.float(), output.text_embeds.float()
        )
        if not cosine_B.isfinite().all():
            raise RequestError(
                f"{KEY}: the model computed numbers that are not finite; with quality.dtype = "
                "fp16 this is too large a number: use bf16 or fp32"
            )
        scores: list[float] = cosine_B.tolist()
        return scores


def identity(quality: Quality) -> Mapping[str, str]:
    """Return what the numbers depend on; reads the weights' files, loads nothing."""
    kind = choose_dtype(quality.dtype, device_named(quality.device))
    return {
        "model": quality.similarity,
        **of_files(quality.similarity, KEY),
        "precision": next(name for name, dtype in DTYPES.items() if dtype == kind),
        "transformers": str(transformers().__version__),
    }


def load(quality: Quality) -> Similarity:
    """Return the model of a folder or a hub name, ready on its device."""
    library = transformers()
    model = pretrained(library.AutoModel, quality.similarity, KEY)
    tokenizer = pretrained(library.AutoTokenizer, quality.similarity, KEY)
    processor = pretrained(library.AutoImageProcessor, quality.similarity, KEY)
    return Similarity(model, tokenizer, processor, quality)
