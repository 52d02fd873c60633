"""Conversations that teach other models grounding: Qwen-VL, Florence-2 and LLaVA.

    {"id": "7", "image": "cats.jpg", "conversations": [
        {"from": "human", "value": "<image>\\nDescribe the image."},
        {"from": "gpt", "value": "two cats by a fire"},
        {"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}],   <- the boxes, as text
     "record": "{\\"id\\": 7, ...}"}

What the text has no place for (spans, scores, provenance) goes under the key `record`, as one
string of JSON, so that tools which want columns of one type (`datasets`) read the file too. Where
somebody edited the text, it counts, and the spans are where its words stand in the caption.
Every model has its own numbers for a box; `chat_text` has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.records.formats import carried, chat_text
from kosmos2.records.formats.chat_text import Heard, Hearer, Sayer
from kosmos2.records.formats.format import (
    KEPT,
    Feature,
    Format,
    Reader,
    Reading,
    Writer,
    Writing,
    by_span,
    each,
)
from kosmos2.records.formats.objects import (
    FOREIGN,
    as_json,
    beside,
    image_of,
    located,
    read_objects,
    understood,
    write_lines,
    write_list,
)
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord

_URLS = ("http://", "https://")
_SPANS = "spans"
"""In what is kept: [start, end, score] of each box, in the order of the text."""
_NO_VIEWS = {"noun_chunks": None, "ref_exps": None}


def _writer(say: Sayer) -> Writer:
    def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
        def item(record: GroundedRecord) -> dict[str, Any]:
            picture = record.image or record.url
            if picture is None:
                raise RecordError(f"record {record.id}: a conversation needs a picture or its url")
            groups = by_span(record.entries)
            phrases = [
                (record.caption[start:end], [entry.box for entry in group])
                for (start, end), group in groups.items()
            ]
            said = say(record.caption, phrases, lambda: writing.pictures.size(record))
            name = picture if record.id is None else str(record.id)
            return {"id": name, "image": picture, **said, "record": _kept(record, groups)}

        named = ((f"record {record.id}", record) for record in records)
        write_objects = write_lines if path.suffix == ".jsonl" else write_list
        write_objects(each(named, item, writing.refuse), path)

    return write


def _kept(record: GroundedRecord, groups: Mapping[tuple[int, int], list[Grounded]]) -> str:
    spans = [[*span, entry.score] for span, group in groups.items() for entry in group]
    return as_json({**beside(record, "image", "caption"), _SPANS: spans})


def _reader(hear: Hearer, what: str) -> Reader:
    def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
        def record(item: dict[str, Any]) -> GroundedRecord:
            kept: dict[str, Any] = {**FOREIGN, "id": item.get("id")}
            if "record" in item:
                kept = json.loads(item["record"])
            known = kept.pop(_SPANS, ())
            name = chat_text.picture_of(item)
            if name is not None and name.startswith(_URLS):
                kept["url"] = name
            elif name is not None:
                kept["image"] = image_of(name, path, reading)
            bare = GroundedRecord.from_dict({**kept, "caption": "", **_NO_VIEWS})
            caption, heard = hear(item, lambda: Pictures(path.parent).size(bare))
            caption, entries = _entries(caption, heard, known)
            return carried.whole({**kept, "caption": caption}, entries)

        yield from each(read_objects(path), understood(record, what), reading.refuse)

    return read


def _entries(
    caption: str, heard: Sequence[Heard], known: Sequence[tuple[int, int, float | None]]
) -> tuple[str, tuple[Grounded, ...]]:
    """Return the spans and scores that were kept, where they still say what the text says."""
    if len(known) == len(heard) and all(
        caption[start:end] == item.label for (start, end, _), item in zip(known, heard, strict=True)
    ):
        return caption, tuple(
            Grounded(start, end, *item.box.corners, score)
            for (start, end, score), item in zip(known, heard, strict=True)
        )
    entries: list[Grounded] = []
    for item in heard:
        if item.start is None:
            caption, found = located(caption, [(item.label, item.box, None)])
            entries += found
        else:
            end = item.start + len(item.label)
            entries.append(Grounded(item.start, end, *item.box.corners, None))
    return caption, tuple(entries)


def _format(
    name: str, title: str, coordinates: str, rounding: str, text: tuple[Sayer, Hearer]
) -> Format:
    say, hear = text
    return Format(
        name=name,
        title=title,
        layout="a JSON list (.json) or JSON lines (.jsonl); pictures stay where they are",
        coordinates=coordinates,
        carries={
            **dict.fromkeys(Feature, KEPT),
            Feature.VIEWS: "kept, the boxes of expressions as below",
            Feature.BOXES: rounding,
        },
        read=_reader(hear, title),
        write=_writer(say),
    )


QWEN = _format(
    "qwen",
    "Qwen-VL conversations (written as for Qwen3-VL; the older forms are read too)",
    'JSON `"bbox_2d": [x0, y0, x1, y1]`, whole thousandths of the picture (0 to 1000), no pixels',
    "rounded to a thousandth of the picture",
    (chat_text.say_qwen, chat_text.hear_qwen),
)
FLORENCE = _format(
    "florence",
    "Florence-2 phrase grounding (prefix and suffix)",
    "`<loc_x0><loc_y0><loc_x1><loc_y1>`, each the bin 0 to 999 that the corner lies in",
    "moved to the middle of one of 1000 bins: by half a thousandth of the picture",
    (chat_text.say_florence, chat_text.hear_florence),
)
LLAVA = _format(
    "llava",
    "LLaVA conversations",
    "`[x0, y0, x1, y1]`, shares of the picture (0 to 1) with 3 decimals",
    "rounded to a thousandth of the picture",
    (chat_text.say_llava, chat_text.hear_llava),
)
LLAVA_SQUARE = _format(
    "llava-square",
    "LLaVA-1.5 conversations",
    "`[x0, y0, x1, y1]`, shares (0 to 1) of the picture padded to a square, with 3 decimals, as "
    "LLaVA-1.5 was taught",
    "rounded to a thousandth of the picture's longer side",
    (chat_text.say_llava_square, chat_text.hear_llava_square),
)
