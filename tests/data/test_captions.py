"""Grounded records and pairs: what a picture's words and boxes teach."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import answers, opened, png, ramp, rejection, row_of, save, square, write_lines
from PIL import ImageOps

from kosmos2.boxes import Box
from kosmos2.data.lessons import Teacher
from kosmos2.data.patches import UNKNOWN
from kosmos2.data.recipe import SourceRecipe
from kosmos2.errors import ConfigError, RecordError
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import Writer, released_writer
from kosmos2.vocab.tokenizer import Tokenizer

CAPTION = "a red car next to a dog"
CAR, DOG = [0.0, 0.25, 0.5, 0.75], [0.5, 0.5, 1.0, 1.0]
SPANS = [[0, 9, *CAR, 1.0], [18, 23, *DOG, 1.0]]


def record(number: int = 1, **changes: Any) -> dict[str, Any]:
    fields = {
        "id": number,
        "image": f"pictures/{number}.png",
        "caption": CAPTION,
        "noun_chunks": None,
        "ref_exps": SPANS,
        **changes,
    }
    return {key: value for key, value in fields.items() if value != "absent"}


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 2):
        save(tmp_path / f"pictures/{number}.png", ramp(shift=number))
    return tmp_path


def one(folder: Path, teacher: Teacher, row: dict[str, Any], **changes: Any) -> Any:
    return opened(write_lines(folder / "records.jsonl", [row]), teacher, "records", **changes)


def located(teacher: Teacher, *boxes: list[float]) -> str:
    return teacher.tokenizer.decode(teacher.find("x", [Box(*box) for box in boxes]).answer)


def test_a_record_teaches_its_caption_and_each_expression_both_ways(
    folder: Path, teacher: Teacher
) -> None:
    car, dog = located(teacher, CAR), located(teacher, DOG)
    assert answers(row_of(one(folder, teacher, record()), 0), teacher) == [
        f"<grounding><phrase> a red car</phrase>{car} next to<phrase> a dog</phrase>{dog}",
        car,
        "a red car.",
        dog,
        "a dog.",
    ]


def test_a_record_without_boxes_is_a_plain_caption(folder: Path, teacher: Teacher) -> None:
    # As in the original loader: <grounding> stands only before a caption with boxes.
    for spans in ([], None):
        row = row_of(one(folder, teacher, record(ref_exps=spans)), 0)
        assert answers(row, teacher) == [CAPTION]


def test_a_picture_is_squashed_to_the_model_s_square_as_in_use(
    folder: Path, teacher: Teacher
) -> None:
    row = row_of(one(folder, teacher, record()), 0)
    assert np.array_equal(row.pixels_ICYX[0].numpy(), square(ramp(shift=1)))
    assert row.noun_IP.shape == (1, 16)
    assert row.noun_IP.unique().tolist() == row.sides_IP4.unique().tolist() == [UNKNOWN]


def test_a_bad_box_leaves_its_record_and_is_counted_with_it(folder: Path, teacher: Teacher) -> None:
    spans = [[0, 9, 0.5, 0.2, 0.1, 0.7, 1.0], SPANS[1]]
    row = row_of(one(folder, teacher, record(ref_exps=spans), teach="caption"), 0)
    assert [each.reason for each in row.left_out] == ["box flipped"]
    dog = located(teacher, DOG)
    assert answers(row, teacher) == [f"<grounding> a red car next to<phrase> a dog</phrase>{dog}"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (record(caption="absent"), "no caption"),
        (record(image="absent"), "no picture named"),
        (record(3), "picture missing"),
        (record(image="records.jsonl"), "picture unreadable"),
        (record(image="scene:train/1"), "picture missing"),
        ("just text", "no JSON object"),
    ],
)
def test_a_bad_record_has_a_reason_that_names_its_place(
    folder: Path, teacher: Teacher, row: Any, reason: str
) -> None:
    found = rejection(one(folder, teacher, row), 0)
    assert found.reason == reason
    assert found.detail


def test_broken_lines_are_rows_with_a_reason(folder: Path, teacher: Teacher) -> None:
    path = folder / "records.jsonl"
    path.write_text(json.dumps(record()) + '\n\n{"caption": "cut off\n' + json.dumps(record(2)))
    source = opened(path, teacher, "records")
    assert len(source) == 3  # the blank line is none
    assert rejection(source, 1).reason == "no JSON"
    assert row_of(source, 2).targets


def records() -> list[GroundedRecord]:
    return [GroundedRecord.from_dict(record(1)), GroundedRecord.from_dict(record(2))]


def all_rows(path: Path, teacher: Teacher, **changes: Any) -> list[Any]:
    source = opened(path, teacher, "records", **changes)
    rows = [row_of(source, number) for number in range(len(source))]
    return [(row.targets, row.ids, row.pixels_ICYX.tolist()) for row in rows]


@pytest.mark.parametrize(
    "name", ["x.jsonl.gz", "x.jsonl.zst", "x.parquet", "x.tar", "parts-jsonl", "parts-tar"]
)
def test_every_store_gives_the_rows_of_its_json_lines(
    folder: Path, teacher: Teacher, name: str
) -> None:
    expected = all_rows(write_lines(folder / "x.jsonl", [record(1), record(2)]), teacher)
    path, images = folder / name, ""
    if name.startswith("parts"):
        path.mkdir()
        path, images = path / ("0.tar" if "tar" in name else "0.jsonl"), str(folder)
    with Writer(path, Pictures(folder)) as writer:
        for each in records():
            writer.write(each)
    if name.startswith("parts"):
        path = path.parent
        images = str(path) if "tar" in name else images
    assert all_rows(path, teacher, images=images) == expected


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_released_grit_finds_its_pictures_in_tars_by_their_urls(
    folder: Path, teacher: Teacher
) -> None:
    # The table has urls alone; img2dataset leaves them in the .json beside each picture.
    urls = [f"https://example.org/{number}.jpg?a=1" for number in (1, 2)]
    expected = all_rows(write_lines(folder / "x.jsonl", [record(1), record(2)]), teacher)
    rows = [record(n + 1, image=None, url=url) for n, url in enumerate(urls)]
    with released_writer(folder / "grit.parquet") as writer:
        for row in rows:
            writer.write(GroundedRecord.from_dict(row))
    (folder / "tars").mkdir()
    for number, url in enumerate(urls, 1):
        key, status = f"00000000{number}", {"url": url, "status": "success"}
        tar_of(
            folder / f"tars/0000{number}.tar",
            {
                f"{key}.png": png(ramp(shift=number)),
                f"{key}.txt": b"alt text",
                f"{key}.json": json.dumps(status).encode(),
            },
        )
    assert all_rows(folder / "grit.parquet", teacher, images=str(folder / "tars")) == expected


def test_a_tar_of_img2dataset_with_grit_s_columns_is_a_store(
    folder: Path, teacher: Teacher
) -> None:
    expected = all_rows(write_lines(folder / "x.jsonl", [record(1)]), teacher)
    said = {"caption": CAPTION, "ref_exps": SPANS, "noun_chunks": [], "url": "https://x.org"}
    tar_of(
        folder / "00000.tar",
        {
            "000000001.png": png(ramp(shift=1)),
            "000000001.txt": CAPTION.encode(),
            "000000001.json": json.dumps(said).encode(),
        },
    )
    assert all_rows(folder / "00000.tar", teacher) == expected


def test_a_flip_mirrors_picture_boxes_and_words_together(folder: Path, teacher: Teacher) -> None:
    said = "a red car left of a dog"
    spans = [[0, 9, *CAR, 1.0], [18, 23, *DOG, 1.0]]
    source = one(folder, teacher, record(caption=said, ref_exps=spans), flip=1.0, teach="caption")
    row = row_of(source, 0)
    car, dog = located(teacher, [0.5, 0.25, 1.0, 0.75]), located(teacher, [0.0, 0.5, 0.5, 1.0])
    assert answers(row, teacher) == [
        f"<grounding><phrase> a red car</phrase>{car} right of<phrase> a dog</phrase>{dog}"
    ]
    expected = square(ImageOps.mirror(ramp(shift=1)))
    assert np.array_equal(row.pixels_ICYX[0].numpy(), expected)


def test_a_caption_that_a_mirror_makes_untrue_is_not_flipped(
    folder: Path, teacher: Teacher
) -> None:
    said = record(caption="a sign that says dog", ref_exps=[])
    row = row_of(one(folder, teacher, said, flip=1.0), 0)
    assert np.array_equal(row.pixels_ICYX[0].numpy(), square(ramp(shift=1)))
    assert answers(row, teacher) == ["a sign that says dog"]


def test_captions_are_grounded_as_often_as_the_recipe_says(folder: Path, teacher: Teacher) -> None:
    for compat in ("ours", "paper"):
        share = one(folder, teacher, record(), teach="caption", compat=compat, grounded_share=0.5)
        said = [answers(row_of(share, 0, seed), teacher)[0] for seed in range(200)]
        grounded = sum(each.startswith("<grounding>") for each in said)
        assert 70 < grounded < 130
        assert set(said) - {CAPTION} == {next(each for each in said if each != CAPTION)}


def test_the_published_way_teaches_one_caption_a_picture(folder: Path, teacher: Teacher) -> None:
    row = row_of(one(folder, teacher, record(), compat="paper"), 0)
    assert len(answers(row, teacher)) == 1
    assert row.lesson[-1] == 1


# --- pairs


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number in (1, 2):
        save(tmp_path / f"photos/{number}.png", ramp(shift=number))
        (tmp_path / f"photos/{number}.txt").write_text(f"dog {number} \n")
    return tmp_path / "photos"


def pair_rows(path: Path, teacher: Teacher, **changes: Any) -> list[Any]:
    source = opened(path, teacher, "pairs", **changes)
    rows = [row_of(source, number) for number in range(len(source))]
    return [(answers(row, teacher), row.pixels_ICYX.tolist()) for row in rows]


def test_a_pair_is_the_published_sequence_without_boxes(pairs: Path, teacher: Teacher) -> None:
    source = opened(pairs, teacher, "pairs")
    assert [answers(row_of(source, n), teacher) for n in (0, 1)] == [["dog 1"], ["dog 2"]]
    row = row_of(source, 0)
    assert row.ids[: len(teacher.prefix()[0])] == list(teacher.prefix()[0])
    assert np.array_equal(row.pixels_ICYX[0].numpy(), square(ramp(shift=1)))


def test_pairs_may_lie_in_tables_of_paths_cells_of_tables_and_tars(
    pairs: Path, teacher: Teacher
) -> None:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    expected = pair_rows(pairs, teacher)
    folder = pairs.parent
    (folder / "table.tsv").write_text("image\tcaption\nphotos/1.png\tdog 1\nphotos/2.png\tdog 2\n")
    cells = [{"bytes": (pairs / f"{n}.png").read_bytes(), "path": f"{n}.png"} for n in (1, 2)]
    table = arrow.table({"image": cells, "text": ["dog 1", "dog 2"]})
    arrow.parquet.write_table(table, folder / "cells.parquet")
    members = {f"{n}.png": (pairs / f"{n}.png").read_bytes() for n in (1, 2)}
    texts = {f"{n}.txt": f"dog {n}".encode() for n in (1, 2)}
    tar_of(folder / "pairs.tar", dict(sorted({**members, **texts}.items())))
    for name in ("table.tsv", "cells.parquet", "pairs.tar"):
        assert pair_rows(folder / name, teacher) == expected
        assert pair_rows(folder / name, teacher) == expected  # from the cache


def test_a_pair_without_words_or_picture_has_a_reason(pairs: Path, teacher: Teacher) -> None:
    (pairs / "1.txt").unlink()
    (pairs / "2.png").write_bytes(b"no picture")
    source = opened(pairs, teacher, "pairs")
    assert rejection(source, 0).reason == "no caption"
    assert rejection(source, 1).reason == "picture unreadable"


def test_no_picture_is_fetched_while_training(pairs: Path, teacher: Teacher) -> None:
    rows = [{"url": "https://example.org/a.png", "caption": "a dog"}]
    source = opened(write_lines(pairs / "urls.jsonl", rows), teacher, "pairs")
    assert rejection(source, 0).reason == "picture missing"


def test_a_source_of_nothing_is_refused_at_the_start(tmp_path: Path, teacher: Teacher) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RecordError, match="no rows"):
        opened(tmp_path / "empty.jsonl", teacher, "records")
    with pytest.raises(RecordError, match="nothing at"):
        opened(tmp_path / "absent.jsonl", teacher, "records")


@pytest.mark.parametrize(
    "changes", [{"path": ""}, {"flip": 1.5}, {"grounded_share": -0.1}, {"block": 1}]
)
def test_an_impossible_source_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sources"):
        SourceRecipe(**{"kind": "records", "path": "x", **changes})
