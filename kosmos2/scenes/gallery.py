"""Drawings in memory: every sprite as a small pyramid of RGBA arrays, with the hue it can lose."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kosmos2.errors import SceneError
from kosmos2.scenes.nouns import find_nouns
from kosmos2.scenes.sprites import ARCHIVE, VISIBLE

Pixels = NDArray[np.uint8]

SMALLEST_LEVEL = 32
HUE_REACH = 28
"""Distance on the hue circle of 256 within which a pixel has the sprite's own colour."""
COLOURED = 70
"""Saturation (of 255) from which a pixel has a colour at all."""
OWN_COLOUR_SHARE = 0.45


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """One drawing, trimmed to its alpha box, at falling sizes; a clear pixel all round each."""

    levels: tuple[Pixels, ...]
    hue: int | None
    """The hue (of 256) that most of its pixels share; None when it has no such colour."""

    @classmethod
    def from_rgba(cls, image: Image.Image, *, side: int) -> "Sprite":
        """Return the sprite whose largest level has `side` pixels at its longer side."""
        levels: list[Pixels] = []
        while not levels or side >= SMALLEST_LEVEL:
            scale = side / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            small = np.asarray(image.resize(size, Image.Resampling.BOX))
            levels.append(np.pad(small, ((1, 1), (1, 1), (0, 0))))
            side //= 2
        return cls(tuple(levels), _own_hue(levels[-1]))

    def level(self, side: float) -> Pixels:
        """Return the smallest pixels that need not be enlarged to this side, or the largest."""
        fitting = (x for x in reversed(self.levels) if max(x.shape) - 2 >= side)
        return next(fitting, self.levels[0])


@dataclass(frozen=True, slots=True, eq=False)
class Sprites:
    """The drawings of some nouns in some styles, and the photographs of the held-out split."""

    drawings: Mapping[tuple[str, str], tuple[Sprite, ...]]
    """(noun, style) → its drawings."""
    photos: tuple[Pixels, ...] = ()

    @classmethod
    def load(
        cls, cache: Path, *, styles: Sequence[str], nouns: tuple[str, ...], side: int = 128
    ) -> "Sprites":
        """Read drawings from the file that `sprites.prepare` made. The largest level: `side`."""
        path = cache / ARCHIVE
        if not path.is_file():
            raise SceneError(f"no artwork in {cache}; make it once with `kosmos2 scenes prepare`")
        drawings = {}
        with zipfile.ZipFile(path) as archive:
            _check_styles(archive, styles)
            for noun in find_nouns(nouns):
                for style in styles:
                    codes = noun.sprites.get(style, ())
                    found = [_read(archive, f"{style}/{code}.png") for code in codes]
                    drawings[noun.singular, style] = tuple(
                        Sprite.from_rgba(image.convert("RGBA"), side=side) for image in found
                    )
            photos = [_read(archive, n) for n in archive.namelist() if n.startswith("photos/")]
        return cls(drawings, tuple(np.asarray(photo.convert("RGB")) for photo in photos))

    def of(self, noun: str, styles: Iterable[str]) -> tuple[Sprite, ...]:
        """Return the drawings of a noun in these styles."""
        return tuple(s for style in styles for s in self.drawings.get((noun, style), ()))


def recoloured(pixels: Pixels, hue: int, colour: tuple[int, int, int]) -> Pixels:
    """Return RGBA pixels whose own-coloured part has the hue and mean strength of `colour`."""
    hsv = np.array(Image.fromarray(pixels[..., :3]).convert("HSV"))
    own = _own(hsv, hue) & (pixels[..., 3] > 0)
    target_hue, saturation, value = colour
    part = hsv[own].astype(np.float32)
    part[:, 0] = target_hue
    part[:, 1] *= saturation / max(1.0, float(part[:, 1].mean())) if part.size else 1
    part[:, 2] *= value / max(1.0, float(part[:, 2].mean())) if part.size else 1
    hsv[own] = np.minimum(part, 255).astype(np.uint8)
    rgb = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB"))
    return np.dstack([rgb, pixels[..., 3]])


def _own(hsv: Pixels, hue: int) -> NDArray[np.bool_]:
    distance = np.abs((hsv[..., 0].astype(np.int16) - hue + 128) % 256 - 128)
    return (distance <= HUE_REACH) & (hsv[..., 1] >= COLOURED)


def _own_hue(pixels: Pixels) -> int | None:
    visible = pixels[..., 3] >= VISIBLE
    hsv = np.asarray(Image.fromarray(np.ascontiguousarray(pixels[..., :3])).convert("HSV"))
    hues = hsv[visible & (hsv[..., 1] >= COLOURED)][:, 0]
    if not hues.size:
        return None
    histogram = np.bincount(hues, minlength=256)
    smooth = sum(np.roll(histogram, shift) for shift in range(-HUE_REACH // 2, HUE_REACH // 2 + 1))
    hue = int(np.argmax(smooth))
    share = (_own(hsv, hue) & visible).sum() / visible.sum()
    return hue if share >= OWN_COLOUR_SHARE else None


def _read(archive: zipfile.ZipFile, name: str) -> Image.Image:
    return Image.open(io.BytesIO(archive.read(name)))


def _check_styles(archive: zipfile.ZipFile, styles: Sequence[str]) -> None:
    sources = json.loads(archive.read("index.json"))["sources"]
    there = [source["style"] for source in sources if "style" in source]
    unknown = [style for style in styles if style not in there]
    if unknown:
        raise SceneError(f"the cache has no style {unknown}; it has {there}")
