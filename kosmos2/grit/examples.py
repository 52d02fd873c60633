"""Pairs as cards for a page: their small picture, their caption, and why they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from kosmos2.boxes import iou
from kosmos2.errors import Kosmos2Error, RequestError, one_line
from kosmos2.grit.linking import Candidate
from kosmos2.grit.measures import columns_of_boxes
from kosmos2.grit.outcomes import STAGES, Outcome, lost
from kosmos2.grit.recipe import GritRecipe, Linking
from kosmos2.grit.select import UNSURE
from kosmos2.grit.steps import Discarded, Looked
from kosmos2.grounding.page import PageItem
from kosmos2.images import open_picture
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import Grounded, GroundedRecord
from kosmos2.records.report import empty_picture, grounded
from kosmos2.sources.inputs import read_list
from kosmos2.sources.places import bytes_of, gather
from kosmos2.sources.rows import Item

LARGE, SMALL = 640, 360
"""Pixels at the longer side: of records, of examples of what was dropped."""
LONGEST = 400
"""Characters of a caption that is no record's, and of a note."""
NO_PICTURE = "no picture: "
_OVERLAP, _UNDER, _MORE, _INSIDE = STAGES


class Album:
    """The pictures of some pairs of a folder, wherever they lie; never from the network."""

    def __init__(self, out: Path, wanted: Iterable[Outcome]) -> None:
        self._pictures = Pictures(out)
        self._items = _items(out / "looked" / "parts" / "pairs.jsonl", {w.number for w in wanted})

    def item(self, outcome: Outcome) -> Item | None:
        """Return what the source says of a pair, None where the list of pairs is gone."""
        item = self._items.get(outcome.number)
        return item if item is not None and str(item.id) == outcome.id else None

    def picture(self, outcome: Outcome, side: int) -> tuple[Image.Image | None, str]:
        """Return a picture of at most `side` pixels; or None, and why there is none."""
        try:
            image = open_picture(self._bytes(outcome)).image
        except (Kosmos2Error, OSError) as error:
            return None, f"{NO_PICTURE}{_cut(one_line(error))}"
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        return image, ""

    def _bytes(self, outcome: Outcome) -> bytes:
        """Return a picture as the record says where it is, else as the list of pairs does.

        Paths of records go along with the folder when it is moved; those of the list do not, but
        also lead to rows of tables and to pairs that came to nothing.
        """
        item, problem = self.item(outcome), None
        if isinstance(outcome.looked, Looked):
            try:
                return self._pictures.read(outcome.looked.record)
            except Kosmos2Error as error:
                problem = error
        if item is None or item.place is None or item.place.url is not None:
            why = "only its address is known" if item and item.place else "its place is not known"
            raise problem or RequestError(why)
        return bytes_of(gather([item.place])[0])


def record_card(outcome: Outcome, album: Album) -> PageItem:
    """Return a record as it is, on grey where its picture is not to be had."""
    assert isinstance(outcome.became, GroundedRecord)
    return _card(outcome, outcome.became, album, LARGE, "")


def pair_card(outcome: Outcome, album: Album, recipe: GritRecipe) -> PageItem:
    """Return a pair that gave no record, with the surest box that was found for it."""
    assert isinstance(outcome.became, Discarded)
    note = _cut(outcome.became.detail)
    if isinstance(outcome.looked, Discarded):
        item = album.item(outcome)
        caption = _cut(item.caption or "") if item else ""
        record = GroundedRecord(caption=caption, noun_chunks=None, ref_exps=None)
        return _card(outcome, record, album, SMALL, note)
    best = max(outcome.looked.candidates, key=lambda each: each.score, default=None)
    if best is None:
        told = "the detector gave no box"
    else:
        told = f"surest: {_named(outcome.looked, best)}"
        if outcome.became.reason == UNSURE:
            told += f", and it needs more than {recipe.linking.threshold:g}"
        elif outcome.is_linked:
            reasons = lost(outcome.looked, recipe)
            told += f": {next(why for why, boxes in reasons.items() if best in boxes)}"
    shown = _with(outcome.looked, () if best is None else (best,))
    return _card(outcome, shown, album, SMALL, "; ".join(filter(None, (note, told))))


