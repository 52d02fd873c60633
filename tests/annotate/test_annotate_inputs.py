"""Every kind of input gives the same pictures, in order, with what it says of them."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotate_cases import paint, paint_many, write_lines

from kosmos2.errors import RequestError
from kosmos2.sources.inputs import Looking, items, read_list, write_list
from kosmos2.sources.places import gather, read
from kosmos2.sources.rows import Item


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return paint_many(tmp_path / "pictures", 5)


def found(source: Path | str, **looking: object) -> list[Item]:
    return list(items(str(source), Looking(**looking)))  # type: ignore[arg-type]


def contents(some: list[Item]) -> list[bytes]:
    ready = gather([item.place for item in some if item.place is not None])
    return [each if isinstance(each, bytes) else read(each) for each in ready]


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_tar(path: Path, pictures: list[Path]) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            add(tar, f"a/{number:04d}.png", picture.read_bytes())
            add(tar, f"a/{number:04d}.txt", f"picture {number}".encode())
            add(tar, f"a/{number:04d}.json", json.dumps({"licence": "CC0"}).encode())
    return path


def write_table(path: Path, pictures: list[Path], *, rows: int) -> Path:
    """Write pictures as `datasets` does, in row groups of so many rows."""
    cells = [{"bytes": each.read_bytes(), "path": each.name} for each in pictures]
    captions = [f"picture {number}" for number in range(len(pictures))]
    pq.write_table(pa.table({"image": cells, "caption": captions}), path, row_group_size=rows)
    return path


def every_kind(folder: Path, pictures: list[Path]) -> dict[str, str]:
    listed = folder / "list.txt"
    listed.write_text("".join(f"pictures/{path.name}\n" for path in pictures), encoding="utf-8")
    rows = [{"file_name": f"pictures/{path.name}", "caption": "x"} for path in pictures]
    strings = pa.table({"image_path": [str(path) for path in pictures]})
    pq.write_table(strings, folder / "paths.parquet")
    bytes_ = pa.table({"jpg": [path.read_bytes() for path in pictures]})
    pq.write_table(bytes_, folder / "bytes.parquet", row_group_size=2)
    return {
        "folder": str(pictures[0].parent),
        "glob": str(folder / "**" / "*.png"),
        "list": str(listed),
        "lines": str(write_lines(folder / "rows.jsonl", rows)),
        "paths": str(folder / "paths.parquet"),
        "bytes": str(folder / "bytes.parquet"),
        "cells": str(write_table(folder / "cells.parquet", pictures, rows=3)),
        "tar": str(write_tar(folder / "shard.tar", pictures)),
    }


KINDS = ("folder", "glob", "list", "lines", "paths", "bytes", "cells", "tar")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_all_pictures_in_order(
    kind: str, tmp_path: Path, pictures: list[Path]
) -> None:
    some = found(every_kind(tmp_path, pictures)[kind])
    assert not [item.problem for item in some if item.problem]
    assert contents(some) == [path.read_bytes() for path in pictures]
    assert len({item.id for item in some}) == len(pictures)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_is_written_down_reads_back_the_same(
    kind: str, tmp_path: Path, pictures: list[Path]
) -> None:
    some = found(every_kind(tmp_path, pictures)[kind])
    path = tmp_path / "inputs"
    count, _ = write_list(iter(some), path)
    back = list(read_list(path))
    assert count == len(back) == 5
    assert [item.place for item in back] == [item.place for item in some]
    assert list(read_list(path, 1, 3)) == back[1:3]
    assert len({item.stem for item in back}) == 5
    assert all(item.stem for item in back)


def test_a_folder_is_read_in_the_order_of_its_names_with_all_folders_in_it(tmp_path: Path) -> None:
    names = ["b.png", "a.jpg", "c/d/e.webp", "c/a.PNG", ".hidden.png", ".thumbs/x.png", "note.md"]
    for seed, name in enumerate(names):
        if name.endswith(".md"):
            (tmp_path / name).write_text("no picture")
        else:
            paint(tmp_path / name, seed)
    assert [item.id for item in found(tmp_path)] == ["a", "b", "c/a", "c/d/e"]


def test_pictures_that_share_a_stem_keep_their_suffix_in_the_id(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.jpg", "a.png", "b.jpg")):
        paint(tmp_path / name, seed)
    assert [item.id for item in found(tmp_path)] == ["a.jpg", "a.png", "b"]


def test_what_the_job_writes_into_the_folder_is_no_input(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    paint(tmp_path / "drawn" / "a.png", 1)
    assert len(found(tmp_path)) == 2
    assert [item.id for item in found(tmp_path, leave_out=(tmp_path / "drawn",))] == ["a"]


def test_a_folder_of_tars_is_read_tar_by_tar(tmp_path: Path, pictures: list[Path]) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_tar(folder / "1.tar", pictures[:2])
    write_tar(folder / "2.tar", pictures[2:])
    assert contents(found(folder)) == [path.read_bytes() for path in pictures]


def test_a_tar_of_pictures_with_dots_in_their_names_loses_none(
    tmp_path: Path, pictures: list[Path]
) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            add(tar, f"trip.2024.{number}.png", picture.read_bytes())
    assert contents(found(path)) == [each.read_bytes() for each in pictures]


def test_a_second_picture_of_a_sample_is_not_asked_about(tmp_path: Path) -> None:
    picture = paint(tmp_path / "a.png", 0)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "one.png", picture.read_bytes())
        add(tar, "one.mask.png", picture.read_bytes())
        add(tar, "two.json", b'{"a": 1}')
    one, two = found(path)
    assert one.id == "one" and one.place is not None
    assert two.place is None and "no picture" in two.problem


@pytest.mark.parametrize("where", ["in a picture", "behind a picture"])
def test_a_tar_that_is_cut_off_gives_what_it_has_and_an_error(
    where: str, tmp_path: Path, pictures: list[Path]
) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, pictures)
    with tarfile.open(path) as tar:
        third = tar.getmember("a/0002.png").offset_data
        fourth = tar.getmember("a/0003.png").offset
    data = path.read_bytes()
    path.write_bytes(data[: third + 20 if where == "in a picture" else fourth])
    some = found(path)
    assert [item.id for item in some[:2]] == ["a/0000", "a/0001"]
    assert contents(some[:2]) == [each.read_bytes() for each in pictures[:2]]
    assert some[-1].id == "x.tar" and "cannot be read further" in some[-1].problem


def test_captions_come_from_columns_text_files_and_members_of_a_tar(
    tmp_path: Path, pictures: list[Path]
) -> None:
    for number, path in enumerate(pictures):
        path.with_suffix(".txt").write_text(f"picture {number}\n", encoding="utf-8")
    kinds = every_kind(tmp_path, pictures)
    expected = [f"picture {number}" for number in range(5)]
    for kind in ("folder", "list", "cells", "tar"):
        assert [item.caption for item in found(kinds[kind], captions=True)] == expected, kind


def test_a_record_brings_its_boxes_and_a_row_says_the_unit_of_its_own(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    entries = [[0, 3, 0.1, 0.2, 0.5, 0.75, 0.9], [4, 7, 0.1, 0.2, 0.5, 0.75, None]]
    rows = [
        {"image": "a.png", "caption": "one two", "noun_chunks": None, "ref_exps": entries},
        {"image": "a.png", "boxes": [[0.1, 0.2, 0.5, 0.75]], "phrases": ["a dog", "a cat"]},
        {"image": "a.png", "boxes_pixels": [[1, 2, 30, 40]], "phrases": "a dog\na cat"},
        {"image": "a.png", "boxes": [[1, 2, 3]]},
        {"nothing": 1},
    ]
    record, shares, pixels, odd, empty = found(write_lines(tmp_path / "rows.jsonl", rows))
    assert record.boxes == shares.boxes == ((0.1, 0.2, 0.5, 0.75),)
    assert pixels.boxes == ((1.0, 2.0, 30.0, 40.0),) and pixels.in_pixels and not shares.in_pixels
    assert shares.phrases == pixels.phrases == ("a dog", "a cat")
    assert "[x0, y0, x1, y1]" in odd.problem
    assert "no column has a picture" in empty.problem and "nothing" in empty.problem


def test_a_line_that_is_no_json_is_an_item_with_a_problem(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"image": "a.png"}\n{broken\n{"image": "a.png"}\n', encoding="utf-8")
    good, bad, other = found(path)
    assert not good.problem and not other.problem
    assert "no JSON" in bad.problem


def test_the_pictures_of_a_list_may_start_elsewhere(tmp_path: Path) -> None:
    paint(tmp_path / "else" / "a.png", 0)
    listed = tmp_path / "list.txt"
    listed.write_text("a.png\n", encoding="utf-8")
    (item,) = found(listed, images=tmp_path / "else")
    assert item.place is not None and item.place.path == str(tmp_path / "else" / "a.png")


def test_a_source_that_holds_no_pictures_is_refused_with_the_kinds(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.md").write_text("no picture")
    for source in ("missing", "empty", "note.md", "*.nothing"):
        with pytest.raises(RequestError, match=r"\.png"):
            found(tmp_path / source)


def test_a_table_of_separated_values_names_pictures_and_captions(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0)
    (tmp_path / "t.csv").write_text('image,caption,licence\na.png,"a dog, asleep",CC0\n')
    (tmp_path / "t.tsv").write_text("image\tcaption\tlicence\na.png\ta dog, asleep\tCC0\n")
    for name in ("t.csv", "t.tsv"):
        (item,) = items(str(tmp_path / name), Looking())
        assert item.place is not None and item.place.path == str(tmp_path / "a.png")
        assert item.caption == "a dog, asleep"
        assert item.source["licence"] == "CC0"
