"""What a format is: a reader, a writer, and a table of what it can carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from kosmos2.errors import BoxError, ImageError, Kosmos2Error, MarkupError, RecordError
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord


class Feature(StrEnum):
    """Something that a record may hold and a format may lose."""

    ID = "id"
    PICTURE = "picture"
    """Where the picture is: a path, or a member of a shard."""
    URL = "url"
    HASH = "sha256"
    SIZE = "width and height"
    CAPTION = "caption"
    SPANS = "character spans"
    VIEWS = "noun chunks apart from expressions"
    SEVERAL_BOXES = "several boxes of one span"
    NESTED = "spans inside or across other spans"
    BOXES = "boxes"
    SCORES = "scores"
    PROVENANCE = "provenance"
    EXTRA = "other columns"


KEPT = "kept"
"""Said in a table of what survives exactly. Anything else there says how it survives."""


Refuse = Callable[[str, Kosmos2Error], None]
"""Hears which record (its line, file or id) cannot be read or written, and why; all others can."""

_FAULTS_OF_ONE_RECORD = (RecordError, BoxError, MarkupError, ImageError)
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def raise_it(where: str, error: Kosmos2Error) -> None:
    """End the run at the first record that cannot be read or written."""
    raise error


def each(
    items: Iterable[tuple[str, _In]], make: Callable[[_In], _Out], refuse: Refuse
) -> Iterator[_Out]:
    """Yield make(item) for each (where, item); `refuse` hears of the items that have a fault."""
    for where, item in items:
        try:
            made = make(item)
        except _FAULTS_OF_ONE_RECORD as error:
            refuse(where, error)
        else:
            yield made


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reader may need to know besides the path."""

    images: Path | None = None
    """The folder that file names of pictures start from; None: the one that the format says."""
    refuse: Refuse = raise_it
    """Told of what is no record, so that the reader goes on with the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What a writer may need besides the records."""

    pictures: Pictures
    """Reads pictures of the records, for their sizes and for formats that hold them."""
    refuse: Refuse = raise_it
    """Told of records that the format cannot say, so that the writer goes on with the next one."""


Reader = Callable[[Path, Reading], Iterator[GroundedRecord]]
Writer = Callable[[Iterable[GroundedRecord], Path, Writing], None]
"""Writes to a path where nothing lies; whoever calls makes it appear whole (`convert`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    name: str
    """As `--to` and `--from` say it."""
    title: str
    layout: str
    """The files, in one line: what a path of this format is."""
    coordinates: str
    """How the format writes a box, in one line with its unit."""
    carries: Mapping[Feature, str] = field(default_factory=dict)
    """Feature -> KEPT or how it survives; what is missing here is lost."""
    read: Reader | None = None
    """None: not readable, because the files say too little."""
    write: Writer | None = None


def features(record: GroundedRecord) -> set[Feature]:
    """Return what a record really holds, so that only real losses are told."""
    held = {Feature.CAPTION} if record.caption else set()
    simple = {
        Feature.ID: record.id,
        Feature.PICTURE: record.image,
        Feature.URL: record.url,
        Feature.HASH: record.sha256,
        Feature.SIZE: record.width,
        Feature.PROVENANCE: record.provenance,
        Feature.EXTRA: record.extra or None,
    }
    held |= {feature for feature, value in simple.items() if value is not None}
    entries = record.entries
    spans = {(entry.start, entry.end) for entry in entries}
    if entries:
        held |= {Feature.BOXES, Feature.SPANS}
    if any(entry.score is not None for entry in entries):
        held.add(Feature.SCORES)
    if len(spans) < len(entries):
        held.add(Feature.SEVERAL_BOXES)
    if any(after[0] < before[1] for before, after in pairwise(sorted(spans))):
        held.add(Feature.NESTED)
    if record.noun_chunks and record.ref_exps and record.noun_chunks != record.ref_exps:
        held.add(Feature.VIEWS)
    return held


def by_span(entries: Iterable[Grounded]) -> dict[tuple[int, int], list[Grounded]]:
    """Return the entries of each span, spans in the order of the text."""
    spans: dict[tuple[int, int], list[Grounded]] = {}
    for entry in entries:
        spans.setdefault((entry.start, entry.end), []).append(entry)
    return dict(sorted(spans.items()))
