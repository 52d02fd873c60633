"""A caption taken apart: tokens, the tree over them, noun chunks. Holding one needs no parser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A word or a mark of a caption, with its place in the dependency tree."""

    text: str
    start: int
    """Its first character in the caption; characters are code points."""
    lemma: str
    pos: str
    """Universal part of speech: NOUN, PRON, PUNCT, ..."""
    dep: str
    """The arc to its head, as spaCy's English models name it: conj, prep, ..."""
    head: int
    """The token it hangs on; a root hangs on itself."""
    is_mark: bool
    """Whether it is punctuation or blanks alone."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A noun chunk: the tokens [first, stop) around a root."""

    first: int
    stop: int
    root: int


@dataclass(frozen=True, slots=True)
class Parse:
    text: str
    tokens: tuple[Token, ...]
    chunks: tuple[Chunk, ...]
    """In the order of the text, none inside another."""
    joined: frozenset[int] = field(init=False, repr=False, compare=False)
    """The tokens that others are joined to, as by "and"."""
    _edges: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        joined = (
            token.head
            for index, token in enumerate(self.tokens)
            if token.dep == "conj" and token.head != index
        )
        object.__setattr__(self, "joined", frozenset(joined))
        object.__setattr__(self, "_edges", _subtree_edges(self.tokens))

    def edges(self, token: int) -> tuple[int, int]:
        """Return the first and the last token of all that hangs on a token, itself included."""
        return self._edges[token]

    def characters(self, first: int, stop: int) -> tuple[int, int]:
        """Return the characters [start, end) of the tokens [first, stop)."""
        return self.tokens[first].start, self.tokens[stop - 1].end

    def words(self, first: int, stop: int) -> str:
        """Return the text of the tokens [first, stop), with the blanks between them."""
        start, end = self.characters(first, stop)
        return self.text[start:end]


def _subtree_edges(tokens: Sequence[Token]) -> tuple[tuple[int, int], ...]:
    left, right = list(range(len(tokens))), list(range(len(tokens)))
    for index in range(len(tokens)):
        ancestor = index
        for _ in tokens:  # no tree is deeper than it has tokens
            above = tokens[ancestor].head
            if left[above] <= index <= right[above]:
                break  # a root, or one that knows of it: then those above know, too
            left[above], right[above] = min(left[above], index), max(right[above], index)
            ancestor = above
    return tuple(zip(left, right, strict=True))
