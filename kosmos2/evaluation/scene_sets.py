"""Illustrated scenes written in the file formats of the benchmarks, to run their commands on.

    refcoco     OUT/refcoco/refs(unc).p, OUT/refcoco/instances.json, OUT/images/NAME.png
    refcoco+    the same under OUT/refcoco+/
    refcocog    the same under OUT/refcocog/, with refs(umd).p; for refcocog-reg too
    flickr30k   OUT/SPLIT.txt, OUT/Sentences/ID.txt, OUT/Annotations/ID.xml, OUT/images/ID.png;
                for flickr30k-grounded too
    seed-bench, pope                            see `scene_questions`
    coco-captions, flickr30k-captions, vqav2    see `scene_words`

The split has the name of the scenes' own: `kosmos2 eval refcoco --data OUT --split iid --own-data`.
Scenes know which expressions are true of one thing alone; all of them become questions.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from PIL import Image

from kosmos2.boxes import Box
from kosmos2.errors import RequestError
from kosmos2.evaluation.refcoco import REFS
from kosmos2.evaluation.scene_questions import write_pope, write_seed_bench
from kosmos2.evaluation.scene_words import (
    split_of,
    write_captions,
    write_karpathy,
    write_questions,
)
from kosmos2.grounding.spans import GroundedText
from kosmos2.scenes import Scene
from kosmos2.scenes.nouns import all_nouns

KINDS: Mapping[str, str] = {
    "animal": "animals",
    "clothing": "clothing",
    "music": "instruments",
    "person": "people",
    "place": "scene",
    "sky": "scene",
    "vehicle": "vehicles",
}
"""Category of a noun → kind of phrase in Flickr30k Entities; all others are "other"."""
_WORDS = re.compile(r"[\w'-]+|[^\w\s]")

Writer = Callable[[Path, Iterable[Scene], str], Iterator[Scene]]
"""Writes scenes of a split into a folder, yielding each as it is written; the index comes last."""


def check_empty(folder: Path) -> None:
    """Refuse a folder that has anything in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} is there already and not empty; name another")


