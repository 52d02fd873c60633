"""Drawn shapes in place of the downloaded artwork: no scene test needs the cache."""

import numpy as np
from PIL import Image, ImageDraw

from kosmos2.scenes.gallery import Sprite, Sprites
from kosmos2.scenes.recipe import SceneRecipe
from kosmos2.scenes.sprites import HELD_OUT_STYLES, TRAINING_STYLES

NOUNS = (
    "car",
    "balloon",
    "book",
    "umbrella",
    "dog",
    "apple",
    "hourglass",
    "unicorn",
    "pair of scissors",
    "sheep",
)
PAINTS = ((200, 40, 30), (40, 60, 190), (30, 150, 60))


def recipe(**changes: object) -> SceneRecipe:
    fields: dict[str, object] = {
        "size": 64,
        "nouns": NOUNS,
        "styles": TRAINING_STYLES[:2],
        "seed": 3,
        **changes,
    }
    return SceneRecipe(**fields)  # type: ignore[arg-type]


def _drawing(number: int) -> Image.Image:
    """An ellipse, a triangle or a ring in one of three paints, touching its borders."""
    size = (40 + 5 * (number % 4), 40)
    image = Image.new("RGBA", size)
    draw, last = ImageDraw.Draw(image), (size[0] - 1, size[1] - 1)
    paint = PAINTS[number % len(PAINTS)]
    if number % 3 == 0:
        draw.ellipse((0, 0, *last), fill=paint)
    elif number % 3 == 1:
        draw.polygon([(0, last[1]), (last[0] // 2, 0), last], fill=paint)
    else:
        draw.rectangle((0, 0, *last), outline=paint, width=9)
    return image


def shapes() -> Sprites:
    styles = (*TRAINING_STYLES[:2], HELD_OUT_STYLES[1])
    keys = [(noun, style) for noun in NOUNS for style in styles]
    drawings = {
        key: (Sprite.from_rgba(_drawing(number), side=64),) for number, key in enumerate(keys)
    }
    ramp = np.tile(np.arange(80, dtype=np.uint8)[:, None, None], (1, 100, 3))
    return Sprites(drawings, photos=(ramp,))
