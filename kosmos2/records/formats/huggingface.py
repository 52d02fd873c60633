"""Hugging Face `datasets`: a folder of pictures that `load_dataset(folder)` opens offline.

    README.md          says which files are the data
    images/dog.jpg
    metadata.parquet   {"file_name": "images/dog.jpg", "width": 40, "height": 30,
                        "caption": "a white square", "objects": [{"phrase": "a white square",
                        "start": 0, "end": 14, "x0": 0.25, "y0": 0.1667, "x1": 0.75, "y1": 0.6667,
                        "bbox_xywh_px": [10.0, 5.0, 20.0, 15.0], "score": null}], "record": "{}"}

`datasets` makes of `file_name` the column `image`, an Image feature. x0 to y1 are shares of the
picture; `bbox_xywh_px` is the same as COCO has it. `record` holds as JSON what has no column.
Read are also folders of others with metadata.jsonl, with captions in `text` and with `objects` of
`bbox` (x, y, width, height in pixels) and `category`, as the documentation of `datasets` has them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kosmos2.boxes import Box
from kosmos2.errors import MissingExtraError, RecordError
from kosmos2.records.formats import carried
from kosmos2.records.formats.folder import place
from kosmos2.records.formats.format import KEPT, Feature, Format, Reading, Writing, each
from kosmos2.records.formats.labels import class_name
from kosmos2.records.formats.objects import image_of, located, pixels, read_objects, understood
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = "metadata.parquet"
_IMAGES = "images"
_SHARES = ("x0", "y0", "x1", "y1")
_GROUP = 1024
"""Rows that are held in memory and written together."""

# Without this, datasets would take a picture called test-1.jpg for a split of its own.
_README = f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path:
    - {METADATA}
    - {_IMAGES}/*
---

Pictures with captions whose phrases have boxes. `objects` has a row for each box: `phrase`, which
is the characters `start` to `end` of `caption`; `x0`, `y0`, `x1`, `y1` as shares of the picture;
`bbox_xywh_px` in pixels; `score`, or null where nobody measured it.
"""


def write(records: Iterable[GroundedRecord], path: Path, writing: Writing) -> None:
    """Write pictures and their table into a new folder, a group of rows at a time."""
    arrow, parquet = _arrow()
    images = path / _IMAGES
    images.mkdir(parents=True)
    (path / "README.md").write_text(_README, encoding="utf-8", newline="\n")
    schema = _schema(arrow)

    def row(record: GroundedRecord) -> dict[str, Any]:
        size = writing.pictures.size(record)
        return {
            "file_name": f"{_IMAGES}/{place(record, writing.pictures, images)}",
            "width": size[0],
            "height": size[1],
            "caption": record.caption,
            "objects": [_object(record, entry, size) for entry in record.entries],
            "record": json.dumps(carried.rest(record)),
        }

    named = ((f"record {record.id}", record) for record in records)
    rows = each(named, row, writing.refuse)
    with parquet.ParquetWriter(path / METADATA, schema) as table:
        while group := list(itertools.islice(rows, _GROUP)):
            table.write_table(arrow.Table.from_pylist(group, schema=schema))


def read(path: Path, reading: Reading) -> Iterator[GroundedRecord]:
    """Yield the records of a folder, or of one metadata file, split by split."""
    files = [path] if path.is_file() else _metadata(path)
    folder = path if path.is_dir() else path.parent
    for file in files:

        def record(row: dict[str, Any], file: Path = file) -> GroundedRecord:
            name = (file.parent / row["file_name"]).relative_to(folder).as_posix()
            row["file_name"] = image_of(name, folder / METADATA, reading)
            return _ours(row) if row.get("record") else _foreign(row, Pictures(folder))

        yield from each(_rows(file), understood(record, "a folder of datasets"), reading.refuse)


def _object(record: GroundedRecord, entry: Grounded, size: tuple[int, int]) -> dict[str, Any]:
    phrase = record.caption[entry.start : entry.end]
    x0, y0, x1, y1 = pixels(entry.box, size)
    return {
        "phrase": phrase,
        "category": class_name(phrase),
        "start": entry.start,
        "end": entry.end,
        **dict(zip(_SHARES, entry.box.corners, strict=True)),
        "bbox_xywh_px": [x0, y0, round(x1 - x0, 9), round(y1 - y0, 9)],
        "score": entry.score,
    }


