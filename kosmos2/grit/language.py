"""Captions into parses by spaCy; the only module that knows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.grit.parse import Chunk, Parse, Token
from kosmos2.grit.recipe import Language

if TYPE_CHECKING:
    from spacy.language import Language as Pipeline
    from spacy.tokens import Doc, Span

UNUSED = ("ner",)
"""Components that phrases do not need; without names of people it is twice as fast."""


class Parser:
    """Parses captions with one spaCy pipeline, loaded at first use."""

    def __init__(self, settings: Language) -> None:
        self.settings = settings

    def parse(self, captions: Iterable[str]) -> Iterator[Parse]:
        """Yield the parse of each caption, in order."""
        for doc in self._pipeline.pipe(captions, batch_size=self.settings.batch_size):
            yield to_parse(doc)

    @property
    def version(self) -> str:
        """Return the model's name and version, for the provenance of records."""
        meta = self._pipeline.meta
        return f"{self.settings.model} {meta.get('lang')}_{meta.get('name')} {meta.get('version')}"

    @cached_property
    def _pipeline(self) -> Pipeline:
        try:
            import spacy
        except ImportError:
            raise MissingExtraError(
                'taking captions apart needs spaCy: pip install "kosmos2[grit]"'
            ) from None
        name = self.settings.model
        try:
            return spacy.load(Path(name) if Path(name).is_dir() else name, exclude=list(UNUSED))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"language.model: spaCy cannot load {name!r} ({error}). The default comes with "
                'pip install "kosmos2[grit]"; others are folders or installed packages.'
            ) from error


def to_parse(doc: Doc) -> Parse:
    """Return a spaCy document as a plain value."""
    tokens = tuple(
        Token(
            text=token.text,
            start=token.idx,
            lemma=token.lemma_,
            pos=token.pos_,
            dep=token.dep_,
            head=token.head.i,
            is_mark=token.is_punct or token.is_space,
        )
        for token in doc
    )
    chunks = tuple(_without_blanks(chunk) for chunk in doc.noun_chunks)
    return Parse(doc.text, tokens, chunks)


def _without_blanks(chunk: Span) -> Chunk:
    """Return a chunk without the blank tokens at its ends, which spaCy counts in."""
    first, stop, root = chunk.start, chunk.end, chunk.root.i
    while first < root and chunk.doc[first].is_space:
        first += 1
    while stop > root + 1 and chunk.doc[stop - 1].is_space:
        stop -= 1
    return Chunk(first, stop, root)
