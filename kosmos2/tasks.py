"""What can be asked of the model: a prompt for each task, and the reader of its answer.

Strings and ids only, no network: the interface, the trainer and the evaluator share these.

    caption            <grounding>An image of
    caption_in_detail  <grounding>Describe this image in detail:
    find               <grounding><phrase> a snowman</phrase>
    find_in_caption    <grounding>A snowman warms by<phrase> a fire</phrase>
    ground             <grounding>          (then the caption itself is forced on the model)
    describe           <grounding><phrase> It</phrase><object>..</object> is
    ask                Question: What is this? Answer:
    ask_grounded       <grounding>Question: What is this? Answer:
    ask_about          <grounding>Question: What is<phrase> it</phrase><object>..</object>? Answer:

The picture comes before each; blanks around tags mean nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from kosmos2.boxes import Box
from kosmos2.errors import RequestError
from kosmos2.grounding.markup import read_symbols, segments
from kosmos2.grounding.spans import GroundedText, Malformed, Phrase, mark
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import (
    Cell,
    ImageSlot,
    Segment,
    Symbol,
    parse_markup_string,
)


class Task(StrEnum):
    """What was asked: it decides how the answer is read."""

    CAPTION = "caption"
    CAPTION_IN_DETAIL = "caption_in_detail"
    GROUND = "ground"
    FIND = "find"
    DESCRIBE = "describe"
    ASK = "ask"
    MARKUP = "markup"


# Their prompt is the beginning of the sentence, so it belongs to the answer, as in the references
# (which keep the prompt's words everywhere, "Describe this image in detail:" too).
SENTENCE_BEGINS_IN_PROMPT = frozenset({Task.CAPTION, Task.MARKUP})

BRIEF = "An image of"
DETAILED = "Describe this image in detail:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is given; `<s>` is added by the tokenizer, the pictures fill the slots."""

    task: Task
    segments: tuple[Segment, ...]
    subject: str = ""
    """The phrase looked for, or the caption to ground."""

    @property
    def num_images(self) -> int:
        """Pictures that this prompt needs, in the order of its slots."""
        return sum(isinstance(segment, ImageSlot) for segment in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One solved example for `few_shot`. Boxes alone are an answer too: see `boxes_only`."""

    prompt: Prompt
    answer: GroundedText


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a phrase is, best guess first; no boxes: the model pointed at nothing."""

    phrase: str
    boxes: tuple[Box, ...]
    scores: tuple[float, ...] = ()
    malformed: tuple[Malformed, ...] = ()


def caption() -> Prompt:
    """Return the prompt for one grounded sentence."""
    return _prompt(Task.CAPTION, Tag.GROUNDING, BRIEF)


def caption_in_detail() -> Prompt:
    """Return the prompt for a grounded paragraph."""
    return _prompt(Task.CAPTION_IN_DETAIL, Tag.GROUNDING, DETAILED)


def plain_caption() -> Prompt:
    """Return the prompt for one sentence without boxes."""
    return _prompt(Task.CAPTION, BRIEF)


def plain_caption_in_detail() -> Prompt:
    """Return the prompt for a paragraph without boxes."""
    return _prompt(Task.CAPTION_IN_DETAIL, DETAILED)


def find(phrase: str) -> Prompt:
    """Return the prompt for the boxes of a phrase."""
    phrase = _needed("phrase to find", phrase)
    tagged = (Tag.PHRASE, " " + phrase, Tag.PHRASE_END)
    return replace(_prompt(Task.FIND, Tag.GROUNDING, *tagged), subject=phrase)


def find_in_caption(caption: str, start: int, end: int) -> Prompt:
    """Return the prompt for the boxes of caption[start:end], told the words before it.

    As in the original's Flickr30k Entities evaluation: earlier phrases are not tagged, and the
    words that follow are not given.
    """
    if not 0 <= start < end <= len(caption):
        raise RequestError(
            f"phrase [{start}, {end}) is not inside the caption, "
            f"which has {len(caption)} characters: {caption[:80]!r}"
        )
    prompt = find(caption[start:end])
    context = (caption[:start].strip(),) if caption[:start].strip() else ()
    slot, grounding, *tagged = prompt.segments
    return replace(prompt, segments=(slot, grounding, *context, *tagged))


def ground(caption: str) -> Prompt:
    """Return the prompt after which `caption` is forced, token by token, for its boxes."""
    return replace(_prompt(Task.GROUND, Tag.GROUNDING), subject=_needed("caption", caption))


def describe(box: Box, grid: LocationGrid) -> Prompt:
    """Return the prompt for an expression that tells what is inside a box."""
    return _prompt(Task.DESCRIBE, Tag.GROUNDING, *segments(mark("It is", "It", [box]), grid))


def ask(question: str) -> Prompt:
    """Return the prompt for a short answer in words."""
    return _prompt(Task.ASK, _question(question))


def ask_grounded(question: str) -> Prompt:
    """Return the prompt for an answer that may point at things."""
    return _prompt(Task.ASK, Tag.GROUNDING, _question(question))


def ask_about(question: GroundedText, grid: LocationGrid) -> Prompt:
    """Return the prompt for a question some of whose words are tied to boxes.

    `grounding.mark("Where is the fire next to?", "the fire", [box])` makes such a question.
    """
    question = question.trimmed()
    _needed("question", question.text)
    if not question.phrases:
        raise RequestError(
            f"no words of {question.text!r} are tied to a box; "
            "tie some with grounding.mark(question, words, [box]), or use ask_grounded()"
        )
    lead = "Question: "
    shifted = GroundedText(
        text=f"{lead}{question.text} Answer:",
        phrases=tuple(
            replace(phrase, start=phrase.start + len(lead), end=phrase.end + len(lead))
            for phrase in question.phrases
        ),
    )
    return _prompt(Task.ASK, Tag.GROUNDING, *segments(shifted, grid))


def ask_what(box: Box, grid: LocationGrid) -> Prompt:
    """Return the prompt "What is it?" about a box."""
    return ask_about(mark("What is it?", "it", [box]), grid)


def few_shot(examples: Sequence[Demonstration], query: Prompt, grid: LocationGrid) -> Prompt:
    """Return the query behind solved examples, each with a picture of its own.

    The pictures go in the order of the slots: those of the examples first, the query's last.
    """
    if not examples:
        raise RequestError("few_shot needs at least one example; without any, use the query itself")
    joined: list[Segment] = []
    for example in examples:
        answer = segments(example.answer, grid)
        if not answer:
            raise RequestError(f"the example for task {example.prompt.task} has an empty answer")
        joined += [*example.prompt.segments, *answer]
    return replace(query, segments=(*joined, *query.segments))


def boxes_only(boxes: Sequence[Box]) -> GroundedText:
    """Return an answer of boxes without words, as `find` gets."""
    return GroundedText(text="", phrases=(Phrase(start=0, end=0, boxes=tuple(boxes)),))


def from_markup(text: str) -> Prompt:
    """Return the prompt of a string with tags in it, written as for Hugging Face's Kosmos-2.

    Tags in `text` are tags here and nowhere else: do not pass what a stranger typed.
    """
    parts = parse_markup_string(_needed("prompt", text))
    if misplaced := [part for part in parts if part in (Tag.IMAGE, Tag.IMAGE_END)]:
        raise RequestError(f"the picture is put in by the program; leave {misplaced[0]} out")
    return _prompt(Task.MARKUP, *parts)


def read_text(
    prompt: Prompt, symbols: Sequence[Symbol], scores: Sequence[float | None], grid: LocationGrid
) -> GroundedText:
    """Return the caption or answer that the new symbols say.

    The words of a prompt that begins the sentence ("An image of") are part of it, with its boxes.
    """
    if prompt.task not in SENTENCE_BEGINS_IN_PROMPT:
        return read_symbols(symbols, grid, scores)
    begun = _after_last_picture(prompt.segments)
    count = len(begun)
    given = [Symbol(value=value, start=n, stop=n + 1) for n, value in enumerate(begun)]
    new = [replace(item, start=item.start + count, stop=item.stop + count) for item in symbols]
    padded = [*(None for _ in given), *scores] if scores else ()
    return read_symbols([*given, *new], grid, padded)


def read_found(
    prompt: Prompt, symbols: Sequence[Symbol], scores: Sequence[float | None], grid: LocationGrid
) -> Found:
    """Return the boxes that follow the prompt's phrase, and those the model gives it later on.

    As the original's evaluators count them: all boxes under the same words, in order.
    """
    answer = read_symbols(symbols, grid, scores)
    wanted = [
        phrase
        for phrase in answer.phrases
        if phrase.end == 0 or answer.phrase_text(phrase) == prompt.subject
    ]
    is_scored = all(phrase.scores for phrase in wanted)
    return Found(
        phrase=prompt.subject,
        boxes=tuple(box for phrase in wanted for box in phrase.boxes),
        scores=tuple(score for phrase in wanted for score in phrase.scores) if is_scored else (),
        malformed=answer.malformed,
    )


def read_description(
    prompt: Prompt, symbols: Sequence[Symbol], scores: Sequence[float | None], grid: LocationGrid
) -> str:
    """Return the expression alone: "snowman in a hat", without the prompt's "It is".

    The paper's templates (Table 9) end in a full stop, which is none of the expression.
    """
    assert prompt.task is Task.DESCRIBE
    return read_symbols(symbols, grid, scores).text.removesuffix(".").rstrip()


def read_grounded_caption(
    prompt: Prompt,
    offsets: Sequence[tuple[int, int]],
    symbols: Sequence[Symbol],
    scores: Sequence[float | None],
    grid: LocationGrid,
) -> GroundedText:
    """Return the caption of `ground` as its user wrote it, with the phrases and boxes found.

    `offsets` are those of the caption's tokens (`Tokenizer.encode_text_with_offsets`). Spans follow
    the tokens, not the decoded words, which differ from the caption in blanks and rare letters.
    """
    caption, used, cursor = prompt.subject, 0, 0
    own_words: list[Symbol] = []
    for symbol in symbols:
        if isinstance(symbol.value, Tag | Cell):
            own_words.append(symbol)
            continue
        used = min(used + symbol.stop - symbol.start, len(offsets))
        stop = max(cursor, offsets[used - 1][1]) if used else cursor
        own_words.append(replace(symbol, value=caption[cursor:stop]))
        cursor = stop
    if cursor < len(caption):
        end = own_words[-1].stop if own_words else 0
        own_words.append(Symbol(value=caption[cursor:], start=end, stop=end))
        scores = [*scores, None] if scores else ()
    return read_symbols(own_words, grid, scores)


def _prompt(task: Task, *parts: Segment) -> Prompt:
    return Prompt(task=task, segments=(ImageSlot(), *parts))


def _needed(what: str, text: str) -> str:
    if not text.strip():
        raise RequestError(f"the {what} is empty: {text!r}; give at least one word")
    return text.strip()


def _question(question: str) -> str:
    return f"Question: {_needed('question', question)} Answer:"


def _after_last_picture(parts: Sequence[Segment]) -> list[str | Tag | Cell]:
    begun: list[str | Tag | Cell] = []
    for part in parts:
        if isinstance(part, ImageSlot):
            begun = []
        else:
            begun.append(part)
    return begun
