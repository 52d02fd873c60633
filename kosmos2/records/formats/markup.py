"""Kosmos-2's own markup: a line of text for each picture.

    dog.jpg<TAB><grounding><phrase> a dog</phrase><object><patch_index_0044>...</object> by a fire

A box is the two cells of a grid of 32 x 32 that its corners lie in. The markup cannot nest: of
spans that overlap the longest is written. It knows neither tabs nor line breaks: these become
blanks, which leaves every span where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from kosmos2.errors import RecordError
from kosmos2.grounding import GroundedText, Phrase
from kosmos2.grounding import markup as grammar
from kosmos2.records.formats.format import (
    KEPT,
    Feature,
    Format,
    Reading,
    Writing,
    by_span,
    each,
)
from kosmos2.records.formats.objects import image_of
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag

GRID = LocationGrid()
_BREAKS = {ord(mark): " " for mark in "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"}


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield the record of each line; markup that breaks its grammar is refused, not repaired."""

    def record(line: str) -> GroundedRecord:
        name, tab, text = line.partition("\t")
        if not tab:
            name, text = "", line
        grounded = grammar.read(text, GRID)
        if anonymous := sum(phrase.is_anonymous for phrase in grounded.phrases):
            raise RecordError(f"{anonymous} boxes stand without words, a record needs their span")
        return GroundedRecord(
            image=image_of(name, path, reading) if name else None,
            caption=grounded.text,
            noun_chunks=None,
            ref_exps=tuple(
                Grounded(phrase.start, phrase.end, *box.corners, None)
                for phrase in grounded.phrases
                for box in phrase.boxes
            ),
        )

    yield from each(_lines(path), record, reading.refuse)


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write a line for each record."""

    def line(record: GroundedRecord) -> str:
        name = record.image or ""
        if name.translate(_BREAKS) != name:
            raise RecordError(f"record {record.id}: a line cannot hold the name {name!r}")
        spans = by_span(record.entries)
        phrases = tuple(
            Phrase(start=start, end=end, boxes=tuple(entry.box for entry in spans[start, end]))
            for start, end in without_overlap(spans)
        )
        text = GroundedText(text=record.caption.translate(_BREAKS), phrases=phrases)
        return f"{name}\t{Tag.GROUNDING}{grammar.write(text, GRID)}\n"

    named = ((f"record {record.id}", record) for record in records)
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.writelines(each(named, line, writing.refuse))


def without_overlap(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans, longest first choice, that share no character; in the order of the text."""
    chosen: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if all(end <= other[0] or other[1] <= start for other in chosen):
            chosen.append((start, end))
    return sorted(chosen)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            bare = (line.rstrip("\r\n") for line in file)
            yield from ((f"{path}:{n}", line) for n, line in enumerate(bare, start=1) if line)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read as lines of text ({error})") from error


MARKUP = Format(
    name="markup",
    title="Kosmos-2 markup",
    layout="a text file: the picture's path, a tab, the markup; pictures stay where they are",
    coordinates="the upper left and the lower right cell of 32 x 32, counted row by row",
    carries={
        Feature.PICTURE: KEPT,
        Feature.CAPTION: "without blanks at its ends; a tab or line break becomes a blank",
        Feature.SPANS: "without blanks at their ends",
        Feature.SEVERAL_BOXES: KEPT,
        Feature.BOXES: "on a grid of 32 x 32: a corner moves by up to 1/32 of the picture",
    },
    read=read,
    write=write,
)
