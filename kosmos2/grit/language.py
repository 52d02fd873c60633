"""Captions into parses by spaCy; the only module that knows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import islice
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

WORDS_KEPT = 20_000
"""Words that a pipeline remembers from caption to caption; later ones are forgotten."""


class Parser:
    """Parses captions with one spaCy pipeline, loaded at first use."""

    def __init__(self, settings: Language) -> None:
        self.settings = settings

    def parse(self, captions: Iterable[str]) -> Iterator[Parse]:
        """Yield the parse of each caption, in order."""
        pipeline, size, rest = self._pipeline, self.settings.batch_size, iter(captions)
        while batch := list(islice(rest, size)):
            with _bounded(pipeline):  # left before anything is yielded: it cannot be entered twice
                parses = [to_parse(doc) for doc in pipeline.pipe(batch, batch_size=size)]
            yield from parses

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


def _bounded(pipeline: Pipeline) -> AbstractContextManager[object]:
    """Return a context in which few new words stay in memory: spaCy keeps all that it ever met.

    The first ones, most of them common, may stay, because to meet a word anew takes time.
    """
    return nullcontext() if len(pipeline.vocab) < WORDS_KEPT else pipeline.memory_zone()


def to_parse(doc: Doc) -> Parse:
    """Return a spaCy document as a plain value."""
    # As one array: asking tokens one by one takes twice as long.
    rows = doc.to_array(["IDX", "LENGTH", "LEMMA", "POS", "DEP", "HEAD", "IS_PUNCT", "IS_SPACE"])
    text, names = doc.text, doc.vocab.strings
    tokens = tuple(
        Token(
            text=text[start : start + length],
            start=start,
            lemma=names[lemma],
            pos=names[pos],
            dep=names[dep],
            head=index + (head if head < _NEGATIVE else head - 2 * _NEGATIVE),
            is_mark=bool(is_punct or is_space),
        )
        for index, (start, length, lemma, pos, dep, head, is_punct, is_space) in enumerate(
            rows.tolist()
        )
    )
    chunks = tuple(_without_blanks(chunk) for chunk in doc.noun_chunks)
    return Parse(text, tokens, chunks)


_NEGATIVE = 1 << 63
"""Heads are distances, and the array has no sign."""


def _without_blanks(chunk: Span) -> Chunk:
    """Return a chunk without the blank tokens at its ends, which spaCy counts in."""
    first, stop, root = chunk.start, chunk.end, chunk.root.i
    while first < root and chunk.doc[first].is_space:
        first += 1
    while stop > root + 1 and chunk.doc[stop - 1].is_space:
        stop -= 1
    return Chunk(first, stop, root)
