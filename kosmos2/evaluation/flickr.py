"""Flickr30k Entities: phrases of captions and their boxes.

As its repository has them: `val.txt` (ids of pictures), `Sentences/ID.txt`, `Annotations/ID.xml`.

    [/EN#283585/people A man] hits [/EN#283586/bodyparts/other his fist] in [/EN#0/notvisual case]

    <annotation><filename>1000092795.jpg</filename>
      <size><width>333</width><height>500</height><depth>3</depth></size>
      <object><name>283585</name><name>283587</name>
        <bndbox><xmin>1</xmin><ymin>9</ymin><xmax>90</xmax><ymax>500</ymax></bndbox></object>
      <object><name>283588</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>

Asked are the phrases whose entity has a box; those of "scene" and "nobndbox" alone have none.
MDETR's `final_flickr_separateGT_val.json` has one "image" for each sentence; of it come the
phrases (the first span of each entry of `tokens_positive_eval`), while their entities, boxes and
kinds are those of the repository's files, as in the original's evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kosmos2 import tasks
from kosmos2.boxes import Box
from kosmos2.errors import RecordError
from kosmos2.evaluation.annotations import box_of_corners, field, read_json, side
from kosmos2.evaluation.benchmark import (
    Benchmark,
    Data,
    Form,
    Kind,
    Problem,
    one_by_one,
    parse_found,
)
from kosmos2.evaluation.localisation import RECALL_TITLES, judge_recall
from kosmos2.tasks import Prompt
from kosmos2.vocab.locations import LocationGrid

PICTURES = ("flickr30k-images", "flickr30k_images", "images", ".")
"""Where the pictures are looked for below the folder of the data."""
SIZES = {"val": 14_433, "test": 14_481}
"""Phrases of each split, as the original repository's result files count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entities:
    """What an XML file tells of one picture."""

    picture: str
    width: int
    height: int
    boxes: Mapping[str, tuple[Box, ...]]
    """Entity → its boxes, normalised; entities without any are not here."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A phrase of a sentence: its characters [start, end), its entity, its kinds."""

    start: int
    end: int
    entity: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    mentions: tuple[Mention, ...]


def phrase_grounding() -> Benchmark:
    """Return the benchmark of phrase grounding on Flickr30k Entities."""
    return Benchmark(
        name="flickr30k",
        title="Phrase grounding, Flickr30k Entities",
        version=1,
        kind=Kind.BOXES,
        splits=SIZES,
        read=read,
        prompt=_prompt,
        parse=parse_found,
        judge=partial(one_by_one, judge_recall),
        titles=RECALL_TITLES,
        forms=(Form.FREE, Form.BOXES),
        protocol="prompt <grounding>WORDS BEFORE<phrase> PHRASE</phrase>, earlier phrases without "
        "tags and later words not given; a phrase counts as found at rank k where one of the first "
        "k boxes that are written for it overlaps a true one with an IoU of at least 0.5. "
        "any-box: the true ones are all boxes of the phrase's entity (the paper's rule); "
        "merged-box: the smallest box around them",
        differences=(
            "where the same words stand twice in a sentence each has the boxes of its own entity; "
            "the original gives both those of the first (see the slice 'said again')",
            "the split is the one that is asked for, never guessed from the name of a folder",
            "annotated boxes that leave the picture by at most a pixel are cut at its border",
        ),
    )


def read(path: Path, split: str) -> Data:
    """Return a split from a folder of Entities, or from a JSON of MDETR's beside such a folder."""
    entities, folders = places(path)
    if path.is_file():
        problems = _of_mdetr(path, entities)
        source = "MDETR's JSON with the files of Entities"
    else:
        problems = _of_entities(entities, split)
        source = "the files of Entities"
    return Data(source=source, problems=problems, folders=folders)


def places(path: Path) -> tuple[Path, tuple[Path, ...]]:
    """Return the folder of Entities in or beside a path, and where the pictures may lie."""
    root = path if path.is_dir() else path.parent
    entities = _entities_folder(root)
    folders = [base / place for base in (root, entities) for place in PICTURES]
    return entities, tuple(dict.fromkeys(folders))


def ids_of(folder: Path, split: str) -> list[str]:
    """Return the pictures of a split of Entities."""
    listed = folder / f"{split}.txt"
    try:
        return listed.read_text(encoding="utf-8").split()
    except OSError as error:
        raise RecordError(f"cannot read {listed}, which lists the pictures: {error}") from error


