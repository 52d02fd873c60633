"""What a mixture is made of: the tables `[[sources]]` of a training recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kosmos2.errors import ConfigError
from kosmos2.scenes.recipe import Crowd


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe(Crowd):
    """One source of the mixture: live scenes (of that crowd), or a JSONL of grounded records."""

    kind: Literal["scenes", "records"]
    weight: float = 1.0
    path: str = ""
    """records: the JSONL; the pictures' paths are relative to its folder."""
    max_lessons: int = 6
    """scenes: caption, phrases and questions behind one picture; 0 trains the tower alone."""

    def __post_init__(self) -> None:
        if self.kind == "records" and not self.path:
            raise ConfigError("sources: kind 'records' needs `path`, the JSONL of the records")
        check_at_least("sources", self, 0, "weight", "max_lessons")


def check_at_least(table: str, recipe: object, least: int, *names: str) -> None:
    """Refuse a value of `recipe` below `least`, named by its table and key."""
    for name in names:
        value = getattr(recipe, name)
        if not value >= least:  # so that NaN is refused too
            raise ConfigError(f"{table}.{name} ({value}) must be at least {least}")
