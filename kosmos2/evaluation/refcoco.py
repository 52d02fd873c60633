"""RefCOCO, RefCOCO+ and RefCOCOg as their authors publish them, and as MDETR rewrote them.

`refs(unc).p` (RefCOCO, RefCOCO+) or `refs(umd).p` (RefCOCOg), a pickled list, beside
`instances.json` (COCO; bbox is x, y, width, height in pixels). One question for each sentence:

    {"ref_id": 5, "ann_id": 1719310, "image_id": 581857, "split": "val", "category_id": 1,
     "file_name": "COCO_train2014_000000581857_16.jpg", "sent_ids": [816],
     "sentences": [{"sent_id": 816, "sent": "the lady", "raw": "The lady.", "tokens": [...]}]}

`finetune_refcoco_val.json` of MDETR: `images` and `annotations` are parallel, one of each for every
sentence, which is the caption of its image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kosmos2 import tasks
from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import box_of_xywh, field, read_json, side
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Kind,
    Problem,
    one_by_one,
    parse_found,
)
from kosmos2.evaluation.localisation import REC_TITLES, judge_rec
from kosmos2.evaluation.plain_pickle import read_plain_pickle
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

PICTURES = (
    "train2014",
    "images/train2014",
    "images/mscoco/images/train2014",
    "coco/train2014",
    "images",
    ".",
)
"""Where the pictures are looked for below the folder of the data."""
SIZES = {
    "refcoco": {"val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"val": 4_896, "test": 9_602},
}
"""Sentences of each split, as the original repository's result files count them."""
TITLES = {"refcoco": "RefCOCO", "refcoco+": "RefCOCO+", "refcocog": "RefCOCOg"}
REFS = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
"""Whose splits are used: UNC's, and UMD's for RefCOCOg."""


def rec(name: str) -> Benchmark:
    """Return the benchmark of referring expression comprehension on one of the three sets."""
    return Benchmark(
        name=name,
        title=f"Referring expression comprehension, {TITLES[name]}",
        version=1,
        kind=Kind.BOXES,
        splits=SIZES[name],
        read=partial(read, name),
        prompt=_prompt,
        parse=parse_found,
        judge=partial(one_by_one, judge_rec),
        titles=REC_TITLES,
        forms=(Form.FREE, Form.BOXES),
        protocol="prompt <grounding><phrase> EXPRESSION</phrase>; an expression counts as found "
        "where the first box that is written for it overlaps the true one with an IoU of at least "
        "0.5; no box is a miss",
        differences=(
            "annotated boxes that leave the picture by at most a pixel are cut at its border",
            'the original prints three numbers sorted under the fixed label "Precision @ 1, mean, '
            'all"; here each has its own name',
        ),
    )


def read(name: str, path: Path, split: str) -> Data:
    """Return a split from a folder, from its `refs(*).p`, or from a JSON file of MDETR's."""
    file = _file(name, path, split)
    base = path if path.is_dir() else path.parent
    folders = [root / place for root in (base, base.parent) for place in PICTURES]
    if file.suffix == ".json":
        problems, source = _of_mdetr(file, name), "MDETR's JSON"
    else:
        problems, source = _of_refer(file, split), f"{file.name} with instances.json"
    return Data(source=source, problems=problems, folders=tuple(folders))


def _file(name: str, path: Path, split: str) -> Path:
    if path.is_file():
        return path
    refs, mdetr = REFS[name], f"finetune_{name}_{split}.json"
    places = (path / name / refs, path / refs, path / mdetr, path / "OpenSource" / mdetr)
    found = [place for place in places if place.is_file()]
    if not found:
        raise RecordError(
            f"{path} has neither {name}/{refs} (with instances.json beside it) nor {mdetr}"
        )
    if len(found) > 1:
        raise RecordError(
            f"{path} has {' and '.join(str(each.relative_to(path)) for each in found)}; "
            "say with --data which file to read, as their questions have different ids"
        )
    return found[0]


def _prompt(problem: Problem, _grid: LocationGrid) -> Prompt:
    return tasks.find(problem.phrase)


def _of_refer(file: Path, split: str) -> tuple[Problem, ...]:
    refs = read_plain_pickle(file)
    if not isinstance(refs, list):
        raise RecordError(f"{file} holds no list of references but a {type(refs).__name__}")
    instances_file = file.with_name("instances.json")
    instances = read_json(instances_file)
    where = str(instances_file)
    images = {each["id"]: each for each in field(instances, "images", where)}
    things = {each["id"]: each for each in field(instances, "annotations", where)}
    nouns = {each["id"]: str(each["name"]) for each in field(instances, "categories", where)}
    alike = Counter((each["image_id"], each["category_id"]) for each in things.values())
    problems = []
    for number, ref in enumerate(refs):
        place = f"{file}, reference {number}"
        if field(ref, "split", place) != split:
            continue
        image = _known(images, field(ref, "image_id", place), place, "image")
        thing = _known(things, field(ref, "ann_id", place), place, "annotation")
        width, height = (side(field(image, name, place), place) for name in ("width", "height"))
        box = box_of_xywh(field(thing, "bbox", place), width, height, place)
        category = thing["category_id"]
        for sentence in field(ref, "sentences", place):
            text = _text(field(sentence, "sent", place), place)
            problems.append(
                Problem(
                    id=str(field(sentence, "sent_id", place)),
                    picture=str(field(image, "file_name", place)),
                    width=width,
                    height=height,
                    text=text,
                    start=0,
                    end=len(text),
                    boxes=(box,),
                    categories=(nouns[category],) if category in nouns else (),
                    distractors=alike[thing["image_id"], category] - 1,
                )
            )
    return tuple(problems)


def _of_mdetr(file: Path, name: str) -> tuple[Problem, ...]:
    """Which things share a picture is not in these files, so no distractors are counted."""
    data = read_json(file)
    images, things = (field(data, key, str(file)) for key in ("images", "annotations"))
    if len(images) != len(things):
        raise RecordError(f"{file} has {len(images)} images but {len(things)} annotations")
    nouns = {each["id"]: str(each["name"]) for each in data.get("categories", ())}
    problems = []
    for number, (image, thing) in enumerate(zip(images, things, strict=True)):
        place = f"{file}, image {number}"
        if field(image, "id", place) != field(thing, "image_id", place):
            raise RecordError(f"{place}: its annotation is that of image {thing['image_id']}")
        if (of := image.get("dataset_name", name)) != name:
            raise RecordError(f"{place}: it is of {of}, asked for is {name}")
        width, height = (side(field(image, key, place), place) for key in ("width", "height"))
        text = _text(field(image, "caption", place), place)
        category = thing.get("category_id")
        problems.append(
            Problem(
                id=f"mdetr-{image['id']}",
                picture=str(field(image, "file_name", place)),
                width=width,
                height=height,
                text=text,
                start=0,
                end=len(text),
                boxes=(box_of_xywh(field(thing, "bbox", place), width, height, place),),
                categories=(nouns[category],) if category in nouns else (),
            )
        )
    return tuple(problems)


def _known(rows: Mapping[Any, Any], id: Any, where: str, what: str) -> Any:  # noqa: ANN401
    if id not in rows:
        raise RecordError(f"{where}: instances.json has no {what} {id!r}")
    return rows[id]


def _text(value: Any, where: str) -> str:  # noqa: ANN401
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{where}: an expression has words, got {value!r}")
    return value.strip()
