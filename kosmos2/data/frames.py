"""Pictures as the network reads them: 0..n squares of 8 bits, of whose patches nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from kosmos2 import images
from kosmos2.data.album import centre_crop
from kosmos2.data.collate import Pictures
from kosmos2.data.patches import unknown
from kosmos2.model.config import VisionConfig


@dataclass(frozen=True, slots=True)
class Frames:
    """Makes the pictures of rows for one vision tower."""

    vision: VisionConfig
    square: Literal["squash", "crop"]
    """crop: the middle square, as the published training did; all uses of a model squash."""

    def pictures(self, opened: Sequence[Image.Image]) -> Pictures:
        """Return the squares of upright RGB pictures, in their order."""
        size, side = self.vision.image_size, self.vision.patches_per_side
        squares = [images.to_tensor(np.asarray(self._square(image))) for image in opened]
        patches, count = unknown(side), len(squares)
        return Pictures(
            torch.stack(squares) if squares else torch.zeros(0, 3, size, size, dtype=torch.uint8),
            patches.noun_P.expand(count, -1),
            patches.sides_P4.expand(count, -1, -1),
        )

    def _square(self, image: Image.Image) -> Image.Image:
        cut = centre_crop if self.square == "crop" else images.to_square
        return cut(image, self.vision.image_size)
