"""From a parsed caption to its phrases: noun chunks worth looking for, each with the referring
expression that it grows into.

The rule of the authors (Kosmos-2 paper, section 2; microsoft/unilm issues 1171 and 1421), with the
details that the paper leaves open chosen so that the published records come out (`tests/grit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kosmos2.grit.parse import Chunk, Parse
from kosmos2.grit.recipe import Phrases

SENTENCE_ENDS = ".!?;"
DANGLING = ("cc", "prep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A noun chunk and its referring expression, as characters [start, end) of the caption."""

    chunk: tuple[int, int]
    expression: tuple[int, int]
    """Contains the chunk; equal to it where nothing is added."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A noun chunk that is not looked for, and why."""

    words: str
    reason: str


def phrases(parse: Parse, rules: Phrases) -> Iterator[Phrase | Dropped]:
    """Yield every noun chunk of a caption in order: a phrase, or why it is none."""
    for chunk in parse.chunks:
        if reason := _why_not(parse, chunk, rules):
            yield Dropped(parse.words(chunk.first, chunk.stop), reason)
        else:
            yield Phrase(
                chunk=parse.characters(chunk.first, chunk.stop),
                expression=parse.characters(*expression(parse, chunk, rules)),
            )


def expression(parse: Parse, chunk: Chunk, rules: Phrases) -> tuple[int, int]:
    """Return the tokens [first, stop) of the referring expression of a chunk.

    All that hangs on the chunk's root, unless the chunk is one of several joined by "and": then
    the chunk alone, because what follows may belong to all of them.
    """
    if _is_coordinated(parse, chunk.root):
        return chunk.first, chunk.stop
    left, right = parse.edges(chunk.root)
    first, stop = min(left, chunk.first), max(right + 1, chunk.stop)
    for index in range(chunk.stop, stop):
        if parse.tokens[index].text in SENTENCE_ENDS:
            stop = index  # a parser sometimes hangs the next sentence on this one
            break
    while stop > chunk.stop and _dangles(parse, stop - 1, rules):
        stop -= 1
    while first < chunk.first and parse.tokens[first].is_mark:
        first += 1
    return first, stop


def _why_not(parse: Parse, chunk: Chunk, rules: Phrases) -> str:
    root = parse.tokens[chunk.root]
    if rules.drop_pronouns and root.pos == "PRON":
        return "pronoun"
    names = (root.lemma.lower(), parse.words(chunk.first, chunk.stop).lower())
    if any(name in rules.abstract for name in names):
        return "abstract noun"
    if any(name in rules.about_the_picture for name in names):
        return "names the picture"
    if not any(letter.isalnum() for letter in parse.words(chunk.first, chunk.stop)):
        return "no letters"
    return ""


def _is_coordinated(parse: Parse, root: int) -> bool:
    return parse.tokens[root].dep == "conj" or root in parse.joined


def _dangles(parse: Parse, index: int, rules: Phrases) -> bool:
    token = parse.tokens[index]
    return token.is_mark or (rules.trim_dangling and token.dep in DANGLING)
