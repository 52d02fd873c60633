"""What a process does: a unit of items -> the files of the unit.

    records.jsonl            a record for each picture that has answers, in the order of the items
    errors.jsonl             {"image", "id", "reason"} for each other item
    drawings/ crops/         where asked for: pictures with their boxes, what is inside the boxes
    thumbnails/              small pictures, for pages

All questions of a unit are answered in one call of the engine, so the files depend on the unit
alone: not on what was asked before, nor on which process it was.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from kosmos2.annotate.asking import Facts, lacking, questions_about, record_of
from kosmos2.annotate.plan import Making, Plan, Task
from kosmos2.api import Kosmos2, Question, Reply, View
from kosmos2.api.looking import prepare
from kosmos2.engine.prefixes import PrefixStore
from kosmos2.errors import ImageError, Kosmos2Error, RequestError, one_line
from kosmos2.grounding.render import crops, draw
from kosmos2.images import load, open_picture
from kosmos2.records.jsonl import text_of
from kosmos2.records.record import GroundedRecord
from kosmos2.shards import Unit
from kosmos2.sources.places import Found, Place, bytes_of, gather
from kosmos2.sources.rows import Item

RECORDS, ERRORS = "records.jsonl", "errors.jsonl"
THUMBNAIL = 512
"""Pixels of the longer side."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture made ready for the model; the picture itself is let go."""

    pixels_CYX: torch.Tensor
    facts: Facts


Prepared = list[Seen | Kosmos2Error]
"""For each item of a unit: what the model is shown, or why there is nothing."""


