"""COCO's captions, folders of `datasets`, tables and tars as others write them: pairs in order."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kosmos2.errors import RequestError
from kosmos2.sources.inputs import Looking, items, read_list, write_list
from kosmos2.sources.places import gather, read
from kosmos2.sources.rows import Item

CAPTIONS = ["a red dog", "a green cat", "a blue bird"]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (8, 6), (number * 40, 9, 9)).save(path)
    return paths


def found(source: Path, **looking: Any) -> list[Item]:
    return list(items(str(source), Looking(captions=True, **looking)))


def contents(some: list[Item]) -> list[bytes]:
    ready = gather([item.place for item in some if item.place is not None])
    return [each if isinstance(each, bytes) else read(each) for each in ready]  # type: ignore[arg-type]


def expect(some: list[Item], pictures: list[Path]) -> None:
    """Require a pair for each picture, in order, that survives being written down."""
    assert not [item.problem for item in some if item.problem]
    assert contents(some) == [path.read_bytes() for path in pictures]
    assert [item.caption for item in some] == CAPTIONS[: len(some)]
    assert len({item.id for item in some}) == len(some)
    listed = pictures[0].parent.parent / "list"
    write_list(iter(some), listed)
    assert contents(list(read_list(listed))) == contents(some)


def coco(path: Path, images: list[Any], annotations: list[Any]) -> Path:
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_each_sentence_of_coco_is_a_pair_with_an_id_of_its_own(
    tmp_path: Path, pictures: list[Path]
) -> None:
    images = [{"id": 7, "file_name": "1.png", "coco_url": "http://x.org/1.png"},
              {"id": 3, "file_name": "0.png"}]  # fmt: skip
    said = [{"id": 50, "image_id": 3, "caption": "zero"}, {"id": 51, "image_id": 7, "caption": "A"},
            {"id": 52, "image_id": 7, "caption": "B"}]  # fmt: skip
    path = coco(tmp_path / "captions_val.json", images, said)
    some = found(path, images=pictures[0].parent)
    assert [(item.id, item.caption) for item in some] == [
        ("1-51", "A"),
        ("1-52", "B"),
        ("0-50", "zero"),
    ]
    assert contents(some) == [pictures[n].read_bytes() for n in (1, 1, 0)]
    assert some[0].source == {"image_id": 7, "url": "http://x.org/1.png"}
    alone = list(items(str(path), Looking(images=pictures[0].parent)))
    assert [(item.id, item.caption) for item in alone] == [("1", None), ("0", None)]


def test_every_fault_of_a_coco_document_is_an_item_and_the_rest_goes_on(
    tmp_path: Path, pictures: list[Path]
) -> None:
    images = [{"id": 1, "file_name": "0.png"}, {"id": 2}, "x", {"id": 4, "file_name": "1.png"}]
    said = [{"id": 5, "image_id": 1, "caption": 3}, {"id": 5, "image_id": 1, "caption": "good"},
            {"id": 6, "image_id": 99, "caption": "lost"}, "y",
            {"image_id": 1, "caption": "too"}]  # fmt: skip
    some = found(coco(tmp_path / "c.json", images, said), images=pictures[0].parent)
    assert [item.caption for item in some if not item.problem] == ["good", "too", None]
    problems = [item.problem for item in some if item.problem]
    assert len(problems) == 5 and len({item.id for item in some}) == len(some) == 8
    assert sum("no picture that is listed" in each for each in problems) == 2
    assert sum("file_name" in each for each in problems) == 2


@pytest.mark.parametrize("text", ["{broken", "[1, 2]", '{"images": 1}'])
def test_another_json_document_is_refused_with_what_it_should_be(text: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=r"some\.json"):
        found(path)


def test_a_dataset_that_was_saved_to_disk_gives_its_pairs(
    tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = {"image": [str(path) for path in pictures], "text": CAPTIONS, "n": [1, 2, 3]}
    made = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    made.save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "cache-1.arrow").write_bytes(b"not of the dataset")
    some = found(tmp_path / "saved")
    expect(some, pictures)
    assert some[0].id == "data-00000-of-00002.arrow:1" and some[0].source["n"] == 1
    both = datasets.DatasetDict({"a": made.select([0]), "b": made.select([1, 2])})
    both.save_to_disk(tmp_path / "dict")
    expect(found(tmp_path / "dict"), pictures)
    assert "datasets" in sys.modules


def arrow_file(path: Path, cells: list[Any]) -> Path:
    table = pa.table({"image": cells, "caption": CAPTIONS})
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    return path


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_a_picture_of_which_a_table_has_only_the_path_is_read_from_there(
    kind: str, tmp_path: Path, pictures: list[Path]
) -> None:
    cells = [
        {"bytes": pictures[0].read_bytes(), "path": None},
        {"bytes": None, "path": str(pictures[1])},
        {"bytes": None, "path": "photos/2.png"},
    ]
    path = tmp_path / f"rows.{kind}"
    if kind == "arrow":
        arrow_file(path, cells)
    else:
        pq.write_table(pa.table({"image": cells, "caption": CAPTIONS}), path)
    expect(found(path), pictures)


def test_a_table_that_lost_a_picture_tells_which_and_gives_the_others(
    tmp_path: Path, pictures: list[Path]
) -> None:
    cells = [{"bytes": pictures[0].read_bytes(), "path": None}, {"bytes": None, "path": "gone.png"},
             {"bytes": None, "path": None}]  # fmt: skip
    ready = gather([item.place for item in found(arrow_file(tmp_path / "x.arrow", cells))])  # type: ignore[misc]
    assert ready[0] == pictures[0].read_bytes()
    assert "gone.png" in str(ready[1]) and "no picture in this row" in str(ready[2])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_folder_of_pictures_with_metadata_is_read_by_its_rows(
    kind: str, tmp_path: Path, pictures: list[Path]
) -> None:
    rows = [{"file_name": path.name, "text": CAPTIONS[n]} for n, path in enumerate(pictures)]
    path = pictures[0].parent / f"metadata.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("".join(["file_name,text\n", *(",".join(r.values()) + "\n" for r in rows)]))
    expect(found(pictures[0].parent), pictures)


def test_pictures_that_metadata_does_not_name_are_there_without_a_caption(
    pictures: list[Path],
) -> None:
    folder = pictures[0].parent
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "one"}\n')
    assert [(item.name.rpartition("/")[2], item.caption) for item in found(folder)] == [
        ("1.png", "one"),
        ("0.png", None),
        ("2.png", None),
    ]
    (folder / "metadata.jsonl").write_text('{"made": "by hand"}\n')
    assert len(found(folder)) == 3


def test_splits_that_call_their_files_alike_have_ids_apart(
    tmp_path: Path, pictures: list[Path]
) -> None:
    for split in ("test", "train"):
        (tmp_path / "d" / split).mkdir(parents=True)
        rows = [{"image_path": str(path), "caption": "x"} for path in pictures]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d" / split / "0.parquet")
    some = found(tmp_path / "d")
    assert [item.id for item in some[:1] + some[3:4]] == ["test/0.parquet:1", "train/0.parquet:1"]
    assert len({item.id for item in some}) == 6


def test_a_table_of_coyo_or_laion_names_files_of_this_machine(
    tmp_path: Path, pictures: list[Path]
) -> None:
    for column, caption in (("text", "url"), ("TEXT", "URL")):
        rows = [
            {"id": 10 + n, column: CAPTIONS[n], caption: "http://x.org/1", "image_path": path.name}
            for n, path in enumerate(pictures)
        ]
        path = tmp_path / "coyo.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        some = found(path, images=pictures[0].parent)
        expect(some, pictures)
        assert [item.id for item in some] == [10, 11, 12]


def test_the_tables_beside_tars_of_img2dataset_say_nothing_again(
    tmp_path: Path, pictures: list[Path]
) -> None:
    from tarfile import open as open_tar

    folder = tmp_path / "out"
    folder.mkdir()
    with open_tar(folder / "00000.tar", "w") as tar:
        for number, path in enumerate(pictures):
            told = {"caption": CAPTIONS[number], "url": f"http://x.org/{number}", "key": path.stem}
            (tmp_path / "j").write_text(json.dumps(told))
            (tmp_path / "t").write_text(CAPTIONS[number])
            tar.add(path, f"{number:09d}.png")
            tar.add(tmp_path / "t", f"{number:09d}.txt")
            tar.add(tmp_path / "j", f"{number:09d}.json")
    table = [{"caption": text, "url": "http://x.org", "status": "success"} for text in CAPTIONS]
    pq.write_table(pa.Table.from_pylist(table), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text('{"count": 3}')
    some = found(folder)
    expect(some, pictures)
    assert some[1].source["url"] == "http://x.org/1"
