"""What can be asked of a picture, as values: a prompt, what may be answered, how it is read.

Any mixture of questions runs in one batch; see `Kosmos2.answer`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from kosmos2 import tasks
from kosmos2.api.replies import Answer, Caption, Description, Doubt, Found, Reply, Trace
from kosmos2.boxes import Box
from kosmos2.engine import FREE, BoxConstraint, CaptionConstraint, Free, Step, StopReason
from kosmos2.engine.constraint import GrammarConstraint
from kosmos2.errors import RequestError
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.tasks import Demonstration, Prompt
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.special import Tag, Vocabulary
from kosmos2.vocab.tokenizer import Symbol, Tokenizer

ReplyT_co = TypeVar("ReplyT_co", bound=Reply, covariant=True)

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the model wrote, as symbols; one score per token, for location tokens only."""

    symbols: tuple[Symbol, ...]
    scores: tuple[float | None, ...]
    grid: LocationGrid
    trace: Trace
    steps: tuple[Step, ...]
    """The tokens themselves; `Symbol.start` and `stop` count them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question(Generic[ReplyT_co]):
    prompt: Prompt
    read: Callable[[Heard], ReplyT_co]
    form: BoxConstraint | CaptionConstraint | GrammarConstraint | None = None
    """What an answer must look like; None: anything."""

    @property
    def asks_for_boxes(self) -> bool:
        """Whether the prompt has `<grounding>`, without which the model rarely gives a box."""
        return Tag.GROUNDING in self.prompt.segments


def caption() -> Question[Caption]:
    """One sentence whose phrases have boxes."""
    return _free_text(tasks.caption())


def caption_in_detail() -> Question[Caption]:
    """A paragraph whose phrases have boxes."""
    return _free_text(tasks.caption_in_detail())


def plain_caption() -> Question[Caption]:
    """One sentence without boxes."""
    return _free_text(tasks.plain_caption())


def plain_caption_in_detail() -> Question[Caption]:
    """A paragraph without boxes."""
    return _free_text(tasks.plain_caption_in_detail())


def complete(markup: str) -> Question[Caption]:
    """Whatever follows a prompt with tags in it, written as for Hugging Face's Kosmos-2."""
    return _free_text(tasks.from_markup(markup))


def ground(text: str, tokenizer: Tokenizer) -> Question[Caption]:
    """The phrases of a given caption, chosen by the model, and their boxes."""
    return _ground(tasks.ground(text), FREE, tokenizer)


def ground_phrases(text: str, spans: Sequence[Span], tokenizer: Tokenizer) -> Question[Caption]:
    """The boxes of given phrases of a caption: its characters [start, end), none overlapping.

    A phrase that begins or ends inside a token grows to the token's border.
    """
    prompt = tasks.ground(text)
    return _ground(prompt, _token_spans(text, spans, prompt, tokenizer), tokenizer)


def ground_phrases_or_absent(
    text: str, spans: Sequence[Span], tokenizer: Tokenizer
) -> Question[Caption]:
    """The boxes of those of the given phrases that the model believes to see.

    `Caption.doubts` says of each how probable it is that it is not there.
    """
    prompt = tasks.ground(text)
    _, offsets = tokenizer.encode_text_with_offsets(prompt.subject)
    token_spans = _token_spans(text, spans, prompt, tokenizer)
    question = _ground(prompt, token_spans, tokenizer)
    assert isinstance(question.form, CaptionConstraint)
    vocabulary = tokenizer.vocabulary

    def read(heard: Heard) -> Caption:
        probabilities = tuple(_absences(heard, vocabulary))
        places = (_characters(span, prompt.subject, offsets) for span in token_spans)
        doubts = tuple(
            Doubt(start=start, end=end, absent=absent)
            for (start, end), absent in zip(places, probabilities, strict=False)
        )
        present = replace(heard, symbols=_without_absent(heard, vocabulary))
        return replace(question.read(present), doubts=doubts)

    return replace(question, form=replace(question.form, allow_absent=True), read=read)


def spans_of(text: str, phrases: Sequence[str]) -> tuple[Span, ...]:
    """Return where the phrases stand in a text, each searched for behind the one before it."""
    spans, cursor = [], 0
    for phrase in phrases:
        start = text.find(phrase, cursor) if phrase.strip() else -1
        if start < 0:
            raise RequestError(
                f"{phrase!r} does not occur in {text[cursor:]!r}; "
                "copy the words from the caption and name them in its order"
            )
        cursor = start + len(phrase)
        spans.append((start, cursor))
    return tuple(spans)


