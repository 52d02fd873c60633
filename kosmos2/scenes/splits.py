"""What training never sees: combinations by a stable hash, styles and photographs by name."""

import hashlib
from typing import Literal, get_args

from kosmos2.errors import SceneError
from kosmos2.scenes.sprites import HELD_OUT_STYLES

Split = Literal["train", "iid", "combo", "background", "style"]
SPLITS: tuple[Split, ...] = get_args(Split)

Combination = tuple[str, ...]
"""("colour", noun, colour), ("count", noun, "2") or ("relation", noun, relation, noun)."""

_PERCENT_HELD_OUT = {"colour": 20, "count": 10, "relation": 10}
_MIRRORED = {"to the right of": "to the left of", "below": "above"}


def split_number(split: str) -> int:
    """Return the number that keeps the random streams of the splits apart."""
    if split not in SPLITS:
        raise SceneError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    return SPLITS.index(split)


def check_styles(split: str, styles: tuple[str, ...]) -> None:
    """Refuse held-out artwork everywhere but in the split that is made of it."""
    held_out = [style for style in styles if style in HELD_OUT_STYLES]
    if split == "style" and len(held_out) < len(styles):
        raise SceneError(f"split 'style' takes only {HELD_OUT_STYLES}, got {styles}")
    if split != "style" and held_out:
        raise SceneError(f"split {split!r} may not use the held-out styles {held_out}")


def relation_combination(first: str, relation: str, second: str) -> Combination:
    """Return one name for "a left of b" and "b right of a", and for both orders of "next to"."""
    if relation in _MIRRORED:
        first, relation, second = second, _MIRRORED[relation], first
    elif relation == "next to" and second < first:
        first, second = second, first
    return ("relation", first, relation, second)


def is_held_out(combination: Combination) -> bool:
    """Return whether training must never see this combination; the same on every machine."""
    if combination[0] == "count" and combination[2] == "1":
        return False  # every noun is learnt from single ones
    digest = hashlib.blake2b("|".join(combination).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < _PERCENT_HELD_OUT[combination[0]]


def permits(split: str, combination: Combination) -> bool:
    """Return whether a scene of this split may show or say the combination."""
    return split == "combo" or not is_held_out(combination)
