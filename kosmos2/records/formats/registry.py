"""All formats by name, and which one a path is in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kosmos2.errors import RecordError
from kosmos2.records.formats.captions import CAPTIONS
from kosmos2.records.formats.chat import FLORENCE, LLAVA, LLAVA_SQUARE, QWEN
from kosmos2.records.formats.coco import COCO
from kosmos2.records.formats.fiftyone import FIFTYONE
from kosmos2.records.formats.format import Format
from kosmos2.records.formats.grit import GRIT, GRIT_PARQUET
from kosmos2.records.formats.huggingface import HUGGINGFACE
from kosmos2.records.formats.labelstudio import LABEL_STUDIO
from kosmos2.records.formats.markup import MARKUP
from kosmos2.records.formats.odvg import ODVG
from kosmos2.records.formats.stores import JSONL, PARQUET, WEBDATASET
from kosmos2.records.formats.supervised import SUPERVISION
from kosmos2.records.formats.table import CSV
from kosmos2.records.formats.voc import VOC
from kosmos2.records.formats.yolo import YOLO
from kosmos2.records.store import Kind, kind_named

_ALL = (
    JSONL,
    PARQUET,
    WEBDATASET,
    GRIT,
    GRIT_PARQUET,
    COCO,
    YOLO,
    VOC,
    CSV,
    CAPTIONS,
    ODVG,
    QWEN,
    FLORENCE,
    LLAVA,
    LLAVA_SQUARE,
    MARKUP,
    LABEL_STUDIO,
    HUGGINGFACE,
    FIFTYONE,
    SUPERVISION,
)
FORMATS: Mapping[str, Format] = {form.name: form for form in _ALL}

_HEAD = 1 << 16
"""Characters of a file that are looked at."""
_STORES = {Kind.JSONL: JSONL, Kind.PARQUET: PARQUET, Kind.WEBDATASET: WEBDATASET}

_FOLDERS = (
    # What stands in no other format's folder comes first.
    ("metadata.parquet", "huggingface"),
    ("metadata.jsonl", "huggingface"),
    ("labels.json", "fiftyone"),
    ("data.yaml", "yolo"),
    ("instances*.json", "coco"),
    ("captions*.json", "coco"),
    ("annotations/instances*.json", "coco"),
    ("annotations/captions*.json", "coco"),
    ("Annotations/*.xml", "voc"),
    ("*.xml", "voc"),
    ("labels/**/*.txt", "yolo"),
    ("*.tar", "webdataset"),
    ("*.parquet", "parquet"),
    ("*.jsonl*", "jsonl"),
    ("**/*.txt", "captions"),
)
_MARKS = (
    ('"grounding"', '"regions"', "odvg"),
    ('"detection"', '"instances"', "odvg"),
    ('"prefix"', '"suffix"', "florence"),
    ('"conversations"', "bbox_2d", "qwen"),
    ('"messages"', "bbox_2d", "qwen"),
    ('"conversations"', "<box>", "qwen"),
    ('"messages"', "<|box_start|>", "qwen"),
    ('"data"', '"predictions"', "labelstudio"),
    ('"data"', '"annotations"', "labelstudio"),
    ('"images"', '"file_name"', "coco"),
    ('"annotations"', '"category_id"', "coco"),
    ('"noun_chunks"', '"ref_exps"', "jsonl"),
)
"""Two words that stand in the head of a JSON file of the format, and of none before it."""
_MARKUP = ("<grounding>", "<patch_index_")


def format_named(name: str) -> Format:
    """Return the format of this name; RecordError lists the names where there is none."""
    if name not in FORMATS:
        raise RecordError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(path: Path) -> Format:
    """Return the format of a path: by what lies there, or by the name of what is to be written.

    RecordError lists the names where that says too little.
    """
    name = _of_folder(path) if path.is_dir() else _of_file(path)
    if name is None or name not in FORMATS:
        there = "what lies at" if path.exists() else "the name"
        raise RecordError(
            f"{there} {path} does not say its format; name it, one of {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def _of_folder(path: Path) -> str | None:
    return next((name for pattern, name in _FOLDERS if any(path.glob(pattern))), None)


def _of_file(path: Path) -> str | None:
    kind, suffix = kind_named(path.name), path.suffix.lower()
    if kind in (Kind.PARQUET, Kind.WEBDATASET):
        return _STORES[kind].name
    if suffix in (".csv", ".xml", ".yaml"):
        return {".csv": "csv", ".xml": "voc", ".yaml": "yolo"}[suffix]
    if path.is_file() and suffix not in (".gz", ".zst"):
        return _of_text(path)
    # One .json may be lines, a list or a document.
    return "jsonl" if kind is Kind.JSONL and suffix != ".json" else None


def _of_text(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.read(_HEAD)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read as text ({error})") from error
    if not head.lstrip().startswith(("[", "{")):
        return "markup" if any(mark in head for mark in _MARKUP) else None
    return next((name for one, other, name in _MARKS if one in head and other in head), None)
