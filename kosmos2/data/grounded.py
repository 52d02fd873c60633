"""A caption with boxes as somebody's file has it -> what can be taught, and why the rest cannot.

A box that is no box does not spoil its caption: the box is left out with its reason, and the
caption goes on with the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from kosmos2.boxes import Box
from kosmos2.data.ledger import Rejected
from kosmos2.grounding.spans import GroundedText, Phrase

VIEWS = ("ref_exps", "noun_chunks")


@dataclass(frozen=True, slots=True)
class Entry:
    """A span of the caption with one box, normalised."""

    start: int
    end: int
    box: Box


@dataclass(frozen=True, slots=True)
class Checked:
    """The caption and its good entries in their order, and what was wrong with the others."""

    caption: str
    entries: tuple[Entry, ...]
    left_out: tuple[Rejected, ...]


def checked(
    fields: Mapping[str, Any], where: str, *, view: str, min_score: float
) -> Checked | Rejected:
    """Return what a row says that is right."""
    caption = fields.get("caption")
    if not isinstance(caption, str) or not caption.strip():
        return Rejected("no caption", f"{where}: {caption!r}")
    rows = _rows(fields, view)
    if rows is None:
        return Checked(caption, (), ())
    entries, left_out = [], []
    for number, row in enumerate(rows):
        found = _entry(row, caption, min_score)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            left_out.append(Rejected(found, f"{where}: {view}[{number}] is {row!r}"))
    return Checked(caption, tuple(entries), tuple(left_out))


def grounded(caption: str, entries: Sequence[Entry]) -> GroundedText:
    """Return the caption with its phrases; the entries of one span are its several boxes."""
    spans: dict[tuple[int, int], list[Box]] = {}
    for entry in entries:
        spans.setdefault((entry.start, entry.end), []).append(entry.box)
    return GroundedText(
        text=caption,
        phrases=tuple(
            Phrase(start=start, end=end, boxes=tuple(boxes))
            for (start, end), boxes in spans.items()
        ),
    )


def roots(grounded: GroundedText) -> GroundedText:
    """Return the caption with only the phrases that lie in no other phrase (B.3 of the spec)."""
    phrases = grounded.phrases

    def inside_another(phrase: Phrase) -> bool:
        return any(
            other.start <= phrase.start
            and phrase.end <= other.end
            and (other.start, other.end) != (phrase.start, phrase.end)
            for other in phrases
        )

    return replace(grounded, phrases=tuple(each for each in phrases if not inside_another(each)))


def without_overlaps(
    grounded: GroundedText, where: str
) -> tuple[GroundedText, tuple[Rejected, ...]]:
    """Return the caption without phrases that begin inside another: markup cannot say those."""
    kept = list(grounded.phrases[:1])
    lost = []
    for _, phrase in pairwise(grounded.phrases):
        if phrase.start >= kept[-1].end:
            kept.append(phrase)
            continue
        words = f"{grounded.phrase_text(kept[-1])!r} and {grounded.phrase_text(phrase)!r}"
        lost.append(Rejected("expression overlaps another", f"{where}: {words}"))
    return replace(grounded, phrases=tuple(kept)), tuple(lost)


def _rows(fields: Mapping[str, Any], view: str) -> Sequence[Any] | None:
    """Return the rows of a view, or of the other one where nobody knows this one's."""
    for name in (view, *(each for each in VIEWS if each != view)):
        rows = fields.get(name)
        if isinstance(rows, str):  # as tables of text carry them
            try:
                rows = json.loads(rows)
            except ValueError:
                return [rows]
        if isinstance(rows, Sequence):
            return rows
        if rows is not None:
            return [rows]
    return None


def _entry(row: object, caption: str, min_score: float) -> Entry | str:
    """Return an entry, or in a few words what is wrong with its row."""
    if not isinstance(row, Sequence) or len(row) != 7 or not all(map(_is_number, row[:6])):
        return "no entry of 7 numbers"
    start, end, *corners = (float(value) for value in row[:6])
    if not (start.is_integer() and end.is_integer() and 0 <= start < end <= len(caption)):
        return "span outside the caption"
    if not caption[int(start) : int(end)].strip():
        return "span without words"
    if fault := _fault(corners):
        return fault
    score = row[6]
    if _is_number(score) and score < min_score:
        return "score below min_score"
    return Entry(int(start), int(end), Box(*corners))


def _fault(corners: Sequence[float]) -> str:
    if not all(map(math.isfinite, corners)):
        return "box not finite"
    x0, y0, x1, y1 = corners
    if min(corners) < 0 or max(corners) > 1:
        return "box out of range"
    if x1 < x0 or y1 < y0:
        return "box flipped"
    return "box without area" if x1 == x0 or y1 == y0 else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