def find(phrase: str, vocabulary: Vocabulary) -> Question[Found]:
    """The boxes of a phrase, and nothing else: at least one box, whatever the picture shows.

    The score says whether to believe it. The references let the model go on writing after the
    boxes; `complete("<grounding><phrase> ...</phrase>")` does that.
    """
    prompt = tasks.find(phrase)
    return Question(
        prompt=prompt,
        form=BoxConstraint(vocabulary=vocabulary),
        read=lambda heard: _read_found(prompt, heard),
    )


def find_or_absent(phrase: str, vocabulary: Vocabulary) -> Question[Found]:
    """The boxes of a phrase, or none where the model believes that it is not there.

    `Found.absent` is the probability of that: what is left of the probability of a box.
    Only a model that has seen phrases without boxes in training can know, as the embedded one has.
    The released one has not: there the score of the best box, from `find`, tells more.
    """
    question = find(phrase, vocabulary)

    def read(heard: Heard) -> Found:
        return replace(question.read(heard), absent=_absence_at(0, heard, vocabulary))

    return replace(
        question, form=BoxConstraint(vocabulary=vocabulary, allow_absent=True), read=read
    )


def describe(box: Box, grid: LocationGrid) -> Question[Description]:
    """An expression that tells what is inside a box."""
    prompt = tasks.describe(box, grid)

    def read(heard: Heard) -> Description:
        text = tasks.read_description(prompt, heard.symbols, heard.scores, heard.grid)
        phrase = Phrase(start=0, end=len(text), boxes=(box,))
        grounded = GroundedText(text=text, phrases=(phrase,))
        return Description(grounded=grounded, trace=heard.trace, box=box)

    return Question(prompt=prompt, read=read)


def ask(question: str) -> Question[Answer]:
    """A short answer in words."""
    return _ask(tasks.ask(question), question)


def ask_grounded(question: str) -> Question[Answer]:
    """An answer that may point at things."""
    return _ask(tasks.ask_grounded(question), question)


def ask_about(question: str, words: str, box: Box, grid: LocationGrid) -> Question[Answer]:
    """An answer to a question in which the first `words`, as whole words, mean a box."""
    place = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", question) if words.strip() else None
    if place is None:
        raise RequestError(
            f"{words!r} does not occur in the question {question!r}; name the words that "
            "stand for the box, such as 'the hat' in 'What colour is the hat?'"
        )
    phrase = Phrase(start=place.start(), end=place.end(), boxes=(box,))
    prompt = tasks.ask_about(GroundedText(text=question, phrases=(phrase,)), grid)
    return _ask(prompt, question)


def well_formed(question: Question[ReplyT_co], tokenizer: Tokenizer) -> Question[ReplyT_co]:
    """The same question, whose answer never has a fault in its markup.

    Without this, a free text is what the model writes, as in both references.
    """
    if question.form is not None:
        return question
    form = GrammarConstraint(vocabulary=tokenizer.vocabulary, blanks=tokenizer.blanks)
    return replace(question, form=form)


def few_shot(
    examples: Sequence[Demonstration], question: Question[ReplyT_co], grid: LocationGrid
) -> Question[ReplyT_co]:
    """The question behind solved examples; it then needs their pictures too, before its own."""
    return replace(question, prompt=tasks.few_shot(examples, question.prompt, grid))


def _free_text(prompt: Prompt) -> Question[Caption]:
    def read(heard: Heard) -> Caption:
        grounded = tasks.read_text(prompt, heard.symbols, heard.scores, heard.grid)
        return Caption(grounded=grounded, trace=heard.trace)

    return Question(prompt=prompt, read=read)


def _ground(
    prompt: Prompt, spans: tuple[Span, ...] | Free, tokenizer: Tokenizer
) -> Question[Caption]:
    ids, offsets = tokenizer.encode_text_with_offsets(prompt.subject)
    form = CaptionConstraint(
        caption_ids=tuple(ids),
        vocabulary=tokenizer.vocabulary,
        spans=spans,
        borders=_word_borders(prompt.subject, offsets),
    )

    def read(heard: Heard) -> Caption:
        grounded = tasks.read_grounded_caption(
            prompt, offsets, heard.symbols, heard.scores, heard.grid
        )
        return Caption(grounded=grounded, trace=heard.trace)

    return Question(prompt=prompt, read=read, form=form)


def _token_spans(
    text: str, spans: Sequence[Span], prompt: Prompt, tokenizer: Tokenizer
) -> tuple[Span, ...]:
    shift = len(text) - len(text.lstrip())  # the prompt's caption has no outer blanks
    _, offsets = tokenizer.encode_text_with_offsets(prompt.subject)
    found = [
        _tokens_of((start - shift, end - shift), prompt.subject, offsets)
        for start, end in sorted(spans)
    ]
    if not found:
        raise RequestError("no phrases to ground; name some spans, or use ground()")
    return tuple(found)


