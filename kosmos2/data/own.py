"""Somebody's own records, looked at before they are learnt: what each says, and why others cannot.

All pictures are opened once. Records of one picture, told by its pixels, stay on one side when a
part is held out, whatever their files are called.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from kosmos2.data.album import Album
from kosmos2.data.captions import picture_of
from kosmos2.data.grounded import checked, grounded, roots, without_overlaps
from kosmos2.data.ledger import Ledger, Rejected
from kosmos2.data.lines import Lines
from kosmos2.errors import RecordError
from kosmos2.grounding.spans import GroundedText
from kosmos2.records.record import GroundedRecord
from kosmos2.records.select import Parts, identity
from kosmos2.vocab.tokenizer import Tokenizer

Row = tuple[str, Mapping[str, Any] | Rejected]
"""Where a record lies, for messages, and its fields."""
OWN = 0
"""The number of the only source in the ledger."""
VIEW = "ref_exps"
"""Which boxes of a caption: those of sources by default."""
_MOST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class OwnRecord:
    """A record that can be learnt."""

    name: str
    """Its id, else its place."""
    fields: Mapping[str, Any] = field(repr=False)
    text: GroundedText
    """The caption and its boxes (normalised), as training sees them."""
    content: str
    """A hash of the picture's pixels."""
    named: GroundedRecord = field(repr=False)
    """The record's id and picture alone, by which `records.select` knows it."""


def usable(rows: Iterable[Row], album: Album, ledger: Ledger) -> Iterator[OwnRecord]:
    """Yield the records that can be learnt; what cannot, and boxes that cannot, are counted."""
    for where, fields in rows:
        found = fields if isinstance(fields, Rejected) else _looked_at(fields, where, album, ledger)
        if isinstance(found, Rejected):
            ledger.reject(OWN, [found])
            continue
        ledger.used[OWN] += 1
        yield found


def rows_of(lines: Lines) -> Iterator[Row]:
    """Yield the rows of a store that was opened for training."""
    for number in range(len(lines)):
        yield lines.where(number), lines.fields(number)


def with_words(
    records: Iterable[OwnRecord], tokenizer: Tokenizer, ledger: Ledger
) -> Iterator[OwnRecord]:
    """Yield the records that the vocabulary can spell: no model learns from words it cannot say."""
    for record in records:
        if missing := unspelt(record.text.text, tokenizer):
            words = ", ".join(dict.fromkeys(missing))
            ledger.used[OWN] -= 1
            ledger.reject(OWN, [Rejected("words cannot be spelt", f"{record.name}: {words}")])
            continue
        yield record


def unspelt(text: str, tokenizer: Tokenizer) -> list[str]:
    """Return the words of a text that have characters unknown to the vocabulary, in their order."""
    unknown = tokenizer.vocabulary.unk
    return [word for word in text.split() if unknown in tokenizer.encode_text(word)]


def spelt_by_letters(records: Iterable[OwnRecord], tokenizer: Tokenizer) -> Counter[str]:
    """Count the words that the vocabulary spells in pieces half as many as they have letters."""
    counts: Counter[str] = Counter()
    for record in records:
        for word in record.text.text.split():
            letters = word.strip(".,;:!?\"'()")
            pieces = [id for id in tokenizer.encode_text(letters) if id not in tokenizer.blanks]
            if len(pieces) > max(2, len(letters) / 2):
                counts[letters] += 1
    return counts


def held_out(records: Sequence[OwnRecord], share: float) -> tuple[list[OwnRecord], list[OwnRecord]]:
    """Return what is learnt and what is kept for questions, chosen by hashes of the ids.

    The hash is that of `kosmos2 records split`. Records of one picture go with the one whose id
    comes first. With few records the hash may choose none: then the share grows until it does.
    """
    first: dict[str, GroundedRecord] = {}
    for record in records:
        other = first.setdefault(record.content, record.named)
        first[record.content] = min(other, record.named, key=identity)
    chosen: set[str] = set()
    while not chosen and share < _MOST_SHARE:
        parts = Parts((1 - share, share))
        chosen = {content for content, named in first.items() if parts.of(named)}
        share = 1.25 * share
    kept = [record for record in records if record.content in chosen]
    learnt = [record for record in records if record.content not in chosen]
    return learnt, kept


def without_pictures_of(
    records: Iterable[OwnRecord], others: Iterable[OwnRecord], ledger: Ledger
) -> Iterator[OwnRecord]:
    """Yield the records whose picture none of the others shows."""
    shown = {other.content for other in others}
    for record in records:
        if record.content in shown:
            ledger.used[OWN] -= 1
            ledger.reject(OWN, [Rejected("picture is held out", record.name)])
            continue
        yield record


def _looked_at(
    fields: Mapping[str, Any], where: str, album: Album, ledger: Ledger
) -> OwnRecord | Rejected:
    found = checked(fields, where, view=VIEW, min_score=0.0)
    if isinstance(found, Rejected):
        return found
    text, lost = without_overlaps(roots(grounded(found.caption, found.entries)), where)
    ledger.reject(OWN, (*found.left_out, *lost))
    keys = ("id", "image", "shard", "url")
    no_boxes = {"noun_chunks": None, "ref_exps": None, "caption": found.caption}
    try:
        named = GroundedRecord.from_dict({**{key: fields.get(key) for key in keys}, **no_boxes})
    except RecordError as error:
        return Rejected("id or picture is no name", f"{where}: {error}")
    image = picture_of(fields, where, album)
    if isinstance(image, Rejected):
        return image
    name = where if named.id is None else str(named.id)
    return OwnRecord(name, fields, text, _content(image), named)


def _content(image: Image.Image) -> str:
    pixels = image.convert("RGB")
    digest = hashlib.sha256(f"{pixels.size}".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()
