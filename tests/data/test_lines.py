"""Rows and pictures at random: an index of places, and caches that follow their files."""

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from data_cases import album, png, ramp
from PIL import Image

from kosmos2.data.ledger import Rejected
from kosmos2.data.lines import Lines, lines_of
from kosmos2.errors import RecordError
from kosmos2.records.jsonl import JsonlWriter
from kosmos2.records.record import GroundedRecord


def fields(lines: Lines) -> list[object]:
    return [lines.fields(number) for number in range(len(lines))]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("closed", [True, False])
def test_lines_are_found_whatever_ends_them(tmp_path: Path, ending: str, closed: bool) -> None:
    rows = [{"n": n, "text": "é" * n} for n in range(5)]
    text = ending.join([*(json.dumps(row, ensure_ascii=False) for row in rows[:3]), "", ""])
    text += ending.join(json.dumps(row, ensure_ascii=False) for row in rows[3:])
    path = tmp_path / "x.jsonl"
    path.write_bytes((text + ending * closed).encode())
    assert fields(lines_of(path, tmp_path)) == rows


def test_an_index_travels_to_a_worker_without_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"b": "' + "x" * 100_000 + '"}\n')
    lines = lines_of(path, tmp_path)
    assert len(pickle.dumps(lines)) < 2000
    assert fields(pickle.loads(pickle.dumps(lines))) == fields(lines)


@pytest.mark.parametrize("text", ['[{"a": 1}, {"b": ', '[{"a": 1}', '[{"a": "]}'])
def test_an_array_that_is_cut_off_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RecordError, match="cut off"):
        lines_of(path, tmp_path)


def test_a_spooled_store_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path, cache = tmp_path / "x.jsonl.gz", tmp_path / "cache"

    def write(*captions: str) -> None:
        with JsonlWriter(path) as writer:
            for caption in captions:
                writer.write(GroundedRecord(caption=caption, noun_chunks=None, ref_exps=()))

    write("a dog", "a cat")
    first = lines_of(path, cache)
    made = sorted(cache.rglob("*.jsonl"))
    again = lines_of(path, cache)
    assert [each["caption"] for each in fields(again)] == ["a dog", "a cat"]  # type: ignore[index]
    assert again.path == first.path
    assert sorted(cache.rglob("*")) == sorted({*made, *(each.parent for each in made)})
    write("a bird")
    assert len(lines_of(path, cache)) == 3


def save_tar(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = png(ramp(shift=number))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_a_tar_is_searched_once_and_again_when_it_changes(tmp_path: Path) -> None:
    save_tar(tmp_path / "0.tar", ["a/1.png", "a/2.png"])
    found = album(tmp_path).open("a/2.png", "0.tar")
    assert isinstance(found, Image.Image)
    assert found.tobytes() == ramp(shift=1).tobytes()
    assert len(list((tmp_path / "cache/tars").iterdir())) == 1
    assert isinstance(album(tmp_path).open("a/1.png", "0.tar"), Image.Image)
    assert len(list((tmp_path / "cache/tars").iterdir())) == 1

    save_tar(tmp_path / "0.tar", ["b.png", "a/1.png"])
    os.utime(tmp_path / "0.tar", ns=(1, 1))
    moved = album(tmp_path).open("a/1.png", "0.tar")
    assert isinstance(moved, Image.Image)
    assert moved.tobytes() == ramp(shift=1).tobytes()


def test_of_a_tar_that_is_cut_off_the_whole_pictures_are_had(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    save_tar(path, ["1.png", "2.png"])
    with tarfile.open(path) as tar:
        place = tar.getmember("2.png").offset_data
    path.write_bytes(path.read_bytes()[: place + 10])
    pictures = album(tmp_path)
    assert isinstance(pictures.open("1.png", "0.tar"), Image.Image)
    lost = pictures.open("2.png", "0.tar")
    assert isinstance(lost, Rejected)
    assert lost.reason in ("picture unreadable", "picture missing")
    absent = pictures.open("3.png", "0.tar")
    assert isinstance(absent, Rejected)
    assert absent.reason == "picture missing"
