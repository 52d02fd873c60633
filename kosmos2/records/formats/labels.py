"""Formats that know classes, not sentences: from phrases to class names, and back to a caption."""

from __future__ import annotations

from collections.abc import Iterable

from kosmos2.boxes import Box
from kosmos2.records.record import Grounded

ARTICLES = ("a ", "an ", "the ")
NO_NAME = "object"


def class_name(phrase: str) -> str:
    """Return a phrase as a class name: lower case, one blank between words, no article."""
    name = " ".join(phrase.lower().split())
    for article in ARTICLES:
        name = name.removeprefix(article)
    return name or NO_NAME


def caption_of(
    labelled: Iterable[tuple[str, Box, float | None]],
) -> tuple[str, tuple[Grounded, ...]]:
    """Return a caption that lists class names, each once, and an entry for each box.

    ("dog", A), ("cat", B), ("dog", C) -> "dog; cat", the span of "dog" with A and C.
    """
    names: dict[str, list[tuple[Box, float | None]]] = {}
    for name, box, score in labelled:
        names.setdefault(name, []).append((box, score))
    entries: list[Grounded] = []
    start = 0
    for name, boxes in names.items():
        end = start + len(name)
        entries += [Grounded(start, end, *box.corners, score) for box, score in boxes]
        start = end + len("; ")
    return "; ".join(names), tuple(entries)
