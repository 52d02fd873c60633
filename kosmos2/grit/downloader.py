"""What a process does: a unit of URLs -> a tar of pictures, and why the others are not in it.

Every outcome is noted in a file of its own as soon as it is known, so that a worker that is killed
and its successor do not ask for anything twice. When a unit is whole, its notes become its files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from kosmos2.errors import FetchError, ImageError, one_line
from kosmos2.grit.filters import perceptual_hash
from kosmos2.grit.polite import Crawler, Politeness, host_of
from kosmos2.images import FORMATS, open_picture
from kosmos2.records.jsonl import as_json
from kosmos2.records.webdataset import PICTURES
from kosmos2.shards import Unit
from kosmos2.sources.rows import CAPTION_COLUMNS

SUCCESS, NO_URL, NO_ROW = "success", "no url", "row cannot be read"
NO_PICTURE, DAMAGED = "no picture", "damaged picture"
URL_COLUMNS = ("url", "URL", "image_url", "img_url")
BYTES = "bytes"
"""Among the counts of a unit: of the pictures in its tar. The others are statuses."""

_ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
_VIEWS = ("noun_chunks", "ref_exps")
_DECODING = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Decoded pictures are large, so fewer are in memory than are on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of the table to use; by default the first of the usual names that a row has."""

    url: tuple[str, ...] = URL_COLUMNS
    caption: tuple[str, ...] = CAPTION_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What travels to every worker."""

    politeness: Politeness
    """Of this worker alone."""
    columns: Columns
    longest_side: int | None
    threads: int
    notes: Path
    """The folder of what was had of units that are not done yet. Absolute."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A row of the table, and its place in it."""

    position: int
    fields: Mapping[str, Any] | None
    """None where it cannot be read; `problem` says why."""
    problem: str = ""


