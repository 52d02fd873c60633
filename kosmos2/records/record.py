"""One picture with a caption whose spans have boxes: the GRIT record.

    {"id": 1795296605919, "caption": "a wire hanger with a paper cover", "width": 1024,
     "height": 693, "noun_chunks": [[0, 13, 0.019, 0.028, 0.959, 0.969, 0.675]],
     "ref_exps": [[0, 32, 0.019, 0.028, 0.959, 0.969, 0.675]], "url": "...", "key": "..."}

A span entry is [start, end, x_min, y_min, x_max, y_max, score]: characters with the end
exclusive, corners as shares of the picture; the score is null where nobody measured it. Several
entries of one span are its several boxes. A view is null where nobody knows its boxes. What else a
record carries, such as a licence, goes through unchanged and in its order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as fields_of
from typing import Any, Literal, NamedTuple, TypeGuard

from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.grounding.spans import GroundedText, Phrase

View = Literal["noun_chunks", "ref_exps"]

_NEEDED = ("caption", "noun_chunks", "ref_exps")
_TEXTS = ("image", "shard", "url", "sha256")
_WHERE_KNOWN = ("id", *_TEXTS, "width", "height")


class Grounded(NamedTuple):
    """A span of the caption with one box; the order of GRIT's numbers."""

    start: int
    end: int
    x0: float
    y0: float
    x1: float
    y1: float
    score: float | None

    @property
    def box(self) -> Box:
        return Box(self.x0, self.y0, self.x1, self.y1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What made the caption and the boxes of a record."""

    model: str
    weights: str | None = None
    """`sha256:` and the hash of the weights file."""
    task: str | None = None
    prompt: str | None = None
    """As markup, with tags and location tokens as literals."""
    decoding: Mapping[str, Any] | None = None
    """How tokens were chosen: the settings that change answers."""
    code: str | None = None
    """`kosmos2` and its version."""

    @classmethod
    def from_dict(cls, where: str, value: object) -> "Provenance":
        """Return the value of a JSON object; keys that nobody knows are refused by name."""
        if not isinstance(value, Mapping):
            raise RecordError(f"{where} must be an object, got {value!r}")
        known = [item.name for item in fields_of(cls)]
        if strange := [key for key in value if key not in known]:
            raise RecordError(f"{where} has the keys {strange}; it may have {known}")
        for name in known:
            part = value.get(name)
            kind: type = Mapping if name == "decoding" else str
            if not isinstance(part, kind) and (part is not None or name == "model"):
                raise RecordError(f"{where}.{name} must be {_KINDS[kind]}, got {part!r}")
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object, without what is not known."""
        parts = {item.name: getattr(self, item.name) for item in fields_of(self)}
        return {name: part for name, part in parts.items() if part is not None}


_KINDS: Mapping[type, str] = {str: "text", Mapping: "an object"}


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
    """A path, from the folder of the record's file on; the name of a member of `shard`; or a
    `scene:` reference. None in records that have a url alone."""
    shard: str | None = None
    """The tar file that holds the picture, from the folder of the record's file on."""
    url: str | None = None
    sha256: str | None = None
    """Of the bytes of the picture's file, as hexadecimal digits."""
    provenance: Provenance | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other field of the source (key, licence, clip similarities, ...), unchanged."""
    order: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The keys as the source had them, so that it is written back as it was."""

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
        for name in _TEXTS:
            if not isinstance(fields.get(name), str | None):
                raise RecordError(f"{where}: {name} must be text, got {fields[name]!r}")
        made = fields.get("provenance")
        known = {item.name for item in fields_of(cls)} - {"extra", "order"}
        return cls(
            caption=fields["caption"],
            noun_chunks=_entries(f"{where}: noun_chunks", fields["noun_chunks"]),
            ref_exps=_entries(f"{where}: ref_exps", fields["ref_exps"]),
            id=_identity(f"{where}: id", fields.get("id")),
            width=_pixels(f"{where}: width", fields.get("width")),
            height=_pixels(f"{where}: height", fields.get("height")),
            **{name: fields.get(name) for name in _TEXTS},
            provenance=None if made is None else Provenance.from_dict(f"{where}: provenance", made),
            extra={key: value for key, value in fields.items() if key not in known},
            order=tuple(fields),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object; `from_dict` gives this record back."""
        known = {key: getattr(self, key) for key in _WHERE_KNOWN}
        made = {"provenance": self.provenance.to_dict()} if self.provenance else {}
        whole = {
            **{key: value for key, value in known.items() if value is not None},
            "caption": self.caption,
            "noun_chunks": _rows(self.noun_chunks),
            "ref_exps": _rows(self.ref_exps),
            **made,
            **self.extra,
        }
        ours = (*_WHERE_KNOWN, "provenance")  # null where the source had them so
        first = {key: whole.get(key) for key in self.order if key in whole or key in ours}
        return {**first, **whole}

    @property
    def entries(self) -> tuple[Grounded, ...]:
        """Return the referring expressions, or the noun chunks where those are all there is."""
        return (self.noun_chunks or ()) if self.ref_exps is None else self.ref_exps

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
                scores=_scores(group),
            )
            for (start, end), group in sorted(spans.items())
        ]
        return GroundedText(text=self.caption, phrases=tuple(phrases))


def _scores(group: Sequence[Grounded]) -> tuple[float, ...]:
    """Return a score for each box, or () where one is not known."""
    scores = [entry.score for entry in group if entry.score is not None]
    return tuple(scores) if len(scores) == len(group) else ()


def _rows(entries: Sequence[Grounded] | None) -> list[list[float | None]] | None:
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
    if (
        not isinstance(row, Sequence)
        or len(row) != 7
        or not all(map(_is_number, row[:6]))
        or not (row[6] is None or _is_number(row[6]))
    ):
        raise RecordError(f"{where} must be [start, end, x0, y0, x1, y1, score], got {row!r}")
    return Grounded(_whole(where, row[0]), _whole(where, row[1]), *row[2:])


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _identity(where: str, value: object) -> int | str | None:
    return value if value is None or isinstance(value, str) else _whole(where, value)


def _whole(where: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
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
    if entry.score is not None and not 0 <= entry.score <= 1:
        raise RecordError(f"{where} must have a score in 0..1, got {entry.score}")
