"""What a process does: a unit of image-text pairs -> what was found in them.

    looked.jsonl.gz    for each pair, in order: what linking needs, or why there is nothing

The detector is asked for a constant number of pairs at a time, so that the file depends on the
unit alone: not on what was asked before, nor on which process it was.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2.errors import ImageError, Kosmos2Error, one_line
from kosmos2.grit import quality
from kosmos2.grit.detect import load
from kosmos2.grit.language import Parser
from kosmos2.grit.recipe import GritRecipe
from kosmos2.grit.steps import Discarded, Funnel, Looked, Pair, look
from kosmos2.images import open_picture
from kosmos2.records.record import GroundedRecord
from kosmos2.shards import Unit
from kosmos2.sources.places import Found, Place, bytes_of, gather
from kosmos2.sources.rows import Item

LOOKED = "looked.jsonl.gz"
LEAST_TOGETHER, BATCHES_TOGETHER = 32, 8
MOST_TOGETHER = 512
"""Decoded pictures wait in memory: 512 of the longest side, twice, are 5 GB at the very worst, and
0.6 GB where they are 640 x 480."""
LONGEST_SIDE = 1333
"""Pixels to which a picture is shrunk before it waits for the detector: none of them reads more."""

Bytes = bytes | Kosmos2Error
"""What `prepare` leaves of an item: the bytes of its picture, or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What travels to every worker: all that the files of a unit depend on."""

    recipe: GritRecipe
    base: Path
    """The folder that paths in records start from. Absolute."""


class Looker:
    """A parser and a detector that do units. `prepare` runs in a thread beside `run`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._parser = Parser(plan.recipe.language)
        # Loaded now: what is absent ends the run, and is no fault of a unit.
        self.language = self._parser.version
        self._detector = load(plan.recipe.detection)
        self._scorers = quality.load(plan.recipe)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictures")

    def prepare(self, unit: Unit) -> list[Bytes]:
        """Return the bytes of each picture as its file has them: decoded they would fill memory."""
        ready = iter(gather([item.place for item in unit.items if item.place is not None]))
        found: list[Place | Found] = [
            ImageError(item.problem or "the row names no picture")
            if item.place is None
            else next(ready)
            for item in unit.items
        ]
        return list(self._threads.map(_bytes, found))

    def run(self, unit: Unit, prepared: Sequence[Bytes], out: Path) -> Mapping[str, int]:
        """Write the file of a unit and return its funnel as counts."""
        funnel = Funnel()
        with _writer(out / LOOKED) as file:
            for pairs in self._pairs(unit.items, prepared):
                for line in self._lines(pairs, funnel):
                    file.write(line)
        return funnel.to_counts()

    def _pairs(
        self, items: Sequence[Item], prepared: Sequence[Bytes]
    ) -> Iterator[list[Pair | Discarded]]:
        """Yield pairs with their pictures decoded, those of the next call while one is used."""
        coming: list[Future[Pair | Discarded]] = []
        size = together(self._plan.recipe)
        for start in range(0, len(items) + size, size):
            ready, chunk = coming, slice(start, start + size)
            coming = [
                self._threads.submit(_pair, item, data, self._plan.base)
                for item, data in zip(items[chunk], prepared[chunk], strict=True)
            ]
            if ready:
                yield [each.result() for each in ready]

    def _lines(self, pairs: Sequence[Pair | Discarded], funnel: Funnel) -> Iterator[bytes]:
        good = [pair for pair in pairs if isinstance(pair, Pair)]
        recipe, parser, detector = self._plan.recipe, self._parser, self._detector
        looked = iter(look(good, recipe, parser, detector, funnel, self._scorers))
        for pair in pairs:
            if isinstance(pair, Discarded):
                funnel.pairs.entered += 1
                funnel.pairs.dropped[pair.reason] += 1
                yield _line(pair)
            else:
                yield _line(next(looked))


def together(recipe: GritRecipe) -> int:
    """Return how many pairs are decoded, parsed and looked at together.

    Detectors batch pictures of one shape. In a call of eight batches some four shapes fill theirs;
    in a call of 32 pictures batches of 16 would stay half empty. It hangs on the recipe alone:
    on a GPU the last bits of a score may depend on who shares a batch, and the file must not.
    """
    wanted = max(LEAST_TOGETHER, BATCHES_TOGETHER * recipe.detection.batch_size)
    return min(wanted, MOST_TOGETHER)


def read_looked(path: Path) -> Iterator[Looked | Discarded]:
    """Yield what a unit's file holds."""
    with gzip.open(path, "rb") as lines:
        for line in lines:
            row = json.loads(line)
            yield Discarded(**row["dropped"]) if "dropped" in row else Looked.from_dict(row)


def shrunk(image: Image.Image) -> Image.Image:
    """Return a picture as detectors and hashes see it: the same, or a smaller copy."""
    if max(image.size) > LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    return image


def _line(each: Looked | Discarded) -> bytes:
    row: dict[str, Any]
    if isinstance(each, Discarded):
        row = {"dropped": {"id": each.id, "reason": each.reason, "detail": each.detail}}
    else:
        row = each.to_dict()
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _writer(path: Path) -> gzip.GzipFile:
    """Return a file whose bytes do not tell when it was written."""
    return gzip.GzipFile(path, "wb", compresslevel=5, mtime=0)


def _bytes(found: Place | Found) -> Bytes:
    try:
        return bytes_of(found)
    except Kosmos2Error as error:
        return error


def _pair(item: Item, data: Bytes, base: Path) -> Pair | Discarded:
    """Return an item with its picture open, or why it is no pair."""
    id = str(item.id)
    if not item.caption:
        return Discarded(id, "no caption", item.name)
    try:
        if isinstance(data, Kosmos2Error):
            raise data
        picture = open_picture(data)
    except Kosmos2Error as error:
        return Discarded(id, "no picture", one_line(f"{item.name}: {error}"))
    image, shard = item.place.in_record(base) if item.place else (None, None)
    where = {"image": image, "shard": shard}
    record = GroundedRecord.from_dict(
        {
            "id": item.id,
            **{key: value for key, value in where.items() if value is not None},
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": picture.width,
            "height": picture.height,
            "caption": item.caption,
            "noun_chunks": None,
            "ref_exps": None,
            **{key: value for key, value in item.source.items() if key not in _OURS},
        }
    )
    return Pair(id=id, caption=item.caption, image=shrunk(picture.image), record=record)


_OURS = ("id", "image", "shard", "width", "height", "caption", "noun_chunks", "ref_exps")
