"""COCO's captions in the three formats in which they are handed around."""

import json
from pathlib import Path

import pytest
from PIL import Image

from kosmos2.errors import RecordError
from kosmos2.evaluation.benchmark import prompt_text, read_split
from kosmos2.evaluation.registry import BENCHMARKS
from kosmos2.vocab.locations import LocationGrid

COCO = BENCHMARKS["coco-captions"]
SAID = {
    391895: ["A man with a red helmet on a small moped.", "Man riding a motor bike.", "A man."],
    60623: ["A young girl inhales.", "A girl."],
}


def name_of(id: int) -> str:
    return f"COCO_val2014_{id:012d}.jpg"


def pictures(folder: Path) -> Path:
    (folder / "val2014").mkdir(parents=True)
    for id in SAID:
        Image.new("RGB", (40, 30)).save(folder / "val2014" / name_of(id))
    return folder


def karpathy(folder: Path) -> Path:
    images = [
        {
            "filepath": "val2014",
            "filename": name_of(id),
            "cocoid": id,
            "imgid": number,
            "split": "test",
            "sentids": [],
            "sentences": [{"raw": text, "tokens": text.split()} for text in said],
        }
        for number, (id, said) in enumerate(SAID.items())
    ]
    train = {"filename": "x.jpg", "split": "restval", "sentences": [{"raw": "A dog."}]}
    content = {"images": [*images, train], "dataset": "coco"}
    (pictures(folder) / "dataset_coco.json").write_text(json.dumps(content))
    return folder


def blip(folder: Path) -> Path:
    rows = [{"image": f"val2014/{name_of(id)}", "caption": said} for id, said in SAID.items()]
    (pictures(folder) / "coco_karpathy_test.json").write_text(json.dumps(rows))
    return folder


def blip_training(folder: Path) -> Path:
    rows = [
        {"image": f"val2014/{name_of(id)}", "caption": text, "image_id": f"coco_{id}"}
        for id, said in SAID.items()
        for text in said
    ]
    (pictures(folder) / "coco_karpathy_test.json").write_text(json.dumps(rows))
    return folder


def official(folder: Path) -> Path:
    content = {
        "images": [
            {"id": id, "file_name": name_of(id), "width": 40, "height": 30, "license": 3}
            for id in SAID
        ],
        "annotations": [
            {"image_id": id, "id": 10 * number + place, "caption": text}
            for place in range(3)  # the captions of a picture do not stand together
            for number, (id, said) in enumerate(SAID.items())
            for text in said[place : place + 1]
        ],
    }
    (pictures(folder) / "annotations").mkdir()
    (folder / "annotations" / "captions_test.json").write_text(json.dumps(content))
    return folder


FORMATS = (karpathy, blip, blip_training, official)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_pictures_and_captions(tmp_path: Path, form: object) -> None:
    assert callable(form)
    data = read_split(COCO, form(tmp_path / "d"), "test", own_data=True)
    assert {each.picture: list(each.references) for each in data.problems} == {
        name_of(id): said for id, said in SAID.items()
    }
    assert all(
        any((folder / each.picture).is_file() for folder in data.folders) for each in data.problems
    )
    prompts = {prompt_text(COCO.prompt(each, LocationGrid())) for each in data.problems}
    assert prompts == {"An image of"}


def test_a_split_that_is_not_all_there_is_no_published_one(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"test has 25,010 sentences, .* gives 5"):
        read_split(COCO, karpathy(tmp_path / "d"), "test", own_data=False)


def test_captions_of_no_picture_and_pictures_without_captions_are_errors(tmp_path: Path) -> None:
    file = official(tmp_path / "d") / "annotations" / "captions_test.json"
    content = json.loads(file.read_text())
    some = {**content, "annotations": content["annotations"][:1]}
    file.write_text(json.dumps(some))
    with pytest.raises(RecordError, match="has no captions"):
        read_split(COCO, tmp_path / "d", "test", own_data=True)
    file.write_text(json.dumps({**content, "images": content["images"][:1]}))
    with pytest.raises(RecordError, match="but no such image"):
        read_split(COCO, tmp_path / "d", "test", own_data=True)
    with pytest.raises(RecordError, match="is none of"):
        read_split(COCO, name(tmp_path / "other.json"), "test", own_data=True)


def name(file: Path) -> Path:
    file.write_text("{}")
    return file