def _word_borders(text: str, offsets: Sequence[Span]) -> tuple[int, ...]:
    """Return the tokens before which a phrase may open or close: none inside a word.

    Nor behind a lone word mark, which has the place of the letter after it.
    """
    borders = []
    for index, (start, stop) in enumerate(offsets):
        start += len(text[start:stop]) - len(text[start:stop].lstrip())
        inside_a_word = text[start - 1 : start].isalnum() and text[start : start + 1].isalnum()
        behind_a_mark = index > 0 and offsets[index - 1][0] == offsets[index][0]
        if not inside_a_word and not behind_a_mark:
            borders.append(index)
    return tuple(borders)


def _ask(prompt: Prompt, question: str) -> Question[Answer]:
    def read(heard: Heard) -> Answer:
        grounded = tasks.read_text(prompt, heard.symbols, heard.scores, heard.grid)
        return Answer(grounded=grounded, trace=heard.trace, question=question)

    return Question(prompt=prompt, read=read)


def _read_found(prompt: Prompt, heard: Heard) -> Found:
    found = tasks.read_found(prompt, heard.symbols, heard.scores, heard.grid)
    boxes, scores = found.boxes, found.scores
    if scores:
        order = sorted(range(len(boxes)), key=lambda index: -scores[index])
        boxes, scores = tuple(boxes[i] for i in order), tuple(scores[i] for i in order)
    phrase = Phrase(start=0, end=len(found.phrase), boxes=boxes, scores=scores) if boxes else None
    grounded = GroundedText(
        text=found.phrase, phrases=(phrase,) if phrase else (), malformed=found.malformed
    )
    return Found(grounded=grounded, trace=heard.trace, phrase=found.phrase)


def _tokens_of(span: Span, text: str, offsets: Sequence[Span]) -> Span:
    """Return the tokens [first, stop) that the visible characters of a span lie in."""
    start, end = span
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise RequestError(
            f"phrase [{start}, {end}) is not inside the caption, or is empty; "
            f"the caption has {len(text)} characters: {text[:80]!r}"
        )
    end = start + len(text[start:end].rstrip())
    start += len(text[start:end]) - len(text[start:end].lstrip())
    inside = [n for n, (first, stop) in enumerate(offsets) if first < end and stop > start]
    if not inside:
        raise RequestError(f"{text[start:end]!r} has no letter that the vocabulary can read")
    return inside[0], inside[-1] + 1


def _characters(span: Span, text: str, offsets: Sequence[Span]) -> Span:
    """Return the visible characters [start, end) of the tokens of a span."""
    start, end = offsets[span[0]][0], offsets[span[1] - 1][1]
    words = text[start:end]
    return start + len(words) - len(words.lstrip()), start + len(words.rstrip())


def _absences(heard: Heard, vocabulary: Vocabulary) -> Iterator[float]:
    """Yield how probable it is that a phrase is absent, for each that was written to its end."""
    for index, step in enumerate(heard.steps, start=1):
        if step.id == vocabulary.tag(Tag.PHRASE_END):
            absent = _absence_at(index, heard, vocabulary)
            if absent is not None:
                yield absent


def _absence_at(index: int, heard: Heard, vocabulary: Vocabulary) -> float | None:
    """Return the probability of no boxes where `<object>` or another token had to be chosen.

    None where the answer was cut before the choice.
    """
    if index < len(heard.steps):
        step = heard.steps[index]
        is_present = step.id == vocabulary.tag(Tag.OBJECT)
        probability = math.exp(min(step.logprob, 0.0))
        return 1 - probability if is_present else probability
    if heard.trace.stop is not StopReason.EOS:
        return None
    # The end of text is no step, but the mean is over the chosen steps and it.
    chosen = [step.logprob for step in heard.steps if not step.forced]
    last = heard.trace.mean_logprob * (len(chosen) + 1) - math.fsum(chosen)
    return math.exp(min(last, 0.0))


def _without_absent(heard: Heard, vocabulary: Vocabulary) -> tuple[Symbol, ...]:
    """Return the symbols without the tags of phrases that were found absent."""
    kept: list[Symbol] = []
    for symbol in heard.symbols:
        follower = heard.steps[symbol.stop].id if symbol.stop < len(heard.steps) else None
        was_cut = follower is None and heard.trace.stop is not StopReason.EOS
        if symbol.value is not Tag.PHRASE_END or follower == vocabulary.tag(Tag.OBJECT) or was_cut:
            kept.append(symbol)
            continue
        opened = [at for at, before in enumerate(kept) if before.value is Tag.PHRASE]
        del kept[opened[-1]]
    return tuple(kept)
