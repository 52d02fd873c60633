"""WebDataset tars: read as others make them, read by others as we make them."""

import gc
import hashlib
import io
import json
import tarfile
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from examples import draw, example_records
from kosmos2.errors import RecordError
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord
from kosmos2.records.store import Kind, Writer, folder_writer, parts_of, read, root_of


def tar_of(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def as_json(**fields: Any) -> bytes:
    return json.dumps({"caption": "a dog", **fields}).encode()


def written(tmp_path: Path) -> tuple[Path, list[GroundedRecord]]:
    records = example_records(tmp_path / "pictures")
    with Writer(tmp_path / "a.tar", Pictures(tmp_path / "pictures")) as writer:
        for record in records:
            writer.write(record)
    return tmp_path / "a.tar", records


def test_all_but_the_place_of_the_picture_is_kept_and_its_bytes_are(tmp_path: Path) -> None:
    path, records = written(tmp_path)
    back = list(read(path))
    for ours, theirs in zip(back, records, strict=True):
        fields = {**theirs.to_dict(), "image": ours.image, "shard": "a.tar"}
        assert ours == GroundedRecord.from_dict(fields)
        assert Pictures(root_of(path)).read(ours) == Pictures(tmp_path / "pictures").read(theirs)
    assert back[-1].sha256 == hashlib.sha256(Pictures(tmp_path).read(back[-1])).hexdigest()


def test_the_library_webdataset_reads_what_we_write(tmp_path: Path) -> None:
    path, records = written(tmp_path)
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("pil"))
    assert [sample["json"]["caption"] for sample in samples] == [r.caption for r in records]
    assert [sample["png"].size for sample in samples] == [(40, 30)] * len(records)


def test_what_the_library_webdataset_writes_is_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6))
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(2):
            fields = {"id": number, "caption": "a dog", "ref_exps": [[0, 5, 0, 0, 1, 1, 0.5]]}
            writer.write({"__key__": f"s{number}", "json": fields, "png": image})
    records = list(read(tmp_path / "a.tar"))
    assert [(r.id, r.image, r.shard) for r in records] == [
        (0, "s0.png", "a.tar"),
        (1, "s1.png", "a.tar"),
    ]
    assert records[0].noun_chunks is None


def test_a_tar_of_img2dataset_is_read(tmp_path: Path) -> None:
    fields = as_json(
        url="https://example.com/a.jpg",
        key="000000001",
        status="success",
        error_message=None,
        width=256,
        height=171,
        original_width=1024,
        original_height=683,
        exif="{}",
        sha256="ab",
        noun_chunks=[[0.0, 5.0, 0.1, 0.2, 0.3, 0.4, 0.9]],
        ref_exps=[],
    )
    tar_of(
        tmp_path / "00000.tar",
        {"000000001.jpg": b"picture", "000000001.json": fields, "000000001.txt": b"a dog"},
    )
    (record,) = read(tmp_path)
    assert (record.image, record.shard) == ("000000001.jpg", "00000.tar")
    assert record.extra["original_width"] == 1024
    assert record.noun_chunks is not None
    assert record.noun_chunks[0].end == 5


def test_a_caption_may_be_text_beside_the_picture_and_members_come_in_any_order(
    tmp_path: Path,
) -> None:
    members = {
        "set.1/a.txt": "ein Café".encode(),
        "set.1/a.seg.png": b"mask",
        "set.1/b.json": as_json(),
        "set.1/b.JPEG": b"",
        "set.1/.hidden": b"",
        "README": b"",
    }
    tar_of(tmp_path / "a.tar", members)
    first, second = read(tmp_path / "a.tar")
    assert (first.caption, first.image) == ("ein Café", "set.1/a.seg.png")
    assert (second.caption, second.image) == ("a dog", "set.1/b.JPEG")


def test_a_url_and_a_scene_stay_references(tmp_path: Path) -> None:
    records = [
        GroundedRecord(caption="a", noun_chunks=None, ref_exps=None, url="https://example.com/a"),
        GroundedRecord(caption="b", noun_chunks=None, ref_exps=None, image="scene:train/3"),
    ]
    with Writer(tmp_path / "a.tar", Pictures(tmp_path)) as writer:
        for record in records:
            writer.write(record)
    assert list(read(tmp_path / "a.tar")) == records


