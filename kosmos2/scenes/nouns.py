"""The nouns that scenes can show, and the English that goes with each of them.

One record of `nouns.json` (code points name the drawings of each artwork style):

    {"noun": "car", "plural": "cars", "category": "vehicle", "set": "starter", "recolour": true,
     "sprites": {"noto": ["1f697"], "noto-v1": ["1f697"], "twemoji": ["1f697"], ...}}

Sets nest: `starter` (easy to tell apart) is part of `core` (drawn in most styles, no
confusable pairs), which is part of `all`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType

from kosmos2.errors import SceneError

SETS = ("starter", "core", "all")
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_AN_IN_SPITE_OF_A_CONSONANT = ("hour", "honest", "heir")
_A_IN_SPITE_OF_A_VOWEL = ("uni", "use", "ute", "eu", "one", "ukulele")


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    singular: str
    plural: str
    category: str
    smallest_set: str
    recolourable: bool
    sprites: Mapping[str, tuple[str, ...]]
    """Style → code points of its drawings, as in `1f408-200d-2b1b`."""

    def counted(self, count: int) -> str:
        return self.singular if count == 1 else self.plural


def article(words: str) -> str:
    """Return "a" or "an", as the first of the words is spoken."""
    first = words.lower()
    if first.startswith(_AN_IN_SPITE_OF_A_CONSONANT):
        return "an"
    if first.startswith(_A_IN_SPITE_OF_A_VOWEL):
        return "a"
    return "an" if first[0] in "aeiou" else "a"


@cache
def all_nouns() -> Mapping[str, Noun]:
    """Return every noun of the package by its singular, in the order of the file."""
    text = resources.files("kosmos2.scenes").joinpath("nouns.json").read_text(encoding="utf-8")
    nouns = {
        record["noun"]: Noun(
            singular=record["noun"],
            plural=record["plural"],
            category=record["category"],
            smallest_set=record["set"],
            recolourable=record["recolour"],
            sprites={style: tuple(codes) for style, codes in record["sprites"].items()},
        )
        for record in json.loads(text)
    }
    return MappingProxyType(nouns)


def noun_set(name: str) -> tuple[str, ...]:
    """Return the singulars of one of the nested sets."""
    if name not in SETS:
        raise SceneError(f"there is no noun set {name!r}; choose one of {', '.join(SETS)}")
    wanted = SETS[: SETS.index(name) + 1]
    return tuple(noun.singular for noun in all_nouns().values() if noun.smallest_set in wanted)


def find_nouns(singulars: tuple[str, ...]) -> tuple[Noun, ...]:
    """Return the nouns of these names."""
    known = all_nouns()
    unknown = [name for name in singulars if name not in known]
    if unknown:
        raise SceneError(f"no such nouns: {unknown[:5]}; the names stand in scenes/nouns.json")
    return tuple(known[name] for name in singulars)