def read_entities(file: Path) -> Entities:
    """Return what `Annotations/ID.xml` tells: an object may have several names, or no box."""
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise RecordError(f"cannot read {file}: {error}") from error
    where = str(file)
    width, height = (side(root.findtext(f"size/{key}"), where) for key in ("width", "height"))
    boxes: dict[str, tuple[Box, ...]] = {}
    for thing in root.findall("object"):
        bounds = thing.find("bndbox")
        if bounds is None:  # nobndbox or scene
            continue
        corners = [bounds.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")]
        box = box_of_corners(corners, width, height, where)
        for name in thing.findall("name"):
            entity = (name.text or "").strip()
            boxes[entity] = (*boxes.get(entity, ()), box)
    picture = (root.findtext("filename") or f"{file.stem}.jpg").strip()
    return Entities(picture=picture, width=width, height=height, boxes=boxes)


def read_sentences(file: Path) -> list[Sentence]:
    """Return the sentences of `Sentences/ID.txt`; words are joined by single blanks."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {file}: {error}") from error
    return [_sentence(line, f"{file}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]


def _sentence(line: str, where: str) -> Sentence:
    text, mentions = "", []
    opened: tuple[int, str, tuple[str, ...]] | None = None
    for word in line.split():
        if word.startswith("[/EN#"):
            if opened:
                raise RecordError(f"{where}: a phrase begins inside another one")
            entity, *kinds = word[len("[/EN#") :].split("/")
            opened = (len(text) + bool(text), entity, tuple(kinds))
            continue
        closes = opened is not None and word.endswith("]")
        text += (" " if text else "") + (word[:-1] if closes else word)
        if opened and closes:
            start, name, types = opened
            mentions.append(Mention(start, len(text), name, types))
            opened = None
    if opened:
        raise RecordError(f"{where}: the phrase of EN#{opened[1]} is never closed")
    return Sentence(text, tuple(mentions))


def _entities_folder(root: Path) -> Path:
    places = (root, root / "flickr30k_entities", root.parent / "flickr30k_entities")
    for place in places:
        if (place / "Annotations").is_dir() and (place / "Sentences").is_dir():
            return place
    raise RecordError(
        f"{root} has no Annotations/ and Sentences/ of Flickr30k Entities, and there is no "
        "flickr30k_entities/ with them in it or beside it"
    )


def _of_entities(folder: Path, split: str) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    for id in ids_of(folder, split):
        shown = read_entities(folder / "Annotations" / f"{id}.xml")
        for number, sentence in enumerate(read_sentences(folder / "Sentences" / f"{id}.txt")):
            asked = [each for each in sentence.mentions if each.entity in shown.boxes]
            problems += [_problem(id, number, sentence.text, each, asked, shown) for each in asked]
    return tuple(problems)


def _of_mdetr(file: Path, folder: Path) -> tuple[Problem, ...]:
    known: dict[str, tuple[Entities, list[Sentence]]] = {}
    problems = []
    for position, image in enumerate(field(read_json(file), "images", str(file))):
        where = f"{file}, image {position}"
        id = str(field(image, "original_img_id", where))
        number = int(field(image, "sentence_id", where))
        if id not in known:
            shown = read_entities(folder / "Annotations" / f"{id}.xml")
            known[id] = shown, read_sentences(folder / "Sentences" / f"{id}.txt")
        shown, sentences = known[id]
        if not 0 <= number < len(sentences):
            raise RecordError(f"{where}: Sentences/{id}.txt has no sentence {number}")
        sizes = tuple(side(field(image, key, where), where) for key in ("width", "height"))
        if sizes != (shown.width, shown.height):
            raise RecordError(f"{where}: {sizes} pixels, but Annotations/{id}.xml says otherwise")
        caption = field(image, "caption", where)
        asked = [
            _mention(spans, caption, sentences[number], shown, where)
            for spans in field(image, "tokens_positive_eval", where)
        ]
        problems += [_problem(id, number, caption, each, asked, shown) for each in asked]
    return tuple(problems)


def _mention(
    spans: Any,  # noqa: ANN401
    caption: str,
    sentence: Sentence,
    shown: Entities,
    where: str,
) -> Mention:
    """Return the phrase that the first of some spans means: by its place, not by its words."""
    try:
        start, end = spans[0]
    except (TypeError, ValueError, IndexError):
        raise RecordError(f"{where}: tokens_positive_eval has {spans!r}") from None
    if caption != sentence.text:
        raise RecordError(f"{where}: its caption is not sentence {sentence.text!r} of Entities")
    for mention in sentence.mentions:
        if (mention.start, mention.end) == (start, end) and mention.entity in shown.boxes:
            return mention
    raise RecordError(
        f"{where}: Entities has no phrase with a box at [{start}, {end}) of {caption!r}"
    )


def _problem(
    id: str, number: int, text: str, mention: Mention, asked: Sequence[Mention], shown: Entities
) -> Problem:
    words = text[mention.start : mention.end]
    return Problem(
        id=f"{id}-{number}-{mention.start}",
        picture=shown.picture,
        width=shown.width,
        height=shown.height,
        text=text,
        start=mention.start,
        end=mention.end,
        boxes=shown.boxes[mention.entity],
        categories=mention.kinds,
        said_again=sum(text[each.start : each.end] == words for each in asked) > 1,
    )


def _prompt(problem: Problem, _grid: LocationGrid) -> Prompt:
    return tasks.find_in_caption(problem.text, problem.start, problem.end)
