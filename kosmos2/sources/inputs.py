"""What is to be annotated: a folder, a glob, a list, records, a table or tars -> items in order.

Everything here streams: nothing is kept but the names of one folder at a time. The job writes the
items down once (`write_list`), and that list is what is done, whatever happens to the folder.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kosmos2.errors import RequestError, one_line
from kosmos2.records import jsonl
from kosmos2.sources import coco, datasets
from kosmos2.sources.containers import PICTURES, items_of_rows, rows_of_csv, rows_of_table, samples
from kosmos2.sources.places import Place
from kosmos2.sources.rows import Item, Origin

TABLES = (".parquet", ".pq")
TEXT_TABLES = (".csv", ".tsv")
TARS = (".tar",)
DOCUMENTS = (".json",)
LISTS = (".txt", ".lst")
KINDS = (
    f"a folder, a glob, pictures ({', '.join(PICTURES[:5])}, ...), a list of paths (.txt), records "
    "or a table (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .csv, .tsv), captions of COCO (.json), a "
    "folder of `datasets` (.arrow), tars (.tar)"
)
_LONGEST_STEM = 120
"""Bytes of a file's name: room for the words of a crop, on every system."""
_LONGEST_TEXT = 1 << 20
"""Bytes of a caption beside a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """How to look for pictures."""

    images: Path | None = None
    """Where relative paths of pictures start; None: at the folder of the file that says them."""
    captions: bool = False
    """Whether the caption of NAME.jpg is in NAME.txt beside it."""
    leave_out: tuple[Path, ...] = ()
    """Folders that this job writes."""


def items(source: str, looking: Looking) -> Iterator[Item]:
    """Yield what a source holds, in its order; RequestError where it is nothing of all that."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, looking)
    if path.exists():
        return _file(path, path.parent, looking)
    if glob.has_magic(source):
        return _glob(str(path), looking)
    raise RequestError(f"there is nothing at {one_line(source)}; INPUT is {KINDS}")


def write_list(found: Iterator[Item], path: Path) -> tuple[int, str]:
    """Write items as lines; return how many, and the SHA-256 of the file."""
    count, digest = 0, hashlib.sha256()
    with path.open("wb") as file:
        for item in found:
            named = replace(item, stem=item.stem or f"{count:08d}-{_slug(str(item.id))}")
            line = (json.dumps(_as_dict(named), default=str) + "\n").encode()
            digest.update(line)
            file.write(line)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count, digest.hexdigest()


def read_list(path: Path, start: int = 0, stop: int | None = None) -> Iterator[Item]:
    """Yield the items of a list that `write_list` wrote, those with the numbers [start, stop)."""
    with path.open("rb") as lines:
        for line in islice(lines, start, stop):
            yield item_of_line(line)


def item_of_line(line: bytes) -> Item:
    """Return the item of one line that `write_list` wrote."""
    return _from_dict(json.loads(line))


def _slug(text: str) -> str:
    """Return a text as part of a file name that every system takes."""
    letters = "".join(
        each if each.isascii() and (each.isalnum() or each in "._-") else "-" for each in text
    )
    return letters.strip(".-")[-60:] or "picture"


def _as_dict(item: Item) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(item).items() if value is not None}
    if item.place is not None:
        place = fields["place"].items()
        fields["place"] = {name: value for name, value in place if value is not None}
    return fields


def _from_dict(fields: dict[str, Any]) -> Item:
    place, boxes, phrases = fields.get("place"), fields.get("boxes"), fields.get("phrases")
    return Item(
        **{
            **fields,
            "place": None if place is None else Place(**place),
            "boxes": None if boxes is None else tuple(tuple(box) for box in boxes),
            "phrases": None if phrases is None else tuple(phrases),
        }
    )


# --- folders and lists of files


def _folder(root: Path, looking: Looking) -> Iterator[Item]:
    if any(True for _ in _walk(root, PICTURES, looking)):
        described = set[str]()
        if looking.captions:
            yield from _described(root, looking, described)
        for folder, names in _walk(root, PICTURES, looking):
            rest = [name for name in names if str((folder / name).absolute()) not in described]
            yield from _pictures(folder, rest, root, looking)
        return
    kept_in = (*TARS, *TABLES, *datasets.ARROW)
    if not any(True for _ in _walk(root, kept_in, looking)):
        raise RequestError(
            f"no file in {one_line(root)} or its folders has the name of a picture "
            f"({', '.join(PICTURES)}), a tar or a table ({', '.join(kept_in)})"
        )
    for folder, names in _walk(root, kept_in, looking):
        tars = {Path(name).stem for name in names if name.lower().endswith(TARS)}
        for name in names:
            # img2dataset's 00000.parquet says again what 00000.tar holds.
            is_again = name.lower().endswith(TABLES) and Path(name).stem in tars
            is_aside = name.endswith(datasets.ARROW) and not datasets.belongs(folder / name)
            if not (is_again or is_aside):
                yield from _file(folder / name, root, looking)


