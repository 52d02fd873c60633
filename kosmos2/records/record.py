"""One picture with a caption whose spans have boxes: the GRIT record.

    {"id": 1795296605919, "caption": "a wire hanger with a paper cover", "width": 1024,
     "height": 693, "noun_chunks": [[0, 13, 0.019, 0.028, 0.959, 0.969, 0.675]],
     "ref_exps": [[0, 32, 0.019, 0.028, 0.959, 0.969, 0.675]], "url": "...", "key": "..."}

A span entry is [start, end, x_min, y_min, x_max, y_max, score]: characters with the end
exclusive, corners as shares of the picture. A view is null where nobody knows its boxes. What
else a record carries goes through unchanged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.grounding.spans import GroundedText, Phrase

View = Literal["noun_chunks", "ref_exps"]

_NEEDED = ("caption", "noun_chunks", "ref_exps")
_WHERE_KNOWN = ("id", "image", "width", "height")


class Grounded(NamedTuple):
    """A span of the caption with one box; the order of GRIT's numbers."""

    start: int
    end: int
    x0: float
    y0: float
    x1: float
    y1: float
    score: float

    @property
    def box(self) -> Box:
        return Box(self.x0, self.y0, self.x1, self.y1)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedRecord:
    caption: str
    noun_chunks: tuple[Grounded, ...] | None
    """None: not known, as against () for none."""
    ref_exps: tuple[Grounded, ...] | None
    id: int | str | None = None
    width: int | None = None
    height: int | None = None
    image: str | None = None
    """A path or a `scene:` reference; None in records that have a url alone."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other field of the source (key, url, clip similarities, ...), unchanged."""

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecordError(f"record {self.id}: {name} must be at least 1, got {value}")
        for view in ("noun_chunks", "ref_exps"):
            for number, entry in enumerate(getattr(self, view) or ()):
                _check_entry(f"record {self.id}: {view}[{number}]", entry, len(self.caption))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "GroundedRecord":
        """Return the record of a JSON object; span ends may be floats, as parquet gives them."""
        where = f"record {fields.get('id', fields.get('key', 'without id'))}"
        if missing := [key for key in _NEEDED if key not in fields]:
            raise RecordError(f"{where}: missing {missing}, got {sorted(fields)}")
        if not isinstance(fields["caption"], str):
            raise RecordError(f"{where}: caption must be text, got {fields['caption']!r}")
        image = fields.get("image")
        if image is not None and not isinstance(image, str):
            raise RecordError(f"{where}: image must be a path as text, got {image!r}")
        return cls(
            caption=fields["caption"],
            noun_chunks=_entries(f"{where}: noun_chunks", fields["noun_chunks"]),
            ref_exps=_entries(f"{where}: ref_exps", fields["ref_exps"]),
            id=fields.get("id"),
            width=_pixels(f"{where}: width", fields.get("width")),
            height=_pixels(f"{where}: height", fields.get("height")),
            image=image,
            extra={k: v for k, v in fields.items() if k not in (*_NEEDED, *_WHERE_KNOWN)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object; `from_dict` gives this record back."""
        known = {key: getattr(self, key) for key in _WHERE_KNOWN}
        return {
            **{key: value for key, value in known.items() if value is not None},
            "caption": self.caption,
            "noun_chunks": _rows(self.noun_chunks),
            "ref_exps": _rows(self.ref_exps),
            **self.extra,
        }

    def grounded(self, view: View) -> GroundedText:
        """Return the caption with the boxes of one view, the entries of a span together."""
        entries: Sequence[Grounded] | None = getattr(self, view)
        if entries is None:
            raise RecordError(f"record {self.id}: nobody has drawn the boxes of its {view}")
        spans: dict[tuple[int, int], list[Grounded]] = {}
        for entry in entries:
            spans.setdefault((entry.start, entry.end), []).append(entry)
        phrases = [
            Phrase(
                start=start,
                end=end,
                boxes=tuple(entry.box for entry in group),
                scores=tuple(entry.score for entry in group),
            )
            for (start, end), group in sorted(spans.items())
        ]
        return GroundedText(text=self.caption, phrases=tuple(phrases))


def _rows(entries: Sequence[Grounded] | None) -> list[list[float]] | None:
    return None if entries is None else [list(entry) for entry in entries]


def _pixels(where: str, value: object) -> int | None:
    return None if value is None else _whole(where, value)


def _entries(where: str, rows: object) -> tuple[Grounded, ...] | None:
    if rows is None:
        return None
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise RecordError(f"{where} must be a list of 7-number lists, got {rows!r}")
    return tuple(_entry(f"{where}[{number}]", row) for number, row in enumerate(rows))


def _entry(where: str, row: object) -> Grounded:
    if not isinstance(row, Sequence) or len(row) != 7 or not all(map(_is_number, row)):
        raise RecordError(f"{where} must be [start, end, x0, y0, x1, y1, score], got {row!r}")
    return Grounded(_whole(where, row[0]), _whole(where, row[1]), *row[2:])


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(where: str, value: object) -> int:
    if not _is_number(value) or not math.isfinite(value) or value != math.floor(value):
        raise RecordError(f"{where} must be a whole number, got {value!r}")
    return int(value)


def _check_entry(where: str, entry: Grounded, length: int) -> None:
    if not 0 <= entry.start < entry.end <= length:
        raise RecordError(
            f"{where} must be a span of the {length} characters of the caption, "
            f"got [{entry.start}, {entry.end})"
        )
    if not (0 <= entry.x0 <= entry.x1 <= 1 and 0 <= entry.y0 <= entry.y1 <= 1):
        raise RecordError(f"{where} must be a box with 0 <= min <= max <= 1, got {entry[2:6]}")
    if not 0 <= entry.score <= 1:
        raise RecordError(f"{where} must have a score in 0..1, got {entry.score}")
