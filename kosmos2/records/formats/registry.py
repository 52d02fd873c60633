"""All formats by name, and which one a path is in."""

from __future__ import annotations

from collections.abc import Mapping

from kosmos2.records.formats.format import Format

FORMATS: Mapping[str, Format] = {}
