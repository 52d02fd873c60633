"""What can be changed of a record: each change is a value, and `applied` gives the new record.

An entry is named by its place in its view, a phrase by its span: characters with the end
exclusive. Corners are shares of the picture. A box that somebody drew, moved or resized has no
score, for nobody measured it there. Where both views know a box, it is changed in both (`twins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kosmos2.boxes import Box
from kosmos2.editor import twins
from kosmos2.editor.follow import follower
from kosmos2.errors import RecordError
from kosmos2.records.parquet import Columns
from kosmos2.records.record import Grounded, GroundedRecord, View

Span = tuple[int, int]
Corners = tuple[float, float, float, float]
Entries = tuple[Grounded, ...]

DIGITS = 6
"""Behind the point, of a corner that is kept: a thousandth of a pixel of any picture."""
BOX_COLUMNS = ("round_trip", "agreement")
"""Fields of `grit build` with one value for each box, in the order of the boxes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A box gets other corners: it is moved or resized."""

    view: View
    entry: int
    corners: Corners
    kind: Literal["move"] = "move"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A phrase, new or known, gets a box."""

    view: View
    span: Span
    corners: Corners
    score: float | None = None
    """Of a box that another model has found; None for one that a hand drew."""
    kind: Literal["draw"] = "draw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """A box goes."""

    view: View
    entry: int
    kind: Literal["delete"] = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPhrase:
    """All boxes of a phrase go, and so the phrase."""

    view: View
    span: Span
    kind: Literal["drop_phrase"] = "drop_phrase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relink:
    """A box belongs to another phrase, new or known."""

    view: View
    entry: int
    span: Span
    kind: Literal["relink"] = "relink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Respan:
    """A phrase is other words of the caption; its boxes stay its own."""

    view: View
    old: Span
    new: Span
    kind: Literal["respan"] = "respan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reword:
    """The caption has other words; phrases follow theirs, and go where none of theirs is left."""

    caption: str
    kind: Literal["reword"] = "reword"


Change = Move | Draw | Delete | DropPhrase | Relink | Respan | Reword


def applied(record: GroundedRecord, change: Change) -> GroundedRecord:
    """Return the record with one thing changed; RecordError says why that cannot be."""
    match change:
        case Move():
            return _moved(record, change)
        case Draw():
            return _drawn(record, change)
        case Delete():
            _entry(record, change.view, change.entry)
            return _without(record, change.view, {change.entry})
        case DropPhrase():
            gone = _entries_of(record, change.view, change.span)
            return _without(record, change.view, set(gone))
        case Relink():
            _entry(record, change.view, change.entry)
            return _linked(record, change.view, [change.entry], change.span)
        case Respan():
            boxes = _entries_of(record, change.view, change.old)
            return _linked(record, change.view, boxes, change.new)
        case Reword():
            return _reworded(record, change.caption)


def _moved(record: GroundedRecord, change: Move) -> GroundedRecord:
    corners = _corners(change.corners)
    if _entry(record, change.view, change.entry).box.corners == corners:
        return record

    def move(entry: Grounded) -> Grounded:
        return Grounded(entry.start, entry.end, *corners, None)

    places: dict[View, set[int]] = {change.view: {change.entry}}
    twin = twins.twin_of(record, change.view, change.entry)
    if twin is not None:
        places[twins.other(change.view)] = {twin}
    views = {view: _mapped(twins.of(record, view), those, move) for view, those in places.items()}
    blank: dict[int, None] = {change.entry: None}
    columns = _columns(
        record, lambda values: [blank.get(place, value) for place, value in enumerate(values)]
    )
    return _with(record, views, columns)


def _drawn(record: GroundedRecord, change: Draw) -> GroundedRecord:
    span = _words(record, change.span)
    entry = Grounded(*span, *_corners(change.corners), change.score)
    views: dict[View, Entries] = {change.view: (*twins.of(record, change.view), entry)}
    other = twins.other(change.view)
    if twins.is_parallel(record):
        chunk = twins.span_beside(record, change.view, span, ()) or span
        views[other] = (*twins.of(record, other), entry._replace(start=chunk[0], end=chunk[1]))
    columns = _columns(record, lambda values: [*values, None])
    return _with(record, views, columns)


def _without(record: GroundedRecord, view: View, gone: set[int]) -> GroundedRecord:
    other = twins.other(view)
    twin = {found for each in gone if (found := twins.twin_of(record, view, each)) is not None}
    views: dict[View, Entries] = {view: _left(twins.of(record, view), gone)}
    if twin:
        views[other] = _left(twins.of(record, other), twin)
    columns = _columns(record, lambda values: list(_left(values, gone)))
    return _with(record, views, columns)


def _linked(record: GroundedRecord, view: View, boxes: Sequence[int], span: Span) -> GroundedRecord:
    span = _words(record, span)
    if all(twins.of(record, view)[each][:2] == span for each in boxes):
        return record
    views: dict[View, Entries] = {
        view: _mapped(
            twins.of(record, view),
            set(boxes),
            lambda entry: entry._replace(start=span[0], end=span[1]),
        )
    }
    twin = {found for each in boxes if (found := twins.twin_of(record, view, each)) is not None}
    if twin:
        other = twins.other(view)

        def follow(entry: Grounded) -> Grounded:
            start, end = twins.beside(record, view, span, entry, boxes)
            return entry._replace(start=start, end=end)

        views[other] = _mapped(twins.of(record, other), twin, follow)
    return _with(record, views, record.extra)


def _reworded(record: GroundedRecord, caption: str) -> GroundedRecord:
    if caption == record.caption:
        return record
    if not caption.strip():
        raise RecordError("a caption needs words; reject the record if none are right")
    follow = follower(record.caption, caption)
    views: dict[View, Entries] = {}
    gone: set[int] = set()
    for view in twins.VIEWS:
        entries = getattr(record, view)
        if entries is None:
            continue
        kept: list[Grounded] = []
        for place, entry in enumerate(entries):
            span = follow((entry.start, entry.end))
            if span is None:
                gone |= {place} if view == twins.shown(record) else set()
                continue
            kept.append(entry._replace(start=span[0], end=span[1]))
        views[view] = tuple(kept)
    columns = _columns(record, lambda values: list(_left(values, gone)))
    return _with(replace(record, caption=caption, noun_chunks=None, ref_exps=None), views, columns)


def _with(
    record: GroundedRecord, views: Mapping[View, Entries], fields: Mapping[str, Any]
) -> GroundedRecord:
    """Return the record with other entries in some views, and other fields."""
    return replace(
        record,
        noun_chunks=views.get("noun_chunks", record.noun_chunks),
        ref_exps=views.get("ref_exps", record.ref_exps),
        extra=fields,
    )


def _columns(
    record: GroundedRecord, change: Callable[[Sequence[Any]], list[Any]]
) -> Mapping[str, Any]:
    """Return the other fields, with a value for each box still where they had one."""
    changed = {}
    for name in BOX_COLUMNS:
        values = record.extra.get(name)
        if isinstance(values, list) and len(values) == len(record.entries):
            changed[name] = change(values)
    return with_fields(record.extra, changed)


def with_fields(fields: Mapping[str, Any], more: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a record with others, and with the types that its file gave them."""
    if not more:
        return fields
    together = {**fields, **more}
    return Columns(together, fields.schema) if isinstance(fields, Columns) else together


