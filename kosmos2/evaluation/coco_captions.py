"""Captions of COCO: Karpathy's split, BLIP's files of it, or COCO's own.

dataset_coco.json           as dataset_flickr30k.json, see captions; filepath "val2014"
coco_karpathy_test.json     [{"image": "val2014/COCO_val2014_000000391895.jpg",
                              "caption": ["A man with a red helmet ...", ...]}]; the training
                            split has a row for each caption instead, with a text in it
captions_NAME.json          {"images": [{"id": 1, "file_name": "1.jpg", "width": 640, ...}],
                             "annotations": [{"id": 7, "image_id": 1, "caption": "A man"}]}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import field, read_json, side
from kosmos2.evaluation.benchmark import Data, Problem
from kosmos2.evaluation.karpathy import read_karpathy

SPLITS = {"val": 25_010, "test": 25_010}
"""Captions of the 5,000 pictures of each of Karpathy's splits."""
PICTURES = ("val2014", "train2014", "images/val2014", "images/train2014", "images", ".")

Reader = Callable[[Path, str], tuple[Problem, ...]]


def read(path: Path, split: str) -> Data:
    """Return one question for each picture, from whichever of the files is there."""
    file, reader, source = _file(path, split)
    roots = (file.parent, file.parent.parent)
    folders = tuple(root / place for root in roots for place in PICTURES)
    return Data(source=source, problems=reader(file, split), folders=folders)


def _file(path: Path, split: str) -> tuple[Path, Reader, str]:
    kinds: Mapping[str, tuple[Reader, str]] = {
        "dataset_coco.json": (read_karpathy, "Karpathy's JSON"),
        f"coco_karpathy_{split}.json": (_of_blip, "BLIP's JSON of Karpathy's split"),
        f"captions_{split}.json": (_of_coco, "COCO's captions"),
    }
    if path.is_file():
        known = [kind for name, kind in kinds.items() if path.name == name]
        if not known:
            raise RecordError(f"{path} is none of {', '.join(kinds)}")
        return path, *known[0]
    places = [root / name for root in (path, path / "annotations") for name in kinds]
    found = [place for place in places if place.is_file()]
    if not found:
        raise RecordError(f"{path} has none of {', '.join(kinds)}")
    return found[0], *kinds[found[0].name]


def _of_blip(file: Path, _split: str) -> tuple[Problem, ...]:
    said: dict[str, list[str]] = {}
    for number, row in enumerate(read_json(file)):
        where = f"{file}, row {number}"
        captions = field(row, "caption", where)
        captions = [captions] if isinstance(captions, str) else list(captions)
        said.setdefault(Path(str(field(row, "image", where))).name, []).extend(map(str, captions))
    return tuple(_problem(name, captions, 0, 0, str(file)) for name, captions in said.items())


def _of_coco(file: Path, _split: str) -> tuple[Problem, ...]:
    content = read_json(file)
    said: dict[Any, list[str]] = {}
    for number, row in enumerate(field(content, "annotations", str(file))):
        where = f"{file}, annotation {number}"
        said.setdefault(field(row, "image_id", where), []).append(str(field(row, "caption", where)))
    problems = []
    for number, image in enumerate(field(content, "images", str(file))):
        where = f"{file}, image {number}"
        width, height = (side(field(image, name, where), where) for name in ("width", "height"))
        name, captions = str(field(image, "file_name", where)), said.pop(image.get("id"), [])
        problems.append(_problem(name, captions, width, height, where))
    if said:
        raise RecordError(f"{file} has captions of image {next(iter(said))!r}, but no such image")
    return tuple(problems)


def _problem(name: str, captions: list[str], width: int, height: int, where: str) -> Problem:
    if not captions:
        raise RecordError(f"{where}: {name} has no captions")
    return Problem(id=name, picture=name, width=width, height=height, references=tuple(captions))
