"""The machine behind every way of reading markup: one event in, never an exception out.

What both references do with broken markup (one regular expression; whatever it does not match
vanishes, and so does any "< .. >" of the user's words) is replaced by rules, each of which reports:

    what comes                              what is made of it                   `reason`
    <phrase> a<phrase> b</phrase><object>.. the inner phrase, as in references   nested_phrase
    <phrase> a<object>..</object>           the phrase, closed at <object>       unclosed_phrase
    <phrase> a</phrase> words               words                           phrase_without_boxes
    <phrase> </phrase><object>..            boxes without words                  empty_phrase
    <object></object>                       words                                empty_object
    <object>A B words, or the end           the box A B, then words              unclosed_object
    <object>A</object>                      words                                lone_location
    <object>A B C D</object>                two boxes                            missing_delimiter
    <object>A B<delimiter></object>         the box                              stray_delimiter
    a cell outside <object>                 nothing                              stray_location
    lower-right left of or above            no box: a guess would invent one     inverted_box
    a cell that the grid has not            no box                               cell_outside_grid
    any tag where it has no meaning         nothing                              stray_tag

Blanks between </phrase>, <object>, cells and delimiters mean nothing (Hugging Face's own prompts
have them; its reader then loses the phrase). An <object> without a phrase is one group of boxes
without words (Hugging Face: one entity with a made-up name per box, sometimes at character -1).
"""

import math
from dataclasses import dataclass, field

from kosmos2.boxes import Box
from kosmos2.errors import BoxError
from kosmos2.grounding.spans import GroundedText, Malformed, Phrase
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Cell