def test_a_picture_that_is_not_there_is_named_and_no_tar_appears(tmp_path: Path) -> None:
    record = GroundedRecord(id=7, caption="a", noun_chunks=None, ref_exps=None, image="gone.png")
    with (
        pytest.raises(RecordError, match=r"record 7.*gone\.png"),
        Writer(tmp_path / "a.tar", Pictures(tmp_path)) as writer,
    ):
        writer.write(record)
    assert not list(tmp_path.iterdir())


def test_a_picture_without_an_ending_gets_that_of_its_bytes(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a")
    record = GroundedRecord(id=7, caption="a", noun_chunks=None, ref_exps=None, image="a")
    with Writer(tmp_path / "a.tar", Pictures(tmp_path)) as writer:
        writer.write(record)
    assert [r.image for r in read(tmp_path / "a.tar")] == ["000000.png"]


def test_a_tar_needs_to_know_where_pictures_are(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="pictures="), Writer(tmp_path / "a.tar") as writer:
        writer.write(GroundedRecord(caption="a", noun_chunks=None, ref_exps=None))


def test_keys_of_several_tars_differ(tmp_path: Path) -> None:
    record = GroundedRecord(caption="a", noun_chunks=None, ref_exps=None)
    for _ in range(2):
        with folder_writer(tmp_path / "s", Kind.WEBDATASET, Pictures(tmp_path)) as writer:
            writer.write(record)
    names = []
    for part in parts_of(tmp_path / "s", Kind.WEBDATASET):
        with tarfile.open(part) as tar:
            names += tar.getnames()
    assert names == ["000000000000.json", "000001000000.json"]


def test_the_same_records_make_the_same_bytes(tmp_path: Path) -> None:
    path, records = written(tmp_path)
    with Writer(tmp_path / "b.tar", Pictures(tmp_path / "pictures")) as writer:
        for record in records:
            writer.write(record)
    assert path.read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_of_a_tar_that_breaks_off_the_whole_samples_are_read_with_a_warning(
    tmp_path: Path,
) -> None:
    members = {}
    for number in range(3):
        members |= {f"{number}.json": as_json(id=number), f"{number}.jpg": b"x" * 700}
    tar_of(tmp_path / "a.tar", members)
    whole = (tmp_path / "a.tar").read_bytes()
    sample = 512 + 512 + 512 + 1024
    for length in range(100, len(whole), 97):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                ids = [record.id for record in read(tmp_path / "a.tar")]
            except RecordError as error:
                assert length < 512 and "a.tar" in str(error)
                continue
        ended = length >= 3 * sample + 512  # a block of zeros ends a tar
        # A sample is known to be whole when the next one begins.
        assert ids == list(range(3 if ended else max(0, (length - 512) // sample)))
        assert bool(caught) == (not ended)


@pytest.mark.parametrize(
    ("data", "named"), [(b"{", "no JSON"), (b"[1]", "JSON object"), (b"{}", "missing.*caption")]
)
def test_a_bad_sample_is_named_by_tar_and_member(tmp_path: Path, data: bytes, named: str) -> None:
    tar_of(tmp_path / "a.tar", {"1.json": as_json(), "2.json": data})
    with pytest.raises(RecordError, match=rf"a\.tar:2\.json: .*{named}"):
        list(read(tmp_path / "a.tar"))


def test_reading_a_tar_holds_one_sample_at_a_time(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {f"{number:05d}.json": as_json() for number in range(3000)})
    records = read(tmp_path / "a.tar")
    for _ in range(100):
        next(records)
    gc.collect()
    tracemalloc.start()
    for _ in range(2800):
        next(records)
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000  # a remembered member takes more than 500 bytes


def test_a_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"hello" * 300)
    with pytest.raises(RecordError, match=r"a\.tar: no tar"):
        list(read(tmp_path / "a.tar"))