def _schema(arrow: Any) -> pa.Schema:  # noqa: ANN401
    box = arrow.struct(
        [
            ("phrase", arrow.string()),
            ("category", arrow.string()),
            ("start", arrow.int32()),
            ("end", arrow.int32()),
            *((name, arrow.float64()) for name in _SHARES),
            ("bbox_xywh_px", arrow.list_(arrow.float64())),
            ("score", arrow.float64()),
        ]
    )
    return arrow.schema(
        [
            ("file_name", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("caption", arrow.string()),
            ("objects", arrow.list_(box)),
            ("record", arrow.string()),
        ]
    )


def _metadata(path: Path) -> list[Path]:
    found = sorted(path.rglob(METADATA)) or sorted(path.rglob("metadata.jsonl"))
    if found:
        return found
    if any(path.rglob("*.parquet")) or any(path.rglob("*.arrow")):
        raise RecordError(
            f"{path}: the pictures of this dataset lie inside its tables, and records point at "
            f"files. Save them as a folder of pictures with {METADATA} or metadata.jsonl first"
        )
    raise RecordError(f"{path}: no {METADATA} or metadata.jsonl in this folder or below it")


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (where, row) of a file of JSON lines or of Parquet."""
    if file.suffix == ".jsonl":
        yield from read_objects(file)
        return
    arrow, parquet = _arrow()
    number = 0
    try:
        with parquet.ParquetFile(file) as table:
            batches = table.iter_batches(batch_size=_GROUP)
            for row in itertools.chain.from_iterable(batch.to_pylist() for batch in batches):
                number += 1
                yield f"{file}:row {number}", row
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{file}: no Parquet behind row {number} ({error})") from error


def _ours(row: Mapping[str, Any]) -> GroundedRecord:
    """Return the whole record; boxes that somebody added without a span are looked for."""
    entries: list[Grounded] = []
    added: list[tuple[str, Box, float | None]] = []
    for each_ in row["objects"]:
        box = carried.clipped_box("objects", [each_[name] for name in _SHARES], (1, 1))
        if each_.get("start") is None:
            added.append((each_.get("phrase") or "", box, each_.get("score")))
        else:
            entries.append(Grounded(each_["start"], each_["end"], *box.corners, each_["score"]))
    caption, found = located(row["caption"], added)
    said = {"image": row["file_name"], "shard": None, "caption": caption}
    return carried.whole({**json.loads(row["record"]), **said}, [*entries, *found])


def _foreign(row: Mapping[str, Any], pictures: Pictures) -> GroundedRecord:
    known = {name: row.get(name) for name in ("width", "height")}
    number = row.get("id", row.get("image_id"))
    said = {**carried.NOTHING, **known, "id": number, "image": row["file_name"], "caption": ""}
    objects = list(_objects(row.get("objects") or ()))
    size = pictures.size(carried.whole(said, ())) if objects else (1, 1)
    labelled = []
    for name, (x, y, width, height) in objects:
        box = carried.clipped_box("objects.bbox", (x, y, x + width, y + height), size)
        labelled.append((name, box, None))
    spoken = row.get("caption", row.get("text")) or ""
    caption, entries = located(str(spoken), labelled)
    return carried.whole({**said, "caption": caption}, entries)


def _objects(objects: Mapping[str, Any] | Sequence[Any]) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield class name and bbox (x, y, width, height in pixels) of rows or of columns."""
    if isinstance(objects, Mapping):
        names = objects.get("category", objects.get("categories", objects.get("label")))
        boxes = objects["bbox"]
        pairs = list(zip(names or ["object"] * len(boxes), boxes, strict=True))
    else:
        pairs = [(each_.get("category", each_.get("label")), each_["bbox"]) for each_ in objects]
    for name, bbox in pairs:
        yield f"class {name}" if isinstance(name, int) else str(name or "object"), bbox


def _arrow() -> tuple[Any, Any]:
    """Return the library pyarrow and its part for Parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            'folders of datasets need pyarrow; `pip install "kosmos2[records]"`'
        ) from error
    return pyarrow, pyarrow.parquet


HUGGINGFACE = Format(
    name="huggingface",
    title="a folder for Hugging Face datasets",
    layout=f"a folder with {_IMAGES}/, which holds the pictures, {METADATA} and README.md",
    coordinates="x0, y0, x1, y1 as shares of the picture; bbox_xywh_px as COCO, in pixels",
    carries={
        **dict.fromkeys(Feature, KEPT),
        Feature.PICTURE: f"in {_IMAGES}/, under its file's name",
    },
    read=read,
    write=write,
)
