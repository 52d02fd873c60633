"""Hugging Face datasets: `load_dataset` opens the folder, with pictures and typed columns."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from format_law import assert_law

from examples import KNOWN_BOX, KNOWN_PIXELS, draw, known_record
from kosmos2.errors import RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.huggingface import HUGGINGFACE, read, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "huggingface", Writing(pictures=Pictures(folder)))
    return folder / "huggingface"


def loaded(path: Path) -> datasets.Dataset:
    found = datasets.load_dataset(str(path), cache_dir=str(path.parent / "cache"))
    assert list(found) == ["train"]
    return found["train"]


def others(folder: Path, *rows: dict[str, Any]) -> Path:
    for row in rows:
        draw(folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_records_come_back_whole(examples: list[GroundedRecord], tmp_path: Path) -> None:
    path = written(examples, tmp_path)
    again = list(read(path, Reading()))
    assert_law(HUGGINGFACE, examples, again)
    for old, new in zip(examples, again, strict=True):
        assert Pictures(path).read(new) == Pictures(tmp_path).read(old)


def test_datasets_loads_pictures_captions_and_objects(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    data = loaded(written(examples, tmp_path))
    assert len(data) == len(examples)
    assert data["caption"][:] == [record.caption for record in examples]
    for row, record in zip(data, examples, strict=True):
        assert row["image"].size == (row["width"], row["height"]) == (40, 30)
        assert [each["score"] for each in row["objects"]] == [
            entry.score for entry in record.entries
        ]


def test_the_columns_have_features_of_their_kind(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    features = loaded(written(examples, tmp_path)).features
    assert isinstance(features["image"], datasets.Image)
    box = features["objects"].feature
    assert box["start"] == datasets.Value("int32")
    assert all(box[name] == datasets.Value("float64") for name in ("x0", "y0", "x1", "y1", "score"))


def test_the_known_box_is_written_as_shares_and_as_coco_has_it(tmp_path: Path) -> None:
    (row,) = loaded(written([known_record(tmp_path)], tmp_path))
    (box,) = row["objects"]
    assert box["bbox_xywh_px"] == [10, 5, 20, 15]
    assert (box["x0"], box["y0"], box["x1"], box["y1"]) == KNOWN_BOX.corners
    x0, y0, x1, y1 = KNOWN_PIXELS
    assert np.asarray(row["image"])[y0:y1, x0:x1].min() == 255


def test_names_of_pictures_make_no_splits(tmp_path: Path) -> None:
    draw(tmp_path / "test-1.png")
    draw(tmp_path / "validation" / "train.png")
    known = known_record(tmp_path)
    records = [replace(known, image=name) for name in ("test-1.png", "validation/train.png")]
    assert len(loaded(written(records, tmp_path))) == 2


def test_folders_of_others_with_objects_in_columns_are_read(tmp_path: Path) -> None:
    objects = {"bbox": [[10, 5, 20, 15], [0, 0, 40, 30]], "categories": ["dog", 7]}
    path = others(tmp_path, {"file_name": "train/a.png", "objects": objects})
    (record,) = read(path, Reading())
    assert (record.image, record.caption) == ("train/a.png", "dog; class 7")
    assert record.entries[0].box == KNOWN_BOX


def test_folders_of_others_with_captions_are_read(tmp_path: Path) -> None:
    others(tmp_path / "train", {"file_name": "a.png", "text": "a square"})
    others(tmp_path / "validation", {"file_name": "b.png", "text": "a line"})
    records = list(read(tmp_path, Reading()))
    assert [(record.image, record.caption) for record in records] == [
        ("train/a.png", "a square"),
        ("validation/b.png", "a line"),
    ]


def test_words_of_the_caption_that_are_classes_get_the_boxes(tmp_path: Path) -> None:
    objects = [{"bbox": [10, 5, 20, 15], "category": "dog"}]
    path = others(tmp_path, {"file_name": "a.png", "text": "A dog runs.", "objects": objects})
    (record,) = read(path, Reading())
    assert record.caption == "A dog runs."
    assert [(entry.start, entry.end) for entry in record.entries] == [(2, 5)]


def test_bad_rows_are_refused_by_file_and_number(tmp_path: Path) -> None:
    bad = {"file_name": "bad.png", "objects": {"bbox": [[30, 5, -20, 15]], "category": ["dog"]}}
    path = others(tmp_path, bad, {"file_name": "good.png"}, {"file_name": "worse.png"})
    lines = (path / "metadata.jsonl").read_text().replace('{"file_name": "worse.png"}', "{")
    (path / "metadata.jsonl").write_text(lines)
    refused: list[str] = []
    reading = Reading(refuse=lambda where, error: refused.append(where))
    assert [record.image for record in read(path, reading)] == ["good.png"]
    assert refused == [f"{path / 'metadata.jsonl'}:1", f"{path / 'metadata.jsonl'}:3"]


def test_tables_that_hold_their_pictures_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "train-00000.parquet").write_bytes(b"")
    with pytest.raises(RecordError, match=r"metadata\.jsonl"):
        list(read(tmp_path, Reading()))
