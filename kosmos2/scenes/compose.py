"""Draw a scene: choose groups of things, place them apart, paint them over a background.

A thing's box is the extent of its visible alpha after scaling, rotation and flip: exact by
construction. Nothing here knows words beyond nouns and colour names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from kosmos2.scenes.gallery import Pixels, Sprite, Sprites, recoloured
from kosmos2.scenes.nouns import Noun
from kosmos2.scenes.recipe import SceneRecipe
from kosmos2.scenes.splits import permits
from kosmos2.scenes.sprites import VISIBLE

COLOURS = {
    "red": (253, 220, 215),
    "orange": (19, 235, 240),
    "yellow": (36, 225, 250),
    "green": (88, 190, 165),
    "blue": (152, 205, 220),
    "purple": (196, 160, 175),
    "pink": (232, 115, 248),
}
"""Name → hue, saturation, value of 256, as PIL counts them."""

MAX_OVERLAP = 0.1
"""Largest share of the smaller of two boxes that the other may cover."""
MAX_TILT = 12.0
SAME_NOUN_SHARE = 0.25
"""Share of scenes with several groups in which two groups differ by an attribute alone."""

Corners = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A thing ready to paint: RGBA pixels cut to their visible extent, and their place."""

    pixels: Pixels
    x: int
    y: int

    @property
    def corners(self) -> Corners:
        height, width = self.pixels.shape[:2]
        return (self.x, self.y, self.x + width, self.y + height)

    @property
    def area(self) -> int:
        height, width = self.pixels.shape[:2]
        return int(height * width)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One group before it is drawn: what, how many, how big."""

    noun: Noun
    sprites: tuple[Sprite, ...]
    """One drawing for each of its things."""
    sides: tuple[float, ...]
    """Longer side of each thing as a share of the picture."""
    colour: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """One group as it stands in the picture, its things from left to right."""

    noun: Noun
    colour: str | None
    layers: tuple[Layer, ...]

    @property
    def area(self) -> int:
        return sum(layer.area for layer in self.layers)


def plan_groups(
    recipe: SceneRecipe, nouns: Sequence[Noun], sprites: Sprites, rng: Generator
) -> list[Plan]:
    """Choose the groups of a scene. Combinations held out from the split are not chosen."""
    num_groups = int(rng.integers(1, recipe.max_groups + 1))
    chosen = [_choose_noun(nouns, recipe, rng) for _ in range(num_groups)]
    twins = num_groups > 1 and rng.random() < SAME_NOUN_SHARE
    if twins:
        chosen[1] = chosen[0]
    names = [noun.singular for noun in chosen]
    if len(set(names)) < num_groups - twins:
        chosen = list({noun.singular: noun for noun in chosen}.values())  # said once
        twins = False

    counts = [_choose_count(noun, recipe, rng) for noun in chosen]
    ranges = _side_ranges(recipe, sum(counts), rng, len(chosen))
    if twins:
        ranges[0], ranges[1] = recipe.small_sides, recipe.large_sides
    colours: list[str | None] = []
    plans = []
    for noun, count, sides in zip(chosen, counts, ranges, strict=True):
        drawings = _choose_sprites(sprites.of(noun.singular, recipe.styles), count, rng)
        colour = _choose_colour(noun, drawings, colours, recipe, rng)
        colours.append(colour)
        base = rng.uniform(*sides)
        each = tuple(float(np.clip(base * rng.uniform(0.88, 1.12), *sides)) for _ in range(count))
        plans.append(Plan(noun, drawings, each, colour))
    return plans


def draw_groups(plans: Sequence[Plan], size: int, rng: Generator) -> tuple[Drawn, ...] | None:
    """Return the groups in place, largest total area first; None when they do not fit."""
    cut = [_cut_group(plan, size, rng) for plan in plans]
    order = sorted(
        ((group, thing) for group, things in enumerate(cut) for thing in range(len(things))),
        key=lambda key: -cut[key[0]][key[1]].area,
    )
    placed: list[Corners] = []
    layers: list[list[Layer]] = [[] for _ in plans]
    for group, thing in order:
        layer = _place(cut[group][thing], placed, size, rng)
        if layer is None:
            return None
        placed.append(layer.corners)
        layers[group].append(layer)
    drawn = [
        Drawn(plan.noun, plan.colour, tuple(sorted(things, key=_center_x)))
        for plan, things in zip(plans, layers, strict=True)
    ]
    return tuple(sorted(drawn, key=lambda group: -group.area))


def paint(background: Pixels, groups: Sequence[Drawn], *, shadow: float) -> Pixels:
    """Return the picture: things over the background, each with a soft shadow of this strength."""
    canvas = background.astype(np.float32)
    layers = sorted((x for group in groups for x in group.layers), key=lambda layer: -layer.area)
    for layer in layers:
        if shadow > 0:
            _darken(canvas, layer, shadow)
        alpha = layer.pixels[..., 3:].astype(np.float32) / 255
        x0, y0, x1, y1 = layer.corners
        part = canvas[y0:y1, x0:x1]
        part += (layer.pixels[..., :3] - part) * alpha
    return np.rint(canvas).astype(np.uint8)


def _choose_noun(nouns: Sequence[Noun], recipe: SceneRecipe, rng: Generator) -> Noun:
    if rng.random() < recipe.colour_share:
        coloured = [noun for noun in nouns if noun.recolourable]
        nouns = coloured or nouns
    return nouns[int(rng.integers(len(nouns)))]


def _choose_count(noun: Noun, recipe: SceneRecipe, rng: Generator) -> int:
    if rng.random() < recipe.single_share:
        return 1
    count = int(rng.integers(1, recipe.max_instances + 1))
    return count if permits(recipe.split, ("count", noun.singular, str(count))) else 1


def _choose_sprites(drawings: tuple[Sprite, ...], count: int, rng: Generator) -> tuple[Sprite, ...]:
    first = drawings[int(rng.integers(len(drawings)))]
    if rng.random() < 0.6:
        return (first,) * count
    others = tuple(drawings[int(rng.integers(len(drawings)))] for _ in range(count - 1))
    return (first, *others)


def _choose_colour(
    noun: Noun,
    drawings: Sequence[Sprite],
    taken: Sequence[str | None],
    recipe: SceneRecipe,
    rng: Generator,
) -> str | None:
    if not noun.recolourable or any(drawing.hue is None for drawing in drawings):
        return None
    free = [
        colour
        for colour in COLOURS
        if colour not in taken and permits(recipe.split, ("colour", noun.singular, colour))
    ]
    if not free or rng.random() < 0.15:
        return None
    return free[int(rng.integers(len(free)))]


def _side_ranges(
    recipe: SceneRecipe, num_things: int, rng: Generator, num_groups: int
) -> list[tuple[float, float]]:
    """Return a range of sides per group: small, middle or large, never on a border between."""
    if num_things == 1:
        low = recipe.small_sides[0] if rng.random() < 0.3 else recipe.middle_sides[0]
        return [(low, recipe.max_single_side)]
    cap = max(recipe.small_sides[1], min(recipe.max_side, 1.05 / math.sqrt(num_things)))
    fitting = [
        (low, min(high, cap))
        for low, high in (recipe.small_sides, recipe.middle_sides, recipe.large_sides)
        if low < cap
    ]
    return [fitting[int(rng.integers(len(fitting)))] for _ in range(num_groups)]


def _cut_group(plan: Plan, size: int, rng: Generator) -> list[Layer]:
    """Return the group's things scaled, tilted, perhaps flipped, each at the origin."""
    painted: dict[tuple[int, int], Pixels] = {}
    layers = []
    for sprite, side in zip(plan.sprites, plan.sides, strict=True):
        level = sprite.level(side * size)
        if plan.colour is not None:
            assert sprite.hue is not None
            key = (id(sprite), level.shape[0])
            if key not in painted:
                painted[key] = recoloured(level, sprite.hue, COLOURS[plan.colour])
            level = painted[key]
        layers.append(_cut(level, side * size, rng))
    return layers


