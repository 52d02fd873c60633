"""Small data sets written in the exact formats of the benchmarks, for their readers."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 640, 480
# image_id, ann_id, category_id, bbox (x, y, w, h), split, sentences
REFS: Sequence[tuple[int, int, int, list[float], str, list[str]]] = (
    (581857, 1719310, 1, [64.0, 48.0, 128.0, 96.0], "val", ["the lady", "woman on  left"]),
    (581857, 1719311, 1, [400.5, 100.25, 239.5, 379.75], "val", ["man"]),
    (581857, 1719312, 18, [10.0, 10.0, 50.0, 50.0], "train", ["the dog"]),
    (42, 7, 18, [0.0, 0.0, 640.4, 480.0], "val", ["the dog that fills the whole picture"]),
    (42, 8, 3, [1.0, 2.0, 3.0, 4.0], "testA", ["car"]),
)
NOUNS = {1: "person", 3: "car", 18: "dog"}
# A third person of image 581857 to whom nothing refers, and a crowd of another picture.
UNREFERRED = ((581857, 99, 1, [0.0, 0.0, 5.0, 5.0]), (43, 100, 1, [0.0, 0.0, 5.0, 5.0]))


def image_name(image_id: int) -> str:
    return f"COCO_train2014_{image_id:012d}.jpg"


def refs() -> list[dict[str, Any]]:
    listed, sent_id = [], 800
    for ref_id, (image_id, ann_id, category, _, split, sentences) in enumerate(REFS):
        rows = []
        for text in sentences:
            rows.append(
                {
                    "sent_id": sent_id,
                    "sent": text,
                    "raw": text.title() + ".",
                    "tokens": text.split(),
                }
            )
            sent_id += 1
        listed.append(
            {
                "ref_id": ref_id,
                "ann_id": ann_id,
                "image_id": image_id,
                # As in the real files: with the number of the reference behind the picture's name.
                "file_name": image_name(image_id).replace(".jpg", f"_{ref_id}.jpg"),
                "split": split,
                "category_id": category,
                "sent_ids": [row["sent_id"] for row in rows],
                "sentences": rows,
            }
        )
    return listed


def instances() -> dict[str, Any]:
    things = [(image, ann, category, box) for image, ann, category, box, *_ in REFS]
    return {
        "images": [
            {"id": id, "file_name": image_name(id), "width": WIDTH, "height": HEIGHT}
            for id in (581857, 42, 43)
        ],
        "annotations": [
            {"id": ann, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0}
            for image, ann, category, box in (*things, *UNREFERRED)
        ],
        "categories": [{"id": id, "name": name} for id, name in NOUNS.items()],
    }


def write_refcoco(folder: Path, *, protocol: int = 2) -> Path:
    """Write refs(unc).p and instances.json as REFER's download has them, with pictures."""
    own = folder / "refcoco"
    own.mkdir(parents=True)
    (own / "refs(unc).p").write_bytes(pickle.dumps(refs(), protocol=protocol))
    (own / "instances.json").write_text(json.dumps(instances()), encoding="utf-8")
    pictures = folder / "train2014"
    pictures.mkdir()
    for image_id in (581857, 42):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(pictures / image_name(image_id))
    return folder


def write_mdetr_refcoco(file: Path, *, name: str = "refcoco") -> Path:
    """Write what MDETR's converter makes of the same: one image and annotation a sentence."""
    images, things = [], []
    for ref, row in zip(refs(), REFS, strict=True):
        if ref["split"] != "val":
            continue
        for sentence in ref["sentences"]:
            number = len(images) + 5000
            images.append(
                {
                    "file_name": image_name(ref["image_id"]),
                    "height": HEIGHT,
                    "width": WIDTH,
                    "id": number,
                    "original_id": ref["image_id"],
                    "caption": sentence["sent"],
                    "dataset_name": name,
                    "tokens_negative": [],
                }
            )
            things.append(
                {
                    "area": 1.0,
                    "iscrowd": 0,
                    "image_id": number,
                    "category_id": ref["category_id"],
                    "id": number,
                    "bbox": row[3],
                    "original_id": ref["ann_id"],
                    "tokens_positive": [[0, 3]],
                }
            )
    categories = instances()["categories"]
    file.write_text(
        json.dumps({"info": {}, "images": images, "annotations": things, "categories": categories}),
        encoding="utf-8",
    )
    return file


