"""All formats by name, and which one a path is in."""

from __future__ import annotations

from collections.abc import Mapping

from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Format

_ALL: tuple[Format, ...] = ()

FORMATS: Mapping[str, Format] = {format.name: format for format in _ALL}


def format_named(name: str) -> Format:
    """Return the format of this name; RecordError lists the names where there is none."""
    if name not in FORMATS:
        raise RecordError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    return FORMATS[name]
