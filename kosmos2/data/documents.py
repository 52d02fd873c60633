"""Documents of text and pictures in turn, as the web has them.

    MMC4      {"text_list": ["Once ...", "Then ..."], "url": "...", "similarity_matrix": [[...]],
               "image_info": [{"image_name": "a.jpg", "raw_url": "...", "matched_text_index": 1,
                               "matched_sim": 0.27}]}
    OBELICS   {"images": [null, "https://...", null], "texts": ["Once", null, "Then"],
               "metadata": "[...]", "general_metadata": "{...}"}

MMC4 puts a picture before the sentence that it matches; in OBELICS the two lists say the order.
A document without a picture that could be read is text. Every word is learnt, no picture is.
Of a document that is longer than the model has positions, the beginning is learnt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from kosmos2.data.album import MISSING, Album
from kosmos2.data.collate import Row, pack_all
from kosmos2.data.frames import Frames
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Passage, Teacher
from kosmos2.data.lines import Lines
from kosmos2.data.recipe import SourceRecipe


@dataclass(frozen=True, slots=True)
class PictureName:
    """A picture's place in a document: the names under which it may be found."""

    names: tuple[str, ...]


Part = str | PictureName
_CUT = "end cut off"


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Rows of documents, each file in one of the layouts above."""

    lines: Lines
    album: Album
    teacher: Teacher
    frames: Frames
    recipe: SourceRecipe
    most_positions: int

    def __len__(self) -> int:
        return len(self.lines)

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        """Return the row of a document; pictures that cannot be had are left out and counted."""
        where, fields = self.lines.where(number), self.lines.fields(number)
        if isinstance(fields, Rejected):
            return fields
        left_out: list[Rejected] = []
        parts = _parts(fields, self.recipe.min_similarity, left_out, where)
        if isinstance(parts, Rejected):
            return parts
        opened = self._open(parts, left_out, where)
        return self._row(opened, left_out, where)

    def _open(
        self, parts: Sequence[Part], left_out: list[Rejected], where: str
    ) -> list[str | Image.Image]:
        found: list[str | Image.Image] = []
        pictures = 0
        for part in parts:
            if isinstance(part, str):
                found.append(part)
            elif pictures == self.recipe.max_pictures:
                left_out.append(Rejected("more than max_pictures", f"{where}: {part.names}"))
            else:
                image = self._picture(part)
                if isinstance(image, Rejected):
                    left_out.append(replace(image, detail=f"{where}: {image.detail}"))
                else:
                    found.append(image)
                    pictures += 1
        return found

    def _picture(self, part: PictureName) -> Image.Image | Rejected:
        faults = []
        for name in part.names:
            found = self.album.open(name)
            if isinstance(found, Image.Image):
                return found
            faults.append(found)
        return next((each for each in faults if each.reason != MISSING), faults[-1])

    def _row(
        self, parts: Sequence[str | Image.Image], left_out: list[Rejected], where: str
    ) -> Row | Rejected:
        vocabulary, encode = self.teacher.vocabulary, self.teacher.tokenizer.encode_text
        slot_ids, slot_mask = (each[1:] for each in self.teacher.prefix())  # without <s>
        room = self.most_positions - 1  # <s> has a position too
        ids: list[int] = []
        learnt: list[bool] = []
        mask: list[bool] = []
        shown: list[Image.Image] = []
        for part in parts:
            is_text = isinstance(part, str)
            new = encode(part) if isinstance(part, str) else list(slot_ids)
            fitting = new[: room - len(ids)]
            if is_text or len(fitting) == len(new):
                ids += fitting
                learnt += [is_text] * len(fitting)
                mask += [False] * len(fitting) if is_text else list(map(bool, slot_mask))
                shown += [] if isinstance(part, str) else [part]
            if len(fitting) < len(new):
                left_out.append(Rejected(_CUT, f"{where}: {room} positions are full"))
                break
        if not any(learnt):
            return Rejected("no words", where)
        if len(ids) < room and not _is_cut(left_out):
            ids, learnt, mask = [*ids, vocabulary.eos], [*learnt, True], [*mask, False]
        passage = Passage(ids=tuple(ids), learnt=tuple(learnt), image_mask=tuple(mask))
        row = pack_all(self.frames.pictures(shown), self.teacher.begin(), [passage])
        return replace(row, left_out=tuple(left_out))


def _is_cut(left_out: Sequence[Rejected]) -> bool:
    return any(each.reason == _CUT for each in left_out)


def _parts(
    fields: Mapping[str, Any], min_similarity: float, left_out: list[Rejected], where: str
) -> list[Part] | Rejected:
    """Return texts and pictures in reading order."""
    if isinstance(fields.get("text_list"), Sequence):
        return _mmc4(fields, min_similarity, left_out, where)
    if isinstance(fields.get("texts"), Sequence) and isinstance(fields.get("images"), Sequence):
        return _obelics(fields, where)
    return Rejected("no layout that is known", f"{where}: {', '.join(map(str, fields))}"[:160])


def _mmc4(
    fields: Mapping[str, Any], min_similarity: float, left_out: list[Rejected], where: str
) -> list[Part] | Rejected:
    texts = fields["text_list"]
    if not texts or not all(isinstance(text, str) for text in texts):
        return Rejected("no text", where)
    before: dict[int, list[PictureName]] = {}
    infos = fields.get("image_info")
    for each in infos if isinstance(infos, Sequence) else ():
        info = each if isinstance(each, Mapping) else {}
        place, names = info.get("matched_text_index"), _names(info)
        similarity = info.get("matched_sim")
        if not isinstance(place, int) or not 0 <= place < len(texts) or not names:
            left_out.append(Rejected("picture without place", f"{where}: {each}"[:160]))
        elif isinstance(similarity, int | float) and similarity < min_similarity:
            left_out.append(Rejected("matched_sim below min_similarity", f"{where}: {similarity}"))
        else:
            before.setdefault(place, []).append(PictureName(names))
    return [part for n, text in enumerate(texts) for part in (*before.get(n, ()), text)]


def _names(info: Mapping[str, Any]) -> tuple[str, ...]:
    found = (info.get("image_name"), info.get("raw_url"))
    return tuple(name for name in found if isinstance(name, str) and name)


def _obelics(fields: Mapping[str, Any], where: str) -> list[Part] | Rejected:
    images, texts = fields["images"], fields["texts"]
    if len(images) != len(texts):
        detail = f"{where}: {len(images)} images, {len(texts)} texts"
        return Rejected("lists of unequal length", detail)
    parts: list[Part] = []
    for image, text in zip(images, texts, strict=True):
        if (image is None) == (text is None):
            return Rejected("neither text nor picture, or both", where)
        parts.append(text if image is None else PictureName((str(image),)))
    return (
        parts
        if all(isinstance(each, str | PictureName) for each in parts)
        else (Rejected("no text", f"{where}: {json.dumps(texts)[:80]}"))
    )
