"""COCO's captions: one JSON document of pictures and of sentences about them -> items.

    {"images": [{"id": 9, "file_name": "dog.jpg"}],
     "annotations": [{"id": 38, "image_id": 9, "caption": "a dog"}]}

A sentence and its picture are one item, `dog-38`; several of a picture follow one another. Without
captions asked for, an item is a picture, `dog`. The document is held in memory, as its format asks
for; pictures are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from kosmos2.errors import RequestError, one_line
from kosmos2.sources.places import Place
from kosmos2.sources.rows import Item, Origin

_LONGEST_ROW = 1 << 24
"""Bytes of a first line; a longer one is the whole document."""

Object = Mapping[str, Any]


def is_document(path: Path) -> bool:
    """Tell whether a file is one JSON document, and not a record on each line."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_ROW)
        row = json.loads(first)
    except (OSError, ValueError):
        return True
    return not isinstance(row, dict) or "images" in row


def pictures_of(origin: Origin) -> Iterator[Item]:
    """Yield each picture of the document, without a sentence."""
    for number, image in enumerate(_document(origin)["images"], start=1):
        yield _picture(image, number, origin)


def pairs_of(origin: Origin) -> Iterator[Item]:
    """Yield each sentence with its picture; pictures without a sentence, and the reverse, too."""
    document = _document(origin)
    said: dict[object, list[tuple[int, Object]]] = {}
    for number, sentence in enumerate(document["annotations"], start=1):
        about = sentence.get("image_id") if isinstance(sentence, dict) else None
        said.setdefault(about if isinstance(about, int | str) else None, []).append(
            (number, sentence)
        )
    seen: set[object] = set()
    for number, image in enumerate(document["images"], start=1):
        item = _picture(image, number, origin)
        sentences = said.pop(image.get("id"), []) if not item.problem else []
        if not sentences:
            yield item
        for place, sentence in sentences:
            yield _pair(item, place, sentence, seen)
    for sentences in said.values():
        for place, _ in sentences:
            name = f"{origin.shown}: annotation {place}"
            yield Item(id=name, name=name, problem=f"{name} is about no picture that is listed")


def _pair(picture: Item, number: int, sentence: Object, seen: set[object]) -> Item:
    """Return a picture with one sentence. Ids are those of the sentences, where these differ."""
    own, caption = sentence.get("id"), sentence.get("caption")
    is_own = isinstance(own, int | str) and own not in seen
    seen.add(own if isinstance(own, int | str) else None)
    id = f"{picture.id}-{own}" if is_own else f"{picture.id}-no-{number}"
    name = f"{picture.name}, annotation {own if is_own else number}"
    if not isinstance(caption, str):
        problem = f"{name} has no caption that is a text"
        return Item(id=id, name=name, problem=problem)
    return replace(picture, id=id, name=name, caption=caption.strip() or None)


def _picture(image: Object, number: int, origin: Origin) -> Item:
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name or not isinstance(image.get("id"), int | str):
        where = f"{origin.shown}: image {number}"
        return Item(id=where, name=where, problem=f"{where} needs a file_name and an id")
    url = image.get("coco_url") or image.get("flickr_url")
    return Item(
        id=PurePosixPath(name).with_suffix("").as_posix(),
        name=name,
        place=Place(path=str(origin.images / name)),
        source={"image_id": image["id"], **({"url": url} if isinstance(url, str) else {})},
    )


def _document(origin: Origin) -> Mapping[str, list[Any]]:
    """Return the lists of pictures and of sentences."""
    try:
        document = json.loads(origin.path.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{one_line(origin.path)} cannot be read as JSON ({one_line(error)})"
        ) from error
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise RequestError(
            f"{one_line(origin.path)} is no captions of COCO: it must be an object with lists of "
            '"images" and "annotations". Records and rows with a picture each are .jsonl.'
        )
    sentences = document.get("annotations", [])
    return {"images": images, "annotations": sentences if isinstance(sentences, list) else []}
