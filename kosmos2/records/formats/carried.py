"""What formats with room for extra keys carry along, so that whole records come back from them.

A format writes boxes in its own way, one entry after the other, and beside them the `rest`:

    {"id": 7, "caption": "a dog", "ref_exps": "boxes", "noun_chunks": null, "licence": "CC0"}

where "boxes" stands for the view whose entries are told by the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.records.record import GroundedRecord

Row = Sequence[Any]
"""start, end, x0, y0, x1, y1, score: as GRIT has them, corners normalised."""

_HERE = "boxes"
_VIEWS = ("ref_exps", "noun_chunks")

NOTHING: Mapping[str, Any] = {"ref_exps": _HERE, "noun_chunks": None}
"""The rest of a record of other people, who carry nothing along: its boxes are expressions."""


def rest(record: GroundedRecord) -> dict[str, Any]:
    """Return the JSON object of a record without the entries of `record.entries`."""
    fields = record.to_dict()
    for view in _VIEWS:
        if fields[view] is not None:
            return {**fields, view: _HERE}
    return fields


def whole(rest: Mapping[str, Any], rows: Iterable[Row]) -> GroundedRecord:
    """Return the record of a rest and the rows of its entries, which are checked."""
    fields, found = dict(rest), list(rows)
    view = next((view for view in _VIEWS if fields.get(view) == _HERE), None)
    if view is None and found:  # somebody added boxes where nobody knew of any
        view = _VIEWS[0]
    if view is not None:
        fields[view] = found
    return GroundedRecord.from_dict(fields)


def clipped_box(where: str, corners: Sequence[float], size: tuple[float, float]) -> Box:
    """Return the box of corners (x0, y0, x1, y1) in units of which the picture has `size`.

    What reaches over the edge is cut off, as the tools of class boxes do; `size` is (1, 1) for
    normalised corners. Corners that are no box, or one wholly outside, are refused.
    """
    x0, y0, x1, y1 = corners
    width, height = size
    if not (width > 0 and height > 0):
        raise RecordError(f"{where}: a picture has a size above 0, got {width}x{height}")
    if not (x0 <= x1 and y0 <= y1 and x0 <= width and y0 <= height and x1 >= 0 and y1 >= 0):
        raise RecordError(
            f"{where}: a box needs x0 <= x1, y0 <= y1 and a part inside {width:g}x{height:g}, "
            f"got {tuple(corners)}"
        )
    return Box(
        max(x0 / width, 0.0),
        max(y0 / height, 0.0),
        min(x1 / width, 1.0),
        min(y1 / height, 1.0),
    )
