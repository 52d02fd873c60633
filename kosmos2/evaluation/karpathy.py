"""Captions of Karpathy's splits, `dataset_flickr30k.json` and `dataset_coco.json`:

{"images": [{"filename": "1007129816.jpg", "split": "test", "imgid": 66,
             "sentences": [{"raw": "The man with pierced ears is wearing glasses ...", ...}]}]}
"""

from __future__ import annotations

from pathlib import Path

from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import field, read_json
from kosmos2.evaluation.benchmark import Problem


def read_karpathy(file: Path, split: str) -> tuple[Problem, ...]:
    """Return one question for each picture of a split; sides are not told."""
    problems = []
    for number, image in enumerate(field(read_json(file), "images", str(file))):
        where = f"{file}, image {number}"
        if field(image, "split", where) != split:
            continue
        said = tuple(str(field(each, "raw", where)) for each in field(image, "sentences", where))
        if not said:
            raise RecordError(f"{where} has no sentences")
        name = str(field(image, "filename", where))
        problems.append(Problem(id=name, picture=name, width=0, height=0, references=said))
    return tuple(problems)
