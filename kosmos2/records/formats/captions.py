"""Captions beside pictures: `dog.jpg` and `dog.txt`, as trainers of picture makers read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from kosmos2.errors import RecordError
from kosmos2.records.formats.folder import pictures_in, place
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.objects import image_of
from kosmos2.records.record import GroundedRecord


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write pictures and texts into a new folder. Boxes are lost."""
    path.mkdir(parents=True)

    def caption(record: GroundedRecord) -> None:
        content = (record.caption + "\n").encode("utf-8", "replace")
        name = place(record, writing.pictures, path)
        (path / name).with_suffix(".txt").write_bytes(content)

    named = ((f"record {record.id}", record) for record in records)
    for _ in each(named, caption, writing.refuse):
        pass


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield a record for each picture with a text beside it, by name; others have no caption.

    With `reading.images`, pictures lie there and texts in the same folders of `path`.
    """
    images = reading.images or path
    if not path.is_dir() or not images.is_dir():
        raise RecordError(f"{path}: captions beside pictures are a folder, and there is none")

    def record(picture: Path) -> GroundedRecord:
        text = path / picture.relative_to(images).with_suffix(".txt")
        try:
            caption = text.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"{text}: cannot be read as text ({error})") from error
        inside = picture.relative_to(images).as_posix()
        return GroundedRecord(
            id=picture.stem,
            image=image_of(inside, path / text.name, reading),
            caption=caption.removesuffix("\n").removesuffix("\r"),
            noun_chunks=None,
            ref_exps=None,
        )

    found = (
        (str(picture), picture)
        for picture in pictures_in(images)
        if (path / picture.relative_to(images).with_suffix(".txt")).is_file()
    )
    yield from each(found, record, reading.refuse)


CAPTIONS = Format(
    name="captions",
    title="captions as .txt beside the pictures",
    layout="a folder of pictures, each with a text file of its name; holds the pictures",
    coordinates="none: boxes are not written",
    carries={
        Feature.PICTURE: "in the folder, under its file's name",
        Feature.SIZE: "told by the picture",
        Feature.CAPTION: KEPT,
    },
    read=read,
    write=write,
)
