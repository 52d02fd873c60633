"""Illustrated scenes written as captions of COCO and Flickr30k and as questions of VQAv2.

    coco-captions   OUT/annotations/captions_SPLIT.json, OUT/images/NAME.png
    flickr30k-captions   OUT/dataset_flickr30k.json, OUT/images/NAME.png, as Karpathy wrote it
    vqav2           OUT/v2_OpenEnded_mscoco_SPLIT_questions.json,
                    OUT/v2_mscoco_SPLIT_annotations.json, OUT/images/COCO_SPLIT_000000000001.jpg

A scene has two captions, a brief one without its "An image of", and a detailed one. All ten people
give the one true answer to its questions. Scenes made for training are of the split "train", so
that solved examples can lie beside the questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2 import tasks
from kosmos2.evaluation.vqa_answers import PEOPLE, normal
from kosmos2.scenes import Scene

TRAINING = "train"
_QUALITY = 95
"""Of JPEG, in which the pictures of VQAv2 are named to be."""


def split_of(scene: Scene, split: str) -> str:
    """Return the split of a scene among those of `split`: what was made for training stays so."""
    return TRAINING if scene.id.split(":")[1] == TRAINING else split


def write_captions(folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write scenes as COCO's captions: one file for each split."""
    (folder / "annotations").mkdir(parents=True)
    files: dict[str, dict[str, list[dict[str, Any]]]] = {}
    said = 0
    for number, (scene, name) in enumerate(with_pictures(folder, scenes), start=1):
        height, width = scene.image.shape[:2]
        file = files.setdefault(split_of(scene, split), {"images": [], "annotations": []})
        file["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for caption in _captions(scene):
            said += 1
            file["annotations"].append({"id": said, "image_id": number, "caption": caption})
        yield scene
    for name, file in files.items():
        _write(folder / "annotations" / f"captions_{name}.json", file)


def write_karpathy(folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write scenes as Karpathy's captions: one file for all splits."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    for scene, name in with_pictures(folder, scenes):
        sentences = [{"raw": each, "tokens": each.lower().split()} for each in _captions(scene)]
        own = {"filename": name, "split": split_of(scene, split), "imgid": len(images)}
        images.append({**own, "sentences": sentences})
        yield scene
    _write(folder / "dataset_flickr30k.json", {"dataset": "scenes", "images": images})


def _captions(scene: Scene) -> tuple[str, str]:
    return scene.brief.text.removeprefix(tasks.BRIEF).strip(), scene.detailed.text


def with_pictures(folder: Path, scenes: Iterable[Scene]) -> Iterator[tuple[Scene, str]]:
    """Write the picture of each scene; yield the scene and the name of the file."""
    (folder / "images").mkdir()
    for scene in scenes:
        name = f"{scene.id.replace(':', '_')}.png"
        Image.fromarray(scene.image).save(folder / "images" / name)
        yield scene, name


def write_questions(folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write the questions of scenes as VQAv2's: two files for each split."""
    (folder / "images").mkdir(parents=True)
    asked: dict[str, list[dict[str, Any]]] = {}
    answered: dict[str, list[dict[str, Any]]] = {}
    for number, scene in enumerate(scenes, start=1):
        own = split_of(scene, split)
        picture = folder / "images" / f"COCO_{own}_{number:012d}.jpg"
        Image.fromarray(scene.image).save(picture, quality=_QUALITY, subsampling=0)
        for place, item in enumerate(scene.questions):
            ids = {"image_id": number, "question_id": 1000 * number + place}
            asked.setdefault(own, []).append({**ids, "question": item.question})
            answered.setdefault(own, []).append({**ids, **_people(item.question, item.answer)})
        yield scene
    for name, rows in asked.items():
        common = {"info": {"description": "illustrated scenes of kosmos2"}, "data_subtype": name}
        of = {**common, "task_type": "Open-Ended", "data_type": "scenes", "questions": rows}
        _write(folder / f"v2_OpenEnded_mscoco_{name}_questions.json", of)
        _write(
            folder / f"v2_mscoco_{name}_annotations.json",
            {**common, "annotations": answered[name]},
        )


def _people(question: str, answer: str) -> dict[str, Any]:
    """Return what ten people say to a question, as its annotation has it.

    Without articles and with numbers as digits, as the annotations of VQAv2 come: the official
    accuracy does this to the model's answer alone.
    """
    said = normal(answer)
    kind = "yes/no" if said in ("yes", "no") else "number" if said.isdigit() else "other"
    return {
        "question_type": " ".join(question.lower().split()[:2]),
        "answer_type": kind,
        "multiple_choice_answer": said,
        "answers": [
            {"answer": said, "answer_confidence": "yes", "answer_id": person}
            for person in range(1, PEOPLE + 1)
        ],
    }


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")