class Downloader:
    """Downloads units."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._crawler = Crawler(plan.politeness)

    def prepare(self, unit: Unit) -> None:
        """Do nothing: two workers may prepare the same unit, and would ask for all of it twice."""

    def fetch(self, unit: Unit) -> Path:
        """Have every picture of a unit, or a reason, noted in a folder of its own; return that."""
        notes = self._plan.notes / unit.name
        notes.mkdir(parents=True, exist_ok=True)
        rows = [row for row in _mixed(unit.items, self._plan.columns) if not _is_noted(notes, row)]
        _in_threads(self._plan.threads, rows, partial(self._have, notes))
        return notes

    def _have(self, notes: Path, row: Numbered) -> None:
        note, data = self._outcome(row)
        path = _note(notes, row)
        half = path.with_suffix(".half")
        half.write_bytes(json.dumps(note).encode() + b"\n" + data)
        half.rename(path)

    def _outcome(self, row: Numbered) -> tuple[dict[str, Any], bytes]:
        url = _first(row.fields, self._plan.columns.url)
        try:
            if row.fields is None:
                return _failed(NO_ROW, row.problem)
            if url is None:
                return _failed(NO_URL, f"no column of {', '.join(self._plan.columns.url)} has one")
            made, data = _kept(self._crawler.fetch(url), self._plan.longest_side)
        except (FetchError, ImageError) as error:
            kind = error.kind if isinstance(error, FetchError) else _kind(error)
            return _failed(kind, one_line(error))
        return {"status": SUCCESS, "error_message": None, **made}, data

    def run(self, unit: Unit, prepared: None, out: Path) -> Mapping[str, int]:
        """Write the tar of a unit, its failures and its statistics; return the latter."""
        notes = self.fetch(unit)
        counts: Counter[str] = Counter()
        keys: set[str] = set()
        tar_path, failed_path = out / f"{unit.name}.tar", out / f"{unit.name}_failed.jsonl"
        with (
            tarfile.open(tar_path, "w", format=tarfile.PAX_FORMAT) as tar,
            failed_path.open("wb") as failed,
        ):
            for row in unit.items:
                note, data = _read_note(_note(notes, row))
                key = _key(row, keys)
                counts[note["status"]] += 1
                counts[BYTES] += len(data)
                if note["status"] == SUCCESS:
                    _add(tar, key, self._sample(row, key, note), data)
                else:
                    where = {"key": key, "url": _first(row.fields, self._plan.columns.url)}
                    failed.write(_json({**where, **note}) + b"\n")
        (out / f"{unit.name}_stats.json").write_bytes(_json(_stats(counts)))
        return counts

    def _sample(self, row: Numbered, key: str, note: Mapping[str, Any]) -> dict[str, Any]:
        """Return the JSON of a sample: all columns of the row, and what is known of the picture.

        What the source says of a picture under a name of ours is kept as `source_NAME`.
        """
        assert row.fields is not None
        columns = self._plan.columns
        made = {name: value for name, value in note.items() if name != "ending"}
        ours = {
            "key": key,
            "url": _first(row.fields, columns.url),
            "caption": _first(row.fields, columns.caption) or "",
            **made,
        }
        sample: dict[str, Any] = {}
        for name, value in row.fields.items():
            if isinstance(value, bytes) or (isinstance(value, Mapping) and "bytes" in value):
                continue  # a picture that the table has itself
            if name not in ours:
                sample[name] = _spans(value) if name in _VIEWS else value
            elif value != ours[name] and value is not None:
                sample[f"source_{name}"] = value
        return {**sample, **ours, "ending": note["ending"]}


# --- the picture


class _NoPictureError(ImageError):
    """What came is nothing that could be a picture."""


def _kind(error: ImageError) -> str:
    return NO_PICTURE if isinstance(error, _NoPictureError) else DAMAGED


def _kept(data: bytes, longest_side: int | None) -> tuple[dict[str, Any], bytes]:
    """Return what to say of a picture, sizes in pixels of it upright, and the bytes to keep."""
    with _DECODING:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                format = str(opened.format)
        except Image.DecompressionBombError as error:
            raise ImageError(f"too large to decode ({error})") from error
        except Exception as error:  # decoders raise anything, from struct.error to SyntaxError
            raise _NoPictureError(f"no picture: it begins {one_line(data[:40])}") from error
        picture = open_picture(data)
        made: dict[str, Any] = {"phash": f"{perceptual_hash(picture.image):016x}"}
        original = {"original_width": picture.width, "original_height": picture.height}
        width, height = picture.width, picture.height
        ending = _ENDINGS.get(format, format.lower())
        if longest_side is not None and max(width, height) > longest_side:
            scale = longest_side / max(width, height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
            made["original_sha256"] = hashlib.sha256(data).hexdigest()
            small = picture.image.resize((width, height), Image.Resampling.LANCZOS)
            data, ending = _encoded(small, "JPEG"), "jpg"
        elif ending not in PICTURES:
            made["original_sha256"] = hashlib.sha256(data).hexdigest()
            data, ending = _encoded(picture.image, "PNG"), "png"
    size = {"width": width, "height": height, **original}
    return {**size, "sha256": hashlib.sha256(data).hexdigest(), **made, "ending": ending}, data


def _encoded(image: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **({"quality": 95} if format == "JPEG" else {}))
    return stream.getvalue()


# --- the notes: one file for each row, so that nothing is asked for twice


def _note(notes: Path, row: Numbered) -> Path:
    return notes / f"{row.position:09d}"


def _failed(status: str, message: str) -> tuple[dict[str, Any], bytes]:
    return {"status": status, "error_message": message}, b""


def _read_note(path: Path) -> tuple[dict[str, Any], bytes]:
    line, _, data = path.read_bytes().partition(b"\n")
    return json.loads(line), data


def _is_noted(notes: Path, row: Numbered) -> bool:
    """Return whether a note is there and whole: after a power cut it may be neither."""
    try:
        note, data = _read_note(_note(notes, row))
    except (FileNotFoundError, ValueError):
        return False
    return bool(note["status"] != SUCCESS or note["sha256"] == hashlib.sha256(data).hexdigest())


def _mixed(rows: Sequence[Numbered], columns: Columns) -> list[Numbered]:
    """Return the rows so that those of one host are far apart, or threads would wait for it."""
    seen: Counter[str] = Counter()
    turns = []
    for row in rows:
        host = host_of(_first(row.fields, columns.url) or "")
        turns.append((seen[host], row.position, row))
        seen[host] += 1
    return [row for _, _, row in sorted(turns, key=lambda turn: turn[:2])]


def _in_threads(threads: int, rows: Iterable[Numbered], work: Callable[[Numbered], None]) -> None:
    """Do all rows. The threads are daemons, so that an interrupt need not wait for the network."""
    left, lock = iter(rows), threading.Lock()
    faults: list[BaseException] = []

    def take() -> None:
        while not faults:
            with lock:
                row = next(left, None)
            if row is None:
                return
            try:
                work(row)
            except BaseException as error:
                faults.append(error)

    crew = [threading.Thread(target=take, daemon=True) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    if faults:
        raise faults[0]


# --- the tar


def _add(tar: tarfile.TarFile, key: str, sample: dict[str, Any], data: bytes) -> None:
    members = {sample.pop("ending"): data, "json": _json(sample)}
    if sample["caption"]:
        members["txt"] = sample["caption"].encode("utf-8", "replace")
    for ending, content in members.items():
        member = tarfile.TarInfo(f"{key}.{ending}")
        member.size = len(content)
        member.mode = 0o644
        tar.addfile(member, io.BytesIO(content))
    tar.members.clear()  # type: ignore[attr-defined]  # or a large tar fills the memory


def _key(row: Numbered, taken: set[str]) -> str:
    """Return the source's own key or id, fit for a member of a WebDataset, else the position."""
    fields = row.fields or {}
    own = next((fields[name] for name in ("key", "id") if fields.get(name) not in (None, "")), None)
    key = f"{row.position:09d}" if own is None else re.sub(r"[^\w-]", "_", str(own))[:100]
    if key in taken:
        key = f"{key}-{row.position:09d}"
    taken.add(key)
    return key


def _first(fields: Mapping[str, Any] | None, columns: Iterable[str]) -> str | None:
    """Return the first text that a row has in one of the columns."""
    values = ((fields or {}).get(name) for name in columns)
    return next((value for value in values if isinstance(value, str) and value.strip()), None)


def _stats(counts: Mapping[str, int]) -> dict[str, Any]:
    statuses = {name: count for name, count in counts.items() if name != BYTES}
    broken = statuses.get(NO_PICTURE, 0) + statuses.get(DAMAGED, 0)
    successes = statuses.get(SUCCESS, 0)
    total = sum(statuses.values())
    return {
        "count": total,
        "successes": successes,
        "failed_to_download": total - successes - broken,
        "failed_to_resize": broken,
        "status_dict": statuses,
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, default=as_json).encode()


def _spans(entries: object) -> object:
    """Return spans whose ends are whole: Parquet, as GRIT was released, has them as floats."""
    if not isinstance(entries, list):
        return entries
    return [
        [*map(int, entry[:2]), *entry[2:]]
        if isinstance(entry, list) and all(_is_whole(end) for end in entry[:2])
        else entry
        for entry in entries
    ]


def _is_whole(value: object) -> bool:
    return isinstance(value, float | int) and value == value // 1
