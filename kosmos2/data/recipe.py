"""What a mixture is made of: the tables `[[sources]]` of a training recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kosmos2.errors import ConfigError
from kosmos2.scenes.recipe import Crowd

Kind = Literal["scenes", "records", "pairs", "documents", "text", "instructions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe(Crowd):
    """One source of the mixture.

    scenes        live scenes of that crowd
    records       grounded records: any store of ours, released GRIT, tars with both
    pairs         pictures with captions: folders, lists, tables, tars
    documents     text and pictures in turn: MMC4 or OBELICS
    text          JSON lines with `text`, packed into blocks
    instructions  LLaVA's conversations; FLAN's and Unnatural's instructions
    """

    kind: Kind
    weight: float = 1.0
    path: str = ""
    """The file or folder; not for scenes."""
    images: str = ""
    """Where the paths of pictures start, or a folder with tars of them; "": beside `path`."""
    max_lessons: int = 6
    """scenes: caption, phrases and questions behind one picture; 0 trains the tower alone."""
    absent: float = 0.0
    """scenes: how often a phrase is taught that the picture does not show, to be given no box."""
    in_caption: float = 0.0
    """scenes: how often a phrase of a caption is found, behind the words that come before it."""
    behind_example: float = 0.0
    """scenes: how often all this stands behind another picture with a solved example."""
    compat: Literal["ours", "paper"] = "ours"
    """paper: sequences exactly as the published loaders made them (tokens, cells, packing)."""
    square: Literal["squash", "crop"] = "squash"
    """crop: the middle square of a picture, as published; all uses of a model squash."""
    view: Literal["ref_exps", "noun_chunks"] = "ref_exps"
    """records: which boxes of a caption; the other view where a record has only that."""
    teach: Literal["all", "caption", "instructions"] = "all"
    """records: the caption and every expression both ways; the caption alone; or one instruction,
    an expression to find or a box to describe, in the wordings of the paper's Table 9."""
    min_score: float = 0.0
    """records: boxes of a lower score are left out."""
    grounded_share: float = 1.0
    """records: how often a caption with boxes is taught with them."""
    flip: float = 0.0
    """records, pairs: how often a picture is mirrored, its boxes and the words left and right too.
    Captions with words that a mirror makes untrue are never mirrored."""
    block: int = 2048
    """text: tokens of a row."""
    max_pictures: int = 5
    """documents: the others of a row are left out."""
    min_similarity: float = 0.0
    """documents: MMC4's pictures of a lower `matched_sim` are left out."""

    def __post_init__(self) -> None:
        if self.kind != "scenes" and not self.path:
            raise ConfigError(f"sources: kind '{self.kind}' needs `path`, its file or folder")
        check_at_least("sources", self, 0, "weight", "max_lessons", "max_pictures")
        check_at_least("sources", self, 2, "block")
        for name in (
            "min_score",
            "grounded_share",
            "flip",
            "absent",
            "in_caption",
            "behind_example",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"sources.{name} ({getattr(self, name)}) must lie in 0..1")


def check_at_least(table: str, recipe: object, least: int, *names: str) -> None:
    """Refuse a value of `recipe` below `least`, named by its table and key."""
    for name in names:
        value = getattr(recipe, name)
        if not value >= least:  # so that NaN is refused too
            raise ConfigError(f"{table}.{name} ({value}) must be at least {least}")
