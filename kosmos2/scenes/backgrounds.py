"""Backgrounds: gradients, smooth noise, horizons and textures; photographs for one split."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from kosmos2.scenes.gallery import Pixels

_COARSE = 24


def procedural(size: int, rng: Generator) -> Pixels:
    """Return a made-up background of one of the four kinds."""
    kinds = (_gradient, _noise, _horizon, _texture)
    coarse = kinds[int(rng.integers(len(kinds)))](rng)
    image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    smooth = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    grain = rng.integers(-4, 5, (size, size, 1), dtype=np.int16)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def photographed(photos: Sequence[Pixels], size: int, rng: Generator) -> Pixels:
    """Return a random crop of a photograph."""
    photo = photos[int(rng.integers(len(photos)))]
    height, width = photo.shape[:2]
    side = int(min(height, width) * rng.uniform(0.6, 1.0))
    x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    crop = Image.fromarray(np.ascontiguousarray(photo[y : y + side, x : x + side]))
    return np.asarray(crop.resize((size, size)))


def _colour(rng: Generator) -> NDArray[np.float64]:
    """Return a colour; pale ones are the more frequent."""
    base = rng.uniform(30, 255, 3)
    return np.asarray(base + (235 - base) * rng.uniform(0, 0.9))


def _grid() -> NDArray[np.float64]:
    return np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, _COARSE)] * 2), axis=-1)


def _gradient(rng: Generator) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi)
    along = _grid() @ np.array([np.cos(angle), np.sin(angle)]) / 1.42 + 0.5
    return np.asarray(_colour(rng) * (1 - along[..., None]) + _colour(rng) * along[..., None])


def _noise(rng: Generator) -> NDArray[np.float64]:
    cells = int(rng.integers(3, 9))
    coarse = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
    smooth = coarse.resize((_COARSE, _COARSE), Image.Resampling.BICUBIC)
    along = np.asarray(smooth)[..., None] / 255
    return _colour(rng) * (1 - along) + _colour(rng) * along


def _horizon(rng: Generator) -> NDArray[np.float64]:
    height = rng.uniform(-0.25, 0.35)
    y = _grid()[..., 1:]
    sky = _colour(rng) + (255 - _colour(rng)) * (y + 0.5) * 0.4
    ground = _colour(rng) * (0.7 + 0.3 * (y + 0.5))
    below = np.clip((y - height) * _COARSE, 0, 1)
    return np.asarray(sky * (1 - below) + ground * below)


def _texture(rng: Generator) -> NDArray[np.float64]:
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(3, 9)
    along = _grid() @ np.array([np.cos(angle), np.sin(angle)])
    across = _grid() @ np.array([-np.sin(angle), np.cos(angle)])
    wave = np.sin(2 * np.pi * frequency * along)
    if rng.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * frequency * across)
    strength = rng.uniform(8, 28)
    noise = rng.normal(0, 5, (_COARSE, _COARSE, 1))
    return np.asarray(_colour(rng) + strength * wave[..., None] + noise)
