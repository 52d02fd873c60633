"""What the page is told: records, lists and the store as JSON. Boxes are shares of the picture."""

from __future__ import annotations

from typing import Any

from kosmos2.editor import twins
from kosmos2.editor.session import Session
from kosmos2.grounding.render import PALETTE, ink
from kosmos2.records.record import GroundedRecord

MOST_ROWS = 200
"""Of a list, in one answer."""
_CAPTION = 160
_FACT = 300


def store(session: Session) -> dict[str, Any]:
    """Return what holds for all records."""
    return {
        "name": session.store.name,
        "token": session.token,
        "records": len(session),
        "statuses": session.catalogue.statuses(),
        "reasons": session.catalogue.reasons(),
        "has_other": session.has_other,
        "palette": [{"paint": paint, "ink": ink(paint)} for paint in PALETTE],
    }


def rows(session: Session, name: int, offset: int, limit: int) -> dict[str, Any]:
    """Return some rows of a list, and how many it has."""
    listed = session.catalogue.listed(name)
    some = listed[offset : offset + min(limit, MOST_ROWS)]
    return {"total": len(listed), "offset": offset, "rows": [_row(session, n) for n in some]}


def record(session: Session, number: int) -> dict[str, Any]:
    """Return one record with all that can be edited of it."""
    history = session.history(number)
    now = history.now.record
    return {
        "number": number,
        "version": history.version,
        "status": str(history.now.status),
        "can_undo": bool(history.past),
        "can_redo": bool(history.future),
        "id": now.id,
        "image": now.image,
        "width": now.width,
        "height": now.height,
        "view": twins.shown(now),
        **_content(now),
        "reasons": list(session.catalogue[number].reasons),
        "facts": _facts(now),
        "other": _other(session, number),
    }


def _content(one: GroundedRecord) -> dict[str, Any]:
    return {
        "caption": one.caption,
        **{
            view: None if (entries := getattr(one, view)) is None else [list(e) for e in entries]
            for view in twins.VIEWS
        },
    }


def _other(session: Session, number: int) -> dict[str, Any] | None:
    other, apart = session.other(number), session.difference(number)
    if other is None or apart is None:
        return None
    pairs = [
        {"kind": str(each.kind), "ours": each.ours, "theirs": each.theirs, "iou": each.iou}
        for each in apart.pairs
    ]
    return {**_content(other), "view": twins.shown(other), "amount": apart.amount, "pairs": pairs}


def _row(session: Session, number: int) -> dict[str, Any]:
    summary = session.catalogue[number]
    return {
        "number": number,
        "id": summary.name,
        "caption": session.state(number).record.caption[:_CAPTION],
        "status": str(summary.status),
        "boxes": len(summary.boxes),
        "lowest": summary.lowest,
        "reasons": list(summary.reasons),
        "disagreement": summary.disagreement,
    }


def _facts(one: GroundedRecord) -> dict[str, str]:
    """Return what else is known of the record, as short texts for people."""
    made = one.provenance.to_dict() if one.provenance else {}
    facts = {"url": one.url, "shard": one.shard, "sha256": one.sha256, **made, **one.extra}
    return {name: str(value)[:_FACT] for name, value in facts.items() if value is not None}