@dataclass(slots=True)
class _Coco:
    """instances.json and the references, as they grow."""

    categories: Mapping[str, int]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    refs: list[dict[str, Any]] = field(default_factory=list)
    sentences: int = 0

    def add(self, scene: Scene, file_name: str, split: str) -> None:
        """Add every thing of a scene, and a reference for those that expressions tell apart."""
        height, width = scene.image.shape[:2]
        image_id = len(self.images) + 1
        self.images.append(
            {"id": image_id, "file_name": file_name, "width": width, "height": height}
        )
        for group in scene.groups:
            for box in group.boxes:
                category = self.categories[group.noun]
                xywh = [a * b for a, b in zip(box.to_xywh(), (width, height) * 2, strict=True)]
                thing = {
                    "id": len(self.annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": xywh,
                    "area": xywh[2] * xywh[3],
                    "iscrowd": 0,
                }
                self.annotations.append(thing)
                said = [item.expression for item in scene.referring if item.box == box]
                if said:
                    said = list(dict.fromkeys(said))
                    self._refer(thing, said, file_name, split_of(scene, split))

    def _refer(self, thing: Mapping[str, Any], said: list[str], file_name: str, split: str) -> None:
        rows = [
            {"sent_id": self.sentences + number, "sent": text, "raw": text, "tokens": text.split()}
            for number, text in enumerate(said, start=1)
        ]
        self.sentences += len(said)
        ref_id = len(self.refs) + 1
        self.refs.append(
            {
                "ref_id": ref_id,
                "ann_id": thing["id"],
                "image_id": thing["image_id"],
                "category_id": thing["category_id"],
                # As in the real files: with the number of the reference.
                "file_name": file_name.replace(".png", f"_{ref_id}.png"),
                "split": split,
                "sent_ids": [row["sent_id"] for row in rows],
                "sentences": rows,
            }
        )


def write_refs(name: str, folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write scenes as RefCOCO is published: a reference for each thing that can be told apart."""
    nouns = {noun: number for number, noun in enumerate(all_nouns(), start=1)}
    coco = _Coco(nouns)
    own, pictures = folder / name, folder / "images"
    own.mkdir(parents=True)
    pictures.mkdir()
    for scene in scenes:
        file_name = f"{scene.id.replace(':', '_')}.png"
        Image.fromarray(scene.image).save(pictures / file_name)
        coco.add(scene, file_name, split)
        yield scene
    instances = {
        "info": {"description": "illustrated scenes of kosmos2"},
        "images": coco.images,
        "annotations": coco.annotations,
        "categories": [{"id": number, "name": noun} for noun, number in nouns.items()],
    }
    (own / "instances.json").write_text(json.dumps(instances) + "\n", encoding="utf-8")
    (own / REFS[name]).write_bytes(pickle.dumps(coco.refs, protocol=2))


def write_flickr(folder: Path, scenes: Iterable[Scene], split: str) -> Iterator[Scene]:
    """Write scenes as Flickr30k Entities: two sentences each, whose phrases name entities."""
    for name in ("Annotations", "Sentences", "images"):
        (folder / name).mkdir(parents=True)
    ids = []
    for number, scene in enumerate(scenes, start=1):
        id = str(number)
        Image.fromarray(scene.image).save(folder / "images" / f"{id}.png")
        entities: dict[tuple[Box, ...], str] = {}
        lines = [_sentence(text, scene, entities) for text in (scene.brief, scene.detailed)]
        (folder / "Sentences" / f"{id}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "Annotations" / f"{id}.xml").write_text(
            _annotation(f"{id}.png", scene, entities), encoding="utf-8"
        )
        ids.append(id)
        yield scene
    (folder / f"{split}.txt").write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")


FORMATS: Mapping[str, Writer] = {
    "refcoco": partial(write_refs, "refcoco"),
    "refcoco+": partial(write_refs, "refcoco+"),
    "refcocog": partial(write_refs, "refcocog"),
    "flickr30k": write_flickr,
    "seed-bench": write_seed_bench,
    "pope": write_pope,
    "coco-captions": write_captions,
    "flickr30k-captions": write_karpathy,
    "vqav2": write_questions,
}
"""Benchmark → who writes scenes as its data."""
WITH_EXAMPLES = (
    *("refcoco", "refcoco+", "refcocog"),
    *("coco-captions", "flickr30k-captions", "vqav2"),
)
"""Those that keep scenes of training apart, as a split of solved examples."""


def _sentence(text: GroundedText, scene: Scene, entities: dict[tuple[Box, ...], str]) -> str:
    """Return a caption in words with blanks between; phrases of equal boxes are one entity."""
    parts, cursor = [], 0
    for phrase in text.phrases:
        entity = entities.setdefault(phrase.boxes, str(len(entities) + 1))
        words = _WORDS.findall(text.phrase_text(phrase))
        parts += _WORDS.findall(text.text[cursor : phrase.start])
        parts.append(f"[/EN#{entity}/{_kind(phrase.boxes, scene)} {' '.join(words)}]")
        cursor = phrase.end
    return " ".join([*parts, *_WORDS.findall(text.text[cursor:])])


def _kind(boxes: tuple[Box, ...], scene: Scene) -> str:
    noun = next(group.noun for group in scene.groups if set(boxes) & set(group.boxes))
    return KINDS.get(all_nouns()[noun].category, "other")


def _annotation(file_name: str, scene: Scene, entities: Mapping[tuple[Box, ...], str]) -> str:
    height, width = scene.image.shape[:2]
    things = []
    for boxes, entity in entities.items():
        for box in boxes:
            corners = (round(side) for side in box.to_pixels(width=width, height=height))
            sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            bounds = "".join(f"<{key}>{value}</{key}>" for key, value in sides)
            things.append(f"<object><name>{entity}</name><bndbox>{bounds}</bndbox></object>\n")
    size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
    return (
        f"<annotation>\n<filename>{escape(file_name)}</filename>\n<size>{size}</size>\n"
        f"{''.join(things)}</annotation>\n"
    )