SENTENCES = {
    "1000": (
        "[/EN#1/people Two men] and [/EN#2/people/animals a dog] stand by [/EN#3/scene the sea] .",
        "[/EN#4/other A ball] lies beside [/EN#5/other a ball] in [/EN#0/notvisual case] .",
        "Nothing is marked here .",
        "[/EN#6/clothing a hat] and [/EN#1/people/other the pair of men]",
    ),
    "2000": ("[/EN#7/vehicles A red car] on [/EN#8/scene a road]",),
}
# (names, corners or None, scene, nobndbox)
OBJECTS = {
    "1000": (
        (("1",), (10, 10, 100, 200), 0, 0),
        (("1",), (150, 20, 250, 210), 0, 0),
        (("2", "9"), (300, 300, 400, 375), 0, 0),
        (("3",), None, 1, 0),
        (("4",), (20, 20, 60, 60), 0, 0),
        (("5",), (400, 20, 440, 60), 0, 0),
        (("6",), None, 0, 1),
    ),
    "2000": ((("7",), (1, 1, 333, 500), 0, 0), (("8",), (1, 250, 334, 501), 0, 0)),
}
SIZES = {"1000": (500, 375), "2000": (333, 500)}


def write_entities(folder: Path) -> Path:
    """Write a repository of Flickr30k Entities, with pictures."""
    for name in ("Annotations", "Sentences", "flickr30k-images"):
        (folder / name).mkdir(parents=True)
    (folder / "val.txt").write_text("1000\n2000\n", encoding="utf-8")
    (folder / "test.txt").write_text("2000\n", encoding="utf-8")
    for id, lines in SENTENCES.items():
        (folder / "Sentences" / f"{id}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        width, height = SIZES[id]
        (folder / "Annotations" / f"{id}.xml").write_text(
            f"<annotation>\n<filename>{id}.jpg</filename><size><width>{width}</width>"
            f"<height>{height}</height><depth>3</depth></size>\n"
            + "".join(map(_object, OBJECTS[id]))
            + "</annotation>\n",
            encoding="utf-8",
        )
        Image.new("RGB", SIZES[id], (60, 90, 120)).save(folder / "flickr30k-images" / f"{id}.jpg")
    return folder


def _object(thing: tuple[tuple[str, ...], tuple[int, ...] | None, int, int]) -> str:
    names, corners, scene, nobndbox = thing
    named = "".join(f"<name>{name}</name>" for name in names)
    if corners is None:
        rest = f"<scene>{scene}</scene><nobndbox>{nobndbox}</nobndbox>"
    else:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        rest = "<bndbox>" + "".join(f"<{key}>{value}</{key}>" for key, value in sides) + "</bndbox>"
    return f"<object>{named}{rest}</object>\n"


# Sentence by sentence, the spans of the phrases that have boxes: what MDETR's converter writes.
SPANS = {
    ("1000", 0): ("Two men and a dog stand by the sea .", [(0, 7), (12, 17)]),
    ("1000", 1): ("A ball lies beside a ball in case .", [(0, 6), (19, 25)]),
    ("1000", 2): ("Nothing is marked here .", []),
    ("1000", 3): ("a hat and the pair of men", [(10, 25)]),
    ("2000", 0): ("A red car on a road", [(0, 9), (13, 19)]),
}


def write_mdetr_flickr(file: Path) -> Path:
    """Write MDETR's JSON: the same picture once a sentence, sides as text."""
    images = [
        {
            "file_name": f"{id}.jpg",
            "height": str(SIZES[id][1]),
            "width": str(SIZES[id][0]),
            "id": number,
            "caption": caption,
            "dataset_name": "flickr",
            "tokens_negative": [[0, len(caption)]],
            "sentence_id": sentence,
            "original_img_id": int(id),
            "tokens_positive_eval": [[list(span), [0, 1]] for span in spans],
        }
        for number, ((id, sentence), (caption, spans)) in enumerate(SPANS.items())
    ]
    file.write_text(json.dumps({"images": images, "annotations": []}), encoding="utf-8")
    return file