@dataclass(slots=True)
class _Case:
    """An item on its way to its record, or to an error."""

    item: Item
    seen: Seen
    asked: list[Question[Reply]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    error: Kosmos2Error | None = None


class Annotator:
    """A loaded model that does units. `prepare` runs in a thread beside `run`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._model = Kosmos2.load(
            plan.model, device=plan.device, dtype=plan.dtype, settings=plan.decoding.settings()
        )
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="pictures")

    def prepare(self, unit: Unit) -> Prepared:
        """Return what the model will be shown: bytes read, hashed, decoded, squashed."""
        good = [item.place for item in unit.items if item.place is not None and not item.problem]
        ready = iter(gather(good))
        size = self._model.engine.config.vision.image_size
        coming = [
            self._threads.submit(
                _see, item, self._plan, None if _is_bad(item) else next(ready), size
            )
            for item in unit.items
        ]
        return [each.result() for each in coming]

    def run(self, unit: Unit, prepared: Prepared, out: Path) -> Mapping[str, int]:
        """Write the files of a unit."""
        cases = {
            index: _Case(item, seen)
            for index, (item, seen) in enumerate(zip(unit.items, prepared, strict=True))
            if isinstance(seen, Seen)
        }
        self._forget_prompts()
        self._answer(list(cases.values()))
        records: list[tuple[Item, GroundedRecord]] = []
        errors: list[tuple[Item, str]] = []
        for index, (item, seen) in enumerate(zip(unit.items, prepared, strict=True)):
            case = cases.get(index)
            error = seen if case is None else case.error
            if case is None or error is not None:
                errors.append((item, one_line(error)))
                continue
            facts = case.seen.facts
            record = record_of(item, facts, case.asked, case.replies, self._plan)
            records.append((item, record))
        if self._plan.makings:
            make = partial(_picture_files, out, self._plan.makings)
            for (item, _), fault in zip(records, self._threads.map(make, records), strict=True):
                errors += [(item, f"its record is there, but {fault}")] if fault else []
        _write(out, [record for _, record in records], errors)
        boxes = sum(len(record.entries) for _, record in records)
        return {"annotated": len(records), "failed": len(errors), "boxes": boxes}

    def _forget_prompts(self) -> None:
        """Let go of the prompts of other units, and with them of the pictures that they hold.

        Within a unit they serve where a picture is asked about more than once.
        """
        scheduler = self._model.engine.scheduler
        several = self._plan.task in (Task.FIND, Task.DESCRIBE)
        scheduler.prefixes = PrefixStore(scheduler.limits.max_prefix_bytes if several else 0)
        if several:
            gc.collect()  # blocks of prompts know each other, so nobody else frees them

    def _answer(self, cases: Sequence[_Case]) -> None:
        """Answer all questions of a unit in one call, the longest first."""
        good: list[tuple[_Case, View]] = []
        for case, view in zip(cases, self._views(cases), strict=True):
            try:
                tokenizer = self._model.tokenizer
                case.asked = questions_about(case.item, case.seen.facts, self._plan, tokenizer)
                good.append((case, view))
            except Kosmos2Error as error:
                case.error = error
        good.sort(key=lambda pair: -max(len(asked.prompt.subject) for asked in pair[0].asked))
        try:
            self._put(good)
        except RequestError:
            # One of them cannot be answered (too long): alone, each fails for itself.
            for pair in good:
                try:
                    self._put([pair])
                except RequestError as error:
                    pair[0].error = error

    def _put(self, cases: Sequence[tuple[_Case, View]]) -> None:
        pairs = [((view,), question) for case, view in cases for question in case.asked]
        replies = iter(self._model.answer(pairs))
        for case, _ in cases:
            case.replies = [next(replies) for _ in case.asked]

    def _views(self, cases: Sequence[_Case]) -> list[View]:
        """Encode the pictures of a unit, by the batch; nothing is kept from other units."""
        views: list[View] = []
        step = self._plan.decoding.batch_size
        for start in range(0, len(cases), step):
            batch = cases[start : start + step]
            pixels_NCYX = torch.stack([case.seen.pixels_CYX for case in batch])
            latents_NQD = self._model.engine.encode_images(pixels_NCYX)
            views += [
                View(self._model, latents_QD, case.seen.facts.width, case.seen.facts.height)
                for case, latents_QD in zip(batch, latents_NQD, strict=True)
            ]
        return views


def _is_bad(item: Item) -> bool:
    return item.place is None or bool(item.problem)


def _see(item: Item, plan: Plan, found: Place | Found | None, size: int) -> Seen | Kosmos2Error:
    data = b""
    try:
        if found is None:
            raise RequestError(item.problem or "the row says nothing of a picture")
        if reason := lacking(item, plan):
            raise RequestError(reason)
        data = bytes_of(found)
        if not data:
            raise ImageError("the file is empty")
        picture = open_picture(data)
    except ImageError as error:
        # The name of the picture stands beside the reason.
        return ImageError(str(error).removeprefix(f"a picture of {len(data):,} bytes: "))
    except Kosmos2Error as error:
        return error
    ready = prepare(picture, size)
    digest = hashlib.sha256(data).hexdigest()
    facts = Facts(width=ready.width, height=ready.height, sha256=digest)
    return Seen(ready.pixels_CYX, facts)


def _picture_files(out: Path, makings: frozenset[Making], pair: tuple[Item, GroundedRecord]) -> str:
    """Write what is drawn and cut out of a picture, which is opened once more; return the fault."""
    item, record = pair
    assert item.place is not None
    try:
        (found,) = gather([item.place])
        image = load(bytes_of(found))
    except Kosmos2Error as error:
        return one_line(error)
    grounded = record.grounded("ref_exps")
    if Making.DRAWING in makings:
        _save(draw(image, grounded), out / Making.DRAWING / f"{item.stem}.jpg")
    if Making.CROPS in makings:
        for name, crop in crops(image, grounded):
            _save(crop, out / Making.CROPS / f"{item.stem}-{name}.jpg")
    if Making.THUMBNAIL in makings:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        _save(image, out / Making.THUMBNAIL / f"{thumbnail_name(record)}.jpg")
    return ""


def thumbnail_name(record: GroundedRecord) -> str:
    """Return the name of a record's small picture: only those of one unit lie together."""
    words = f"{record.id} {record.sha256}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(words).hexdigest()[:24]


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=92)


def _write(
    out: Path, records: Sequence[GroundedRecord], errors: Sequence[tuple[Item, str]]
) -> None:
    with (out / RECORDS).open("wb") as file:
        for record in records:
            file.write(text_of(record))
    with (out / ERRORS).open("wb") as file:
        for item, reason in errors:
            file.write(error_line(item, reason))


def error_line(item: Item, reason: str) -> bytes:
    """Return the line of a picture that has no record."""
    line = {"image": item.name, "id": item.id, "reason": reason}
    return (json.dumps(line, ensure_ascii=True) + "\n").encode()
