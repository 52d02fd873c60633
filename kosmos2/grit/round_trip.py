"""There and back: Kosmos-2 describes a box, finds its own description, and the boxes are compared.

Both are asked freely, without the caption: a box that comes back is one that words lead to. Boxes
of thin or tiny things lose by the grid of 32 x 32 cells that the model writes boxes with.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from PIL import Image

from kosmos2.api import Kosmos2, Settings, questions
from kosmos2.boxes import Box, iou
from kosmos2.grit.recipe import Quality

LONGEST = 64
"""Tokens of a description: one that goes on tells nothing apart any more."""


class RoundTrip:
    """Two calls of the engine, whatever the number of pictures and boxes."""

    def __init__(self, model: Kosmos2) -> None:
        self._model = model

    def measure(
        self, images: Sequence[Image.Image], boxes: Sequence[Sequence[Box]]
    ) -> list[list[float]]:
        """Return the IoU of each normalised box of each picture with the surest box found again.

        It is 0 where there is no description, or where that leads to no box.
        """
        views = self._model.look(list(images))
        asked = [(view, box) for view, own in zip(views, boxes, strict=True) for box in own]
        grid, vocabulary = self._model.tokenizer.grid, self._model.tokenizer.vocabulary
        described = self._model.answer(
            [((view,), questions.describe(box, grid)) for view, box in asked]
        )
        phrases = [reply.text.strip() for reply in described]
        found = iter(
            self._model.answer(
                [
                    ((view,), questions.find(phrase, vocabulary))
                    for (view, _), phrase in zip(asked, phrases, strict=True)
                    if phrase
                ]
            )
        )
        back = [next(found).boxes if phrase else () for phrase in phrases]
        values = (
            iou(box, again[0]) if again else 0.0
            for (_, box), again in zip(asked, back, strict=True)
        )
        return [list(islice(values, len(own))) for own in boxes]


def load(quality: Quality) -> RoundTrip:
    """Return the model of `quality.round_trip`, ready on its device."""
    settings = Settings(batch_size=quality.batch_size, max_new_tokens=LONGEST)
    model = Kosmos2.load(
        quality.round_trip, device=quality.device, dtype=quality.dtype, settings=settings
    )
    return RoundTrip(model)
