"""GroundedText <-> "<phrase>..</phrase><object>..</object>": strict, lenient, and as token ids.

    An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>.

Two cells are a box; several boxes of one phrase are parted by `</delimiter_of_multi_objects/>`.
Boxes are put on the grid by `LocationGrid.encode`, which gives back what it decoded. (The original
training code has another rule for corners that lie exactly on a cell's edge; see vocab/locations.)
"""

import re
from collections.abc import Iterator, Sequence

from kosmos2.boxes import Box
from kosmos2.errors import MarkupError
from kosmos2.grounding.reader import Event, MarkupReader, OffGrid
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Cell, ImageSlot, Segment, Symbol, Tokenizer

# ASCII digits only: `\d` would take the digits of every script, as both references do.
CONTROL = re.compile("|".join(re.escape(tag) for tag in Tag) + "|<patch_index_[0-9]+>")
CELL_DIGITS = slice(len("<patch_index_"), -1)
MAX_DIGITS = 9


def write(grounded: GroundedText, grid: LocationGrid) -> str:
    """Return the markup of a text; `read` gives back the trimmed text, its boxes on the grid.

    Refused with a MarkupError: phrases that overlap or nest, and words that look like a tag.
    """
    parts = []
    for segment in segments(grounded, grid):
        written = literal(segment)
        if not isinstance(segment, Tag | Cell) and (lookalike := CONTROL.search(written)):
            raise MarkupError(
                f"the text contains {lookalike.group()!r}, which markup could not tell from a tag; "
                "use segments() or tokens(), where words and tags cannot be mistaken"
            )
        parts.append(written)
    return "".join(parts)


def literal(segment: Segment) -> str:
    """Return one part of a prompt as its author would type it."""
    match segment:
        case ImageSlot():
            return f"{Tag.IMAGE}{Tag.IMAGE_END}"
        case Cell(index):
            return f"<patch_index_{index:04d}>"
        case str():
            return str(segment)


def segments(grounded: GroundedText, grid: LocationGrid) -> tuple[Segment, ...]:
    """Return the text as a prompt: words between tags are tokenised on their own, as typed."""
    grounded = grounded.trimmed()
    text, cursor = grounded.text, 0
    found: list[Segment] = []
    for phrase in grounded.phrases:
        _refuse_overlap(grounded, phrase, cursor)
        before, words = text[cursor : phrase.start], grounded.phrase_text(phrase)
        if words:
            # As the model itself writes it: the blank before a phrase stands inside its tag.
            if before.endswith(" ") or phrase.start == 0:
                before, words = before[:-1], " " + words
            found += [before, Tag.PHRASE, words, Tag.PHRASE_END]
        else:
            found += [before]
        found += _object(phrase.boxes, grid)
        cursor = phrase.end
    found.append(text[cursor:])
    return tuple(segment for segment in found if segment != "")


def tokens(grounded: GroundedText, tokenizer: Tokenizer) -> list[int]:
    """Return the ids the network is trained on; <s>, <grounding> and </s> are the caller's.

    The caption is tokenised once, as a whole, and tags are set between its tokens, as in the
    original code; prompts differ from that (see `segments`). Where a phrase ends inside a token,
    the original drops the whole sample; here the phrase grows to the token's border, and phrases
    that then share a token become one phrase with the boxes of both.
    """
    grounded = grounded.trimmed()
    ids, offsets = tokenizer.encode_text_with_offsets(grounded.text)
    vocabulary, cursor = tokenizer.vocabulary, 0
    found: list[int] = []
    for first, last, boxes in _token_spans(grounded, offsets):
        found += ids[cursor:first]
        if last > first:
            found.append(vocabulary.tag(Tag.PHRASE))
            found += ids[first:last]
            found.append(vocabulary.tag(Tag.PHRASE_END))
        found += object_ids(boxes, tokenizer)
        cursor = last
    return found + ids[cursor:]


def object_ids(boxes: Sequence[Box], tokenizer: Tokenizer) -> list[int]:
    """Return the ids of `<object>` and the boxes' cells up to `</object>`."""
    vocabulary = tokenizer.vocabulary
    return [
        vocabulary.location(part.index) if isinstance(part, Cell) else vocabulary.tag(part)
        for part in _object(boxes, tokenizer.grid)
    ]


