"""One picture with what is said of it: grounded records, and plain pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from kosmos2.data import published
from kosmos2.data.album import Album
from kosmos2.data.collate import Row, pack_all
from kosmos2.data.frames import Frames
from kosmos2.data.grounded import Checked, Entry, checked, grounded, roots, without_overlaps
from kosmos2.data.instructions import instruction, published_instruction
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.lines import Lines
from kosmos2.data.mirror import can_mirror, swapped
from kosmos2.data.recipe import SourceRecipe
from kosmos2.errors import ImageError, one_line
from kosmos2.grounding.spans import GroundedText
from kosmos2.sources.inputs import item_of_line
from kosmos2.sources.places import gather
from kosmos2.sources.rows import Item


def picture_of(fields: Mapping[str, Any], where: str, album: Album) -> Image.Image | Rejected:
    """Return the upright picture that a record names, or why there is none."""
    name, shard = fields.get("image") or fields.get("url"), fields.get("shard")
    if not isinstance(name, str) or not isinstance(shard, str | None):
        return Rejected("no picture named", f"{where}: image, shard, url: {name!r}, {shard!r}")
    return album.open(name, shard if fields.get("image") else None)


@dataclass(frozen=True, slots=True)
class RecordSource:
    """Grounded records with the pictures that they name: a member of a tar, a file, or a url."""

    lines: Lines
    album: Album
    teacher: Teacher
    frames: Frames
    recipe: SourceRecipe

    def __len__(self) -> int:
        return len(self.lines)

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        """Return the row of a record: by the recipe its caption, its expressions, or both."""
        where, fields = self.lines.where(number), self.lines.fields(number)
        if isinstance(fields, Rejected):
            return fields
        recipe = self.recipe
        found = checked(fields, where, view=recipe.view, min_score=recipe.min_score)
        if isinstance(found, Rejected):
            return found
        image = picture_of(fields, where, self.album)
        if isinstance(image, Rejected):
            return image
        return self._row(found, image, where, rng)

    def _row(
        self, found: Checked, image: Image.Image, where: str, rng: np.random.Generator
    ) -> Row | Rejected:
        entries, left_out = self._framed(found, image)
        text = grounded(found.caption, entries)
        if self.recipe.view == "ref_exps":
            text = roots(text)
        if self.recipe.compat == "ours":
            text, lost = without_overlaps(text, where)
            left_out = (*left_out, *lost)
        if rng.random() < self.recipe.flip and can_mirror(text.text):
            text, image = swapped(text), ImageOps.mirror(image)
        lessons = (
            self._published(text, rng) if self.recipe.compat == "paper" else self._ours(text, rng)
        )
        if isinstance(lessons, Rejected):
            return replace(lessons, detail=f"{where}: {lessons.detail}")
        row = pack_all(self.frames.pictures([image]), self.teacher.prefix(), lessons)
        return replace(row, left_out=left_out)

    def _framed(
        self, found: Checked, image: Image.Image
    ) -> tuple[tuple[Entry, ...], tuple[Rejected, ...]]:
        """Return the entries as the square shows them."""
        if self.recipe.square == "squash":
            return found.entries, found.left_out
        size = self.frames.vision.image_size
        framed = [
            published.cropped(each, image.width, image.height, size) for each in found.entries
        ]
        kept = tuple(each for each in framed if isinstance(each, Entry))
        return kept, (*found.left_out, *(each for each in framed if isinstance(each, Rejected)))

    def _ours(self, text: GroundedText, rng: np.random.Generator) -> list[Lesson] | Rejected:
        teacher, teach = self.teacher, self.recipe.teach
        if teach == "instructions":
            if not text.phrases:
                return Rejected("no box to ask about", repr(text.text))
            return [instruction(text, phrase, teacher, rng) for phrase in text.phrases]
        # As published: without boxes no <grounding> either.
        if not text.phrases or rng.random() >= self.recipe.grounded_share:
            return [teacher.plain_caption(text.text)]
        lessons = [teacher.grounded_caption(text)]
        for phrase in text.phrases if teach == "all" else ():
            lessons.append(teacher.find(text.phrase_text(phrase), phrase.boxes))
            if len(phrase.boxes) == 1:  # one box of "three cups" is not three cups
                lessons.append(teacher.describe(phrase.boxes[0], text.phrase_text(phrase)))
        return lessons

    def _published(self, text: GroundedText, rng: np.random.Generator) -> list[Lesson] | Rejected:
        teacher = self.teacher
        if self.recipe.teach == "instructions":
            if not text.phrases:
                return Rejected("no box to ask about", repr(text.text))
            phrase = text.phrases[int(rng.integers(len(text.phrases)))]
            return [published_instruction(text, phrase, teacher, rng)]
        if not text.phrases or rng.random() >= self.recipe.grounded_share:
            return [teacher.plain_caption(text.text)]
        ids = published.caption_ids(text, teacher.tokenizer)
        return ids if isinstance(ids, Rejected) else [teacher.ids(ids)]


@dataclass(frozen=True, slots=True)
class PairSource:
    """Pictures with captions, from a list of items (`sources.inputs`)."""

    lines: Lines
    album: Album
    teacher: Teacher
    frames: Frames
    recipe: SourceRecipe

    def __len__(self) -> int:
        return len(self.lines)

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        """Return the row of a pair: the published sequence without boxes (B.4)."""
        item = item_of_line(self.lines.text(number))
        if item.problem:
            return Rejected("no pair", f"{item.name}: {item.problem}")
        if not item.caption or not item.caption.strip():
            return Rejected("no caption", item.name)
        image = self._open(item)
        if isinstance(image, Rejected):
            return image
        caption = item.caption.strip()
        if rng.random() < self.recipe.flip and can_mirror(caption):
            caption, image = swapped(GroundedText(text=caption)).text, ImageOps.mirror(image)
        lessons: Sequence[Lesson] = [self.teacher.plain_caption(caption)]
        return pack_all(self.frames.pictures([image]), self.teacher.prefix(), lessons)

    def _open(self, item: Item) -> Image.Image | Rejected:
        assert item.place is not None
        if item.place.url is not None:  # training fetches nothing: some tar must have it
            return self.album.open(item.place.url)
        (ready,) = gather([item.place])
        if isinstance(ready, ImageError):
            return Rejected("picture unreadable", f"{item.name}: {one_line(ready)}")
        return self.album.opened(ready, item.name)
