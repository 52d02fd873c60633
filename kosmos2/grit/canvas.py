"""Pictures of many shapes into batches of equal ones, as Grounding DINO's checkpoints want them.

A picture is scaled as its checkpoint says and padded, right and below, to whole cells of 32 pixels:
a size that depends on no other picture. Only pictures of one such size share a batch, because the
network's norms and windows see the padding: with a neighbour's, its boxes would change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kosmos2.errors import ConfigError
from kosmos2.grit.running import Foreign

CELL = 32
"""Pixels; the stride of the coarsest feature map of the backbone."""

Size = tuple[int, int]
"""Height, width in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How a checkpoint's pictures are made: its `preprocessor_config.json`."""

    shortest: int = 800
    longest: int = 1333
    """Pixels of the shorter side, unless the longer one would pass this."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Of channels between 0 and 1."""
    resample: int = Image.Resampling.BILINEAR

    @classmethod
    def of(cls, processor: Foreign) -> Scaling:
        """Return what an image processor of transformers does."""
        size: Mapping[str, int] = dict(processor.size)
        shortest, longest = size.get("shortest_edge"), size.get("longest_edge")
        plain = abs(processor.rescale_factor * 255 - 1) < 1e-6
        if not (shortest and longest and plain and processor.do_resize and processor.do_normalize):
            raise ConfigError(
                "this detector's preprocessor_config.json must scale pictures by shortest_edge and "
                f"longest_edge, divide by 255 and normalise; it has size = {size}, "
                f"rescale_factor = {processor.rescale_factor}"
            )
        return cls(
            shortest=shortest,
            longest=longest,
            mean=tuple(processor.image_mean),
            deviation=tuple(processor.image_std),
            resample=int(processor.resample),
        )

    def size(self, width: int, height: int) -> Size:
        """Return the height and width that a picture of this size is scaled to."""
        short, long = min(width, height), max(width, height)
        scaled: float = self.shortest
        if long / short * self.shortest > self.longest:
            scaled = self.longest * short / long
        if round(scaled) == short:
            return height, width
        # As transformers does: the short side is rounded, the long one cut off.
        sides = max(1, round(scaled)), max(1, int(scaled * long / short))
        return sides if height <= width else (sides[1], sides[0])

    def canvas(self, width: int, height: int) -> Size:
        """Return the height and width that a picture of this size is padded to, once scaled."""
        scaled = self.size(width, height)
        return -(-scaled[0] // CELL) * CELL, -(-scaled[1] // CELL) * CELL

    def draw(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return bytes_BYXC of pictures of one canvas and the mask_BYX of what is no padding."""
        canvases = {self.canvas(*image.size) for image in images}
        assert len(canvases) == 1, f"pictures of several canvases in a batch: {canvases}"
        (canvas,) = canvases
        bytes_BYXC = np.zeros((len(images), *canvas, 3), np.uint8)
        mask_BYX = np.zeros((len(images), *canvas), np.bool_)
        for image, bytes_YXC, mask_YX in zip(images, bytes_BYXC, mask_BYX, strict=True):
            height, width = self.size(*image.size)
            scaled = image.resize((width, height), self.resample)
            bytes_YXC[:height, :width] = np.asarray(scaled)
            mask_YX[:height, :width] = True
        return torch.from_numpy(bytes_BYXC), torch.from_numpy(mask_BYX)

    def normalise(self, bytes_BYXC: Tensor, mask_BYX: Tensor) -> Tensor:
        """Return pixels_BCYX; padding is zero."""
        mean_C = torch.tensor(self.mean, device=bytes_BYXC.device)
        deviation_C = torch.tensor(self.deviation, device=bytes_BYXC.device)
        pixels_BYXC = (bytes_BYXC.float() / 255 - mean_C) / deviation_C
        return (pixels_BYXC * mask_BYX[..., None]).permute(0, 3, 1, 2).contiguous()
