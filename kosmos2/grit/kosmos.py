"""Kosmos-2 itself as a detector: it writes the boxes of given phrases into a given caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from kosmos2.api import Kosmos2, Settings, questions
from kosmos2.api.loading import precision_of
from kosmos2.api.questions import Question
from kosmos2.api.replies import Caption
from kosmos2.errors import ConfigError, RequestError
from kosmos2.grit.detectors import Asked, Refused, Span
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Detection
from kosmos2.grit.running import device_named
from kosmos2.weights.pretrained import resolve, weights_hash


class Kosmos2Detector:
    """Grounds all phrases of a caption in one pass; pictures of a call are answered together."""

    score = (
        "mean over a box's two corners of the probability of the location token's 3 x 3 "
        "neighbourhood"
    )

    def __init__(self, model: Kosmos2, identity: Mapping[str, str]) -> None:
        self._model = model
        self._identity = identity

    @property
    def identity(self) -> Mapping[str, str]:
        return self._identity

    def detect(self, asked: Sequence[Asked]) -> list[list[Candidate] | Refused]:
        """Return the boxes of each picture; what the model cannot read is refused with a reason."""
        questions_or_not = [self._question(each) for each in asked]
        able = [
            (each, question)
            for each, question in zip(asked, questions_or_not, strict=True)
            if not isinstance(question, Refused)
        ]
        views = self._model.look([each.image for each, _ in able])
        replies = iter(
            self._model.answer(
                [((view,), question) for view, (_, question) in zip(views, able, strict=True)]
            )
        )
        return [
            question if isinstance(question, Refused) else _candidates(each, next(replies))
            for each, question in zip(asked, questions_or_not, strict=True)
        ]

    def _question(self, asked: Asked) -> Question[Caption] | Refused:
        tokenizer = self._model.tokenizer
        try:
            return questions.ground_phrases(asked.caption, asked.spans, tokenizer)
        except RequestError:
            return Refused("the detector cannot read the caption")


def load(settings: Detection) -> Kosmos2Detector:
    """Return the detector of the embedded model, a folder, a `.pt` file or a hub name."""
    model = Kosmos2.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        settings=Settings(batch_size=settings.batch_size),
    )
    return Kosmos2Detector(model, identity(settings))


def identity(settings: Detection) -> Mapping[str, str]:
    """Return what boxes depend on; reads the files of the model, loads no weights."""
    path, device = resolve(settings.model), device_named(settings.device)
    if settings.dtype == "auto" and device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"detection.dtype is auto and detection.device {device}, which is not on this machine: "
            "what it computes best in cannot be asked here. Name it: detection.dtype = bf16 (or "
            "fp16, fp32)."
        )
    return {
        "detector": "kosmos2",
        "model": settings.model,
        "weights": weights_hash(path),
        "precision": str(precision_of(path, settings.dtype, device)),
    }


def _candidates(asked: Asked, reply: Caption) -> list[Candidate]:
    shift = len(asked.caption) - len(asked.caption.lstrip())  # an answer has no outer blanks
    return [
        Candidate(phrase=_nearest((start, end), asked.spans), box=box, score=score)
        for start, end, boxes, scores in (
            (each.start + shift, each.end + shift, each.boxes, each.scores)
            for each in reply.phrases
        )
        for box, score in zip(boxes, scores, strict=True)
    ]


def _nearest(span: Span, spans: Sequence[Span]) -> int:
    """Return the span that shares most with one that has grown to whole tokens."""
    shared = [min(span[1], end) - max(span[0], start) for start, end in spans]
    return max(range(len(spans)), key=shared.__getitem__)