def _described(root: Path, looking: Looking, described: set[str]) -> Iterator[Item]:
    """Yield the pictures that a `metadata` file names, and add their paths to `described`."""
    walked = _walk(root, datasets.METADATA, looking)
    for path in (folder / name for folder, names in walked for name in names):
        rows = _file(path, root, replace(looking, images=None))
        first = next(rows, None) if path.name in datasets.METADATA else None
        if first is None or first.place is None or not first.name.lower().endswith(PICTURES):
            continue  # a file of another meaning
        for item in chain((first,), rows):
            if item.place is not None and item.place.path is not None:
                described.add(item.place.path)
            yield item


def _walk(
    root: Path, suffixes: tuple[str, ...], looking: Looking
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder that has such files, with their names; hidden ones are left out."""
    apart = {path.absolute() for path in looking.leave_out}
    for folder, inner, names in os.walk(root):
        here = Path(folder)
        inner[:] = sorted(
            name
            for name in inner
            if not name.startswith(".") and (here / name).absolute() not in apart
        )
        wanted = [
            name
            for name in sorted(names)
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
        if wanted:
            yield here, wanted


def _pictures(folder: Path, names: list[str], root: Path, looking: Looking) -> Iterator[Item]:
    """Yield pictures of one folder. Their id is their path in `root`; without suffix if unique."""
    stems = Counter(Path(name).stem.lower() for name in names)
    for name in names:
        path = folder / name
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        is_alone = stems[Path(name).stem.lower()] == 1
        id = (shown.with_suffix("") if is_alone else shown).as_posix()
        yield Item(
            id=id,
            name=str(path),
            stem=id if len(os.fsencode(Path(id).name)) <= _LONGEST_STEM else "",
            place=Place(path=str(path.absolute())),
            caption=_beside(path) if looking.captions else None,
        )


def _beside(picture: Path) -> str | None:
    """Return the caption in the text file beside a picture."""
    path = picture.with_suffix(".txt")
    try:
        if not path.is_file() or path.stat().st_size > _LONGEST_TEXT:
            return None
        return path.read_text(encoding="utf-8-sig", errors="replace").strip() or None
    except OSError:
        return None


def _glob(pattern: str, looking: Looking) -> Iterator[Item]:
    paths = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    files = [path for path in paths if path.is_file()]
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    if not files:
        raise RequestError(f"no file is called {one_line(pattern)}; INPUT is {KINDS}")
    if not pictures:
        root = Path(os.path.commonpath([path.parent for path in files]))
        for path in files:
            yield from _file(path, root, looking)
        return
    root = Path(os.path.commonpath([path.parent for path in pictures]))
    for folder in dict.fromkeys(path.parent for path in pictures):
        names = [path.name for path in pictures if path.parent == folder]
        yield from _pictures(folder, names, root, looking)


def _file(path: Path, root: Path, looking: Looking) -> Iterator[Item]:
    """Yield what is in a file, by the end of its name; `root` is where the search began."""
    name = path.name.lower()
    shown = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    origin = Origin(path=path, images=(looking.images or path.parent).absolute(), shown=shown)
    if name.endswith(PICTURES):
        return _pictures(path.parent, [path.name], root, looking)
    if name.endswith(TARS):
        return samples(path, root)
    if name.endswith(TABLES):
        return rows_of_table(origin)
    if name.endswith(TEXT_TABLES):
        return items_of_rows(rows_of_csv(origin.path), origin)
    if name.endswith(DOCUMENTS) and coco.is_document(path):
        return coco.pairs_of(origin) if looking.captions else coco.pictures_of(origin)
    if name.removesuffix(".gz").removesuffix(".zst").endswith(jsonl.ENDINGS):
        return items_of_rows(jsonl.rows(origin.path), origin)
    if name.endswith(datasets.ARROW):
        return datasets.rows_of_arrow(origin)
    if name.endswith(LISTS):
        return _list(origin, looking)
    raise RequestError(f"{one_line(path)} is nothing that holds pictures; INPUT is {KINDS}")


def _list(origin: Origin, looking: Looking) -> Iterator[Item]:
    with origin.path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for line in lines:
            text = line.strip()
            if not text:
                continue
            if text.startswith(("http://", "https://")):
                yield Item(id=text, name=text, place=Place(url=text), source={"url": text})
                continue
            path = origin.images / text
            id = Path(text).with_suffix("").as_posix()
            yield Item(
                id=id,
                name=text,
                place=Place(path=str(path)),
                caption=_beside(path) if looking.captions else None,
            )