def _cut(drawing: Pixels, side: float, rng: Generator) -> Layer:
    angle = math.radians(rng.uniform(-MAX_TILT, MAX_TILT))
    flip = -1 if rng.random() < 0.5 else 1
    pixels = _transformed(drawing, side, angle, flip)
    visible = pixels[..., 3] >= VISIBLE
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    cut = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Layer(cut, 0, 0)


def _transformed(pixels: Pixels, side: float, angle: float, flip: int) -> Pixels:
    height, width = pixels.shape[0] - 2, pixels.shape[1] - 2  # without the clear border
    cos, sin = math.cos(angle), math.sin(angle)
    full_width = width * cos + height * abs(sin)
    full_height = height * cos + width * abs(sin)
    scale = side / max(full_width, full_height)
    out_width, out_height = math.ceil(full_width * scale) + 2, math.ceil(full_height * scale) + 2
    # PIL wants the way from a pixel of the result back to one of the source; the clear border
    # of the source lets its edges fade instead of breaking off.
    a, b, d, e = flip * cos / scale, flip * sin / scale, -sin / scale, cos / scale
    c = width / 2 + 1 - a * out_width / 2 - b * out_height / 2
    f = height / 2 + 1 - d * out_width / 2 - e * out_height / 2
    image = Image.fromarray(pixels).transform(
        (out_width, out_height),
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(image)


def _place(layer: Layer, placed: Sequence[Corners], size: int, rng: Generator) -> Layer | None:
    height, width = layer.pixels.shape[:2]
    if width > size or height > size:
        return None
    for x_share, y_share in rng.random((25, 2)).tolist():
        x, y = int(x_share * (size - width + 1)), int(y_share * (size - height + 1))
        corners = (x, y, x + width, y + height)
        if all(overlap(corners, other) < MAX_OVERLAP for other in placed):
            return replace(layer, x=x, y=y)
    return None


def overlap(a: Corners, b: Corners) -> float:
    """Return the shared area as a share of the smaller one."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller


def _center_x(layer: Layer) -> float:
    x0, y0, x1, _ = layer.corners
    return x0 + x1 + y0 * 1e-6


def _darken(
    canvas: np.ndarray[tuple[int, ...], np.dtype[np.float32]], layer: Layer, by: float
) -> None:
    height, width = layer.pixels.shape[:2]
    reach = max(1, max(height, width) // 12)
    alpha = np.zeros((height + 2 * reach, width + 2 * reach), np.uint8)
    alpha[reach:-reach, reach:-reach] = layer.pixels[..., 3]
    small = Image.fromarray(alpha).reduce(2)
    soft = small.filter(ImageFilter.BoxBlur(reach / 3)).resize(alpha.shape[::-1])
    x0, y0 = layer.x - reach // 2, layer.y  # down and a little to the right
    x1, y1 = x0 + alpha.shape[1], y0 + alpha.shape[0]
    left, top = max(0, -x0), max(0, -y0)
    part = canvas[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
    shade = np.asarray(soft)[top : top + part.shape[0], left : left + part.shape[1], None]
    part *= 1 - shade.astype(np.float32) * (by / 255)