def read(markup: str, grid: LocationGrid) -> GroundedText:
    """Return the grounded text of well-formed markup; MarkupError says what is wrong, and where."""
    grounded = read_leniently(markup, grid)
    for fault in grounded.malformed:
        raise MarkupError(
            f"markup is not well-formed: {fault.reason}, {fault.detail}, in {markup[:200]!r}; "
            "read_leniently() repairs what it can and reports the rest"
        )
    return grounded


def read_leniently(markup: str, grid: LocationGrid) -> GroundedText:
    """Return what any string says; never raises, whatever is wrong is in `malformed`."""
    return _read(list(_events_of_string(markup)), grid)


def read_symbols(
    symbols: Sequence[Symbol], grid: LocationGrid, scores: Sequence[float | None]
) -> GroundedText:
    """Return what generated ids say, as `read_leniently` does; words are never taken for tags.

    `scores` has one value per token (None or NaN: not measured), or is (). A box's score is the
    geometric mean of its two tokens' scores.
    """
    if scores and symbols:
        assert symbols[-1].stop <= len(scores), "one score per token"
    events = [
        Event(
            value=symbol.value,
            place=f"at token {symbol.start}",
            score=scores[symbol.start] if scores else None,
        )
        for symbol in symbols
    ]
    return _read(events, grid)


def _object(boxes: Sequence[Box], grid: LocationGrid) -> list[Tag | Cell]:
    found: list[Tag | Cell] = [Tag.OBJECT]
    for number, box in enumerate(boxes):
        if number:
            found.append(Tag.DELIMITER)
        found += [Cell(cell) for cell in grid.encode(box)]
    return [*found, Tag.OBJECT_END]


def _refuse_overlap(grounded: GroundedText, phrase: Phrase, cursor: int) -> None:
    if phrase.start < cursor:
        raise MarkupError(
            f"phrase [{phrase.start}, {phrase.end}) {grounded.phrase_text(phrase)!r} begins inside "
            f"another phrase, which ends at {cursor}; markup cannot nest, so leave one of them out"
        )


def _token_spans(
    grounded: GroundedText, offsets: Sequence[tuple[int, int]]
) -> list[tuple[int, int, tuple[Box, ...]]]:
    """Return (first token, token after the last, boxes), in order and without overlap."""
    cursor = 0
    spans: list[tuple[int, int, tuple[Box, ...]]] = []
    for phrase in grounded.phrases:
        _refuse_overlap(grounded, phrase, cursor)
        cursor = phrase.end
        first, last = _tokens_of(phrase, offsets)
        if spans and first < spans[-1][1]:
            before = spans.pop()
            spans.append((before[0], max(before[1], last), before[2] + phrase.boxes))
        else:
            spans.append((first, last, phrase.boxes))
    return spans


def _tokens_of(phrase: Phrase, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the tokens that a phrase touches; none, at its place, where it has no words."""
    count = len(offsets)
    first = next((i for i, (_, stop) in enumerate(offsets) if stop > phrase.start), count)
    if phrase.is_anonymous:
        return first, first
    return first, next((i for i in range(first, count) if offsets[i][0] >= phrase.end), count)


def _events_of_string(markup: str) -> Iterator[Event]:
    cursor = 0
    for control in CONTROL.finditer(markup):
        if control.start() > cursor:
            yield Event(value=markup[cursor : control.start()], place=f"at character {cursor}")
        yield Event(value=_control(control.group()), place=f"at character {control.start()}")
        cursor = control.end()
    if cursor < len(markup):
        yield Event(value=markup[cursor:], place=f"at character {cursor}")


def _control(token: str) -> Tag | Cell | OffGrid:
    if not token.startswith("<patch_index_"):
        return Tag(token)
    digits = token[CELL_DIGITS]
    if len(digits) > MAX_DIGITS or len(digits) < 4:
        return OffGrid(token)
    return Cell(int(digits))


def _read(events: Sequence[Event], grid: LocationGrid) -> GroundedText:
    """Read what follows the last picture: before it stand its placeholders and earlier examples."""
    reader = MarkupReader(grid)
    for event in events[_after_last_picture(events) :]:
        reader.feed(event)
    return reader.finish()


def _after_last_picture(events: Sequence[Event]) -> int:
    # The references cut at any "</image>". One that closes no picture is reported instead, so that
    # a stray token cannot swallow the caption before it.
    ends = [index for index, event in enumerate(events) if event.value is Tag.IMAGE_END]
    if not ends or not any(event.value is Tag.IMAGE for event in events[: ends[-1]]):
        return 0
    return ends[-1] + 1