@dataclass(frozen=True, slots=True)
class OffGrid:
    """A location token that no grid has, such as <patch_index_44> or one of a thousand digits."""

    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A run of words, a tag or a cell, and where it stood."""

    value: str | Tag | Cell | OffGrid
    place: str
    score: float | None = None


@dataclass(slots=True)
class _Object:
    """An <object> that is still open."""

    owner: tuple[int, int]
    place: str
    boxes: list[Box] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    pair: list[Event] = field(default_factory=list)
    is_delimited: bool = True
    is_faulty: bool = False


class MarkupReader:
    """Feed it events, then `finish` it."""

    def __init__(self, grid: LocationGrid) -> None:
        self._grid = grid
        self._text = ""
        self._blank = ""  # between </phrase> and what follows
        self._opened: tuple[int, str] | None = None  # a <phrase>, and where it stood
        self._closed: tuple[int, int, str] | None = None  # a </phrase> that waits for its <object>
        self._object: _Object | None = None
        self._phrases: list[Phrase] = []
        self._malformed: list[Malformed] = []
        self._tags = {
            Tag.PHRASE: self._open_phrase,
            Tag.PHRASE_END: self._close_phrase,
            Tag.OBJECT: self._open_object,
            Tag.OBJECT_END: self._end_object,
            Tag.DELIMITER: self._delimit,
            Tag.GROUNDING: self._ground,
        }
        self._is_at_start = True

    def feed(self, event: Event) -> None:
        """Take the next piece of the markup."""
        if isinstance(event.value, Tag):
            self._tags.get(event.value, self._stray)(event)
        elif isinstance(event.value, str):
            self._words(event)
        else:
            self._cell(event)
        self._is_at_start &= isinstance(event.value, str) and not event.value.strip()

    def finish(self) -> GroundedText:
        """Return everything that was read, trimmed."""
        self._interrupt_object("by the end")
        self._settle()
        if self._opened:
            self._report("unclosed_phrase", f"<phrase> {self._opened[1]} is never closed")
        return GroundedText(
            text=self._text, phrases=tuple(self._phrases), malformed=tuple(self._malformed)
        ).trimmed()

    def _report(self, reason: str, detail: str) -> None:
        self._malformed.append(Malformed(reason=reason, detail=detail))

    def _words(self, event: Event) -> None:
        words = str(event.value)
        if not words.strip() and (self._object or self._closed):
            self._blank += "" if self._object else words
            return
        self._interrupt_object(f"by words {event.place}")
        self._settle()
        self._text += words

    def _stray(self, event: Event) -> None:
        self._report("stray_tag", f"{event.value} {event.place}")

    def _ground(self, event: Event) -> None:
        if not self._is_at_start:
            self._stray(event)

    def _open_phrase(self, event: Event) -> None:
        self._interrupt_object(f"by <phrase> {event.place}")
        self._settle()
        if self._opened:
            self._report("nested_phrase", f"<phrase> {event.place} in <phrase> {self._opened[1]}")
        self._opened = (len(self._text), event.place)

    def _close_phrase(self, event: Event) -> None:
        self._interrupt_object(f"by </phrase> {event.place}")
        if not self._opened:
            self._stray(event)
            return
        start, place = self._opened
        self._opened, self._closed = None, (start, len(self._text), place)

    def _settle(self) -> None:
        """Something other than <object> follows: a phrase that waited for it has no boxes."""
        if self._closed:
            self._report("phrase_without_boxes", f"<phrase> {self._closed[2]} has no <object>")
        self._text += self._blank
        self._closed, self._blank = None, ""

    def _open_object(self, event: Event) -> None:
        self._interrupt_object(f"by <object> {event.place}")
        if self._opened:
            start, place = self._opened
            self._report("unclosed_phrase", f"<phrase> {place} runs into <object> {event.place}")
            self._opened, self._closed = None, (start, len(self._text), place)
        here = len(self._text)
        start, end, place = self._closed or (here, here, event.place)
        if self._closed and not self._text[start:end].strip():
            self._report("empty_phrase", f"<phrase> {place} has no words")
        self._object = _Object(owner=(start, end), place=event.place)
        self._closed, self._blank = None, ""

    def _cell(self, event: Event) -> None:
        if not self._object:
            self._report("stray_location", f"{_name(event)} {event.place} is in no <object>")
            return
        if not self._object.pair and not self._object.is_delimited:
            self._fault("missing_delimiter", f"before {_name(event)} {event.place}")
        self._object.is_delimited = False
        self._object.pair.append(event)
        if len(self._object.pair) == 2:
            self._box(*self._object.pair)
            self._object.pair.clear()

    def _box(self, upper_left: Event, lower_right: Event) -> None:
        assert self._object
        cells = [event.value for event in (upper_left, lower_right)]
        names = f"{_name(upper_left)} {_name(lower_right)} {upper_left.place}"
        indices = [cell.index for cell in cells if isinstance(cell, Cell)]
        if len(indices) < 2 or max(indices) >= self._grid.bins**2 or min(indices) < 0:
            grid = f"a grid of {self._grid.bins} x {self._grid.bins} cells"
            self._fault("cell_outside_grid", f"{names} for {grid}")
            return
        try:
            box = self._grid.decode(indices[0], indices[1])
        except BoxError:
            self._fault("inverted_box", f"{names}: the second is left of or above the first")
            return
        self._object.boxes.append(box)
        score = _joint(upper_left.score, lower_right.score)
        if score is not None:
            self._object.scores.append(score)

    def _delimit(self, event: Event) -> None:
        if not self._object:
            self._stray(event)
            return
        self._drop_lone_location()
        if self._object.is_delimited:
            self._fault("stray_delimiter", f"{event.value} {event.place}")
        self._object.is_delimited = True

    def _end_object(self, event: Event) -> None:
        if not self._object:
            self._stray(event)
            return
        self._close_object()

    def _interrupt_object(self, by: str) -> None:
        if self._object:
            self._fault("unclosed_object", f"<object> {self._object.place} is ended {by}")
            self._close_object()

    def _close_object(self) -> None:
        assert self._object
        self._drop_lone_location()
        closing = self._object
        if closing.boxes and closing.is_delimited:
            self._fault("stray_delimiter", f"last in <object> {closing.place}")
        if not closing.boxes and not closing.is_faulty:
            self._report("empty_object", f"<object> {closing.place} has no box")
        if closing.boxes:
            is_scored = len(closing.scores) == len(closing.boxes)
            start, end = closing.owner
            self._phrases.append(
                Phrase(
                    start=start,
                    end=end,
                    boxes=tuple(closing.boxes),
                    scores=tuple(closing.scores) if is_scored else (),
                )
            )
        self._object = None

    def _drop_lone_location(self) -> None:
        assert self._object
        for event in self._object.pair:
            self._fault("lone_location", f"{_name(event)} {event.place} has no partner")
        self._object.pair.clear()

    def _fault(self, reason: str, detail: str) -> None:
        """Report what is wrong inside the open <object>."""
        assert self._object
        self._object.is_faulty = True
        self._report(reason, detail)


def _name(event: Event) -> str:
    if isinstance(event.value, OffGrid):
        return event.value.token[:40]
    assert isinstance(event.value, Cell)
    return f"cell {event.value.index}"


def _joint(first: float | None, second: float | None) -> float | None:
    if first is None or second is None or math.isnan(first) or math.isnan(second):
        return None
    # Probabilities summed in float32 may pass 1 by a rounding error.
    return math.sqrt(min(max(first, 0.0), 1.0) * min(max(second, 0.0), 1.0))