def _mapped(entries: Entries, places: set[int], change: Callable[[Grounded], Grounded]) -> Entries:
    return tuple(change(entry) if place in places else entry for place, entry in enumerate(entries))


def _left(values: Sequence[Any], gone: set[int]) -> tuple[Any, ...]:
    return tuple(value for place, value in enumerate(values) if place not in gone)


def _entry(record: GroundedRecord, view: View, place: int) -> Grounded:
    entries = twins.of(record, view)
    if not 0 <= place < len(entries):
        raise RecordError(f"{view} has {len(entries)} boxes, so there is no box {place}")
    return entries[place]


def _entries_of(record: GroundedRecord, view: View, span: Span) -> list[int]:
    places = twins.places_of(twins.of(record, view), span)
    if not places:
        raise RecordError(f"{view} has no phrase [{span[0]}, {span[1]})")
    return places


def _corners(corners: Corners) -> Corners:
    x0, y0, x1, y1 = Box(*(round(corner, DIGITS) for corner in corners)).corners
    if not (x0 < x1 and y0 < y1):
        raise RecordError(f"a box needs a width and a height, got {(x0, y0, x1, y1)}")
    return x0, y0, x1, y1


def _words(record: GroundedRecord, span: Span) -> Span:
    """Return a span without the blanks at its ends; refuse one that is no words of the caption."""
    start, end = span
    if not 0 <= start < end <= len(record.caption):
        raise RecordError(
            f"a phrase is a span of the {len(record.caption)} characters of the caption, got "
            f"[{start}, {end})"
        )
    words = record.caption[start:end]
    if not words.strip():
        raise RecordError(f"a phrase needs words, [{start}, {end}) of the caption are blanks")
    return start + len(words) - len(words.lstrip()), end - len(words) + len(words.rstrip())