def box_card(outcome: Outcome, reason: str, album: Album, recipe: GritRecipe) -> PageItem:
    """Return a pair with the surest box that was dropped for a reason, and why it was."""
    looked = outcome.looked
    assert isinstance(looked, Looked)
    rules = recipe.linking
    gone = lost(looked, recipe).get(reason) if outcome.is_linked else None
    if not gone:  # boxes of a pair that was refused as a whole
        best = max(looked.candidates, key=lambda each: each.score)
        told = f"{len(looked.candidates)} boxes; the surest: {_named(looked, best)}"
        return _card(outcome, _with(looked, (best,)), album, SMALL, told)
    first, shown = gone[0], gone[:1]
    told = _named(looked, first)
    if reason == _OVERLAP:
        surer = _surer(looked, first, rules)
        shown = [*shown, *surer]
        told += "".join(
            f" overlaps {_named(looked, each)} by {iou(first.box, each.box):.2f}, more than "
            f"{rules.nms_iou:g}"
            for each in surer
        )
    elif reason == _UNDER:
        told += f" needs more than {rules.threshold:g}"
    elif reason == _MORE:
        told += f" is one too many: a phrase may have {rules.boxes_per_phrase}"
    elif reason == _INSIDE:
        told += f" lies inside {_around(looked, first)}"
    else:
        told += _measured(looked, first, recipe)
    return _card(outcome, _with(looked, shown), album, SMALL, told)


def _measured(looked: Looked, box: Candidate, recipe: GritRecipe) -> str:
    """Return what was measured of a box, and what the filters ask for."""
    filters = recipe.filters
    columns = columns_of_boxes(looked.candidates, [box], looked.measured, recipe.quality, filters)
    asked = {"round_trip": filters.min_round_trip, "agreement": filters.min_agreement}
    return "".join(
        f", {name.replace('_', ' ')} {'not known' if value is None else f'{value:g}'} of at least "
        f"{asked[name]:g}"
        for name, (value,) in columns.items()
        if asked.get(name)
    )


def _surer(looked: Looked, box: Candidate, rules: Linking) -> list[Candidate]:
    """Return the surest box that overlaps another by too much, and has as high a score."""
    near = [
        each
        for each in looked.candidates
        if each != box and each.score >= box.score and iou(each.box, box.box) > rules.nms_iou
    ]
    return sorted(near, key=lambda each: -each.score)[:1]


def _around(looked: Looked, box: Candidate) -> str:
    """Return the shortest expression around that of a box."""
    start, end = looked.phrases[box.phrase].expression
    around = [
        each.expression
        for each in looked.phrases
        if each.expression != (start, end)
        and each.expression[0] <= start
        and end <= each.expression[1]
    ]
    first, last = min(around, key=lambda span: span[1] - span[0], default=(start, end))
    return f"“{looked.record.caption[first:last]}”"


def _named(looked: Looked, box: Candidate) -> str:
    start, end = looked.phrases[box.phrase].chunk
    return f"“{looked.record.caption[start:end]}” {box.score:g}"


def _with(looked: Looked, boxes: Sequence[Candidate]) -> GroundedRecord:
    entries = tuple(
        Grounded(*looked.phrases[each.phrase].chunk, *each.box.corners, each.score)
        for each in boxes
    )
    return replace(looked.record, noun_chunks=entries, ref_exps=None)


def _card(outcome: Outcome, record: GroundedRecord, album: Album, side: int, note: str) -> PageItem:
    picture, problem = album.picture(outcome, side)
    if picture is None:
        picture = empty_picture(record)
        picture.thumbnail((side, side))
    if problem.removeprefix(NO_PICTURE) in note:  # it says so itself
        problem = ""
    told = "; ".join(filter(None, (note, problem)))
    return PageItem(name=_cut(outcome.id), image=picture, grounded=grounded(record), note=told)


def _items(path: Path, numbers: set[int]) -> dict[int, Item]:
    """Return some items of the list of pairs, which is read once from its start."""
    if not path.is_file():
        return {}
    items = enumerate(read_list(path, 0, max(numbers, default=-1) + 1))
    return {number: item for number, item in items if number in numbers}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
