"""The noun that a phrase is about, as text alone tells it: "a group of young men" → "man".

The last word before the phrase goes on about other things, in the singular. Where a word counts
("a group of", "a pair of"), what is counted. A rule of ours, by which both sides are read.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
_GO_ON = """
    of in on at with by near next behind beside above below under over from for to into and or as
    like inside outside between through along against around who which that while is are wearing
    holding standing sitting riding carrying playing walking running
"""
_COUNT = "group pair couple bunch crowd lot number piece set variety row line stack pile team"
_GOES_ON, _COUNTS = frozenset(_GO_ON.split()), frozenset(_COUNT.split())
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "knives": "knife",
    "leaves": "leaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "scarves": "scarf",
    "loaves": "loaf",
    "calves": "calf",
}
_WITH_E = "movies cookies ties pies hoodies shoes toes canoes horseshoes axes"
_ENDS_IN_E = frozenset(_WITH_E.split())
"""Plurals that lose their last letter alone, against the rules below."""


def head(phrase: str) -> str:
    """Return the noun in small letters and the singular; "" of a phrase without words."""
    words = _WORD.findall(phrase.lower())
    taken: list[str] = []
    for place, word in enumerate(words):
        if taken and word in _GOES_ON:
            counts = singular(taken[-1]) in _COUNTS and word == "of"
            if counts and place + 1 < len(words):
                return head(" ".join(words[place + 1 :]))
            break
        taken.append(word)
    return singular(taken[-1].removesuffix("'s")) if taken else ""


def singular(word: str) -> str:
    """Return a noun in the singular, by the rules of English and a list of exceptions."""
    for plural, one in _IRREGULAR.items():
        if word.endswith(plural) and (word == plural or plural in ("men", "women", "people")):
            return word.removesuffix(plural) + one
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word in _ENDS_IN_E:
        return word[:-1]
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return word[:-2]
    return word[:-1]
