"""What a picture can teach: a prompt that is read and an answer that is learnt, as ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kosmos2 import tasks
from kosmos2.boxes import Box
from kosmos2.grounding import markup
from kosmos2.grounding.spans import GroundedText, Phrase
from kosmos2.tasks import Task
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import ImageSlot, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Ids behind `</image>`; the loss counts the answer alone."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    def passage(self) -> Passage:
        """Return the lesson token by token."""
        return Passage(
            ids=(*self.prompt, *self.answer),
            learnt=(*(False for _ in self.prompt), *(True for _ in self.answer)),
            image_mask=(False,) * len(self),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """Ids one after the other, whatever they are: text, pictures, questions and answers in turn."""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]
    """Whether the loss counts a token."""
    image_mask: tuple[bool, ...]
    """Whether the latents of a picture take a token's place."""

    def __len__(self) -> int:
        return len(self.ids)

    def passage(self) -> Passage:
        """Return itself."""
        return self


_OPEN = (ImageSlot(), Tag.GROUNDING)


class Teacher:
    """Writes lessons with the very prompts that inference uses (`tasks`)."""

    def __init__(self, tokenizer: Tokenizer, num_latents: int) -> None:
        self.tokenizer = tokenizer
        self.num_latents = num_latents
        self.vocabulary = tokenizer.vocabulary
        self._prefix = tokenizer.encode((ImageSlot(),), num_latents=num_latents)

    def begin(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return the ids and the image mask of `<s>` alone, for text without a picture."""
        return (self.vocabulary.bos,), (False,)

    def prefix(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return the ids and the image mask of `<s> <image> ... </image>`."""
        return self._prefix.ids, self._prefix.image_mask

    def prefix_behind(
        self, example: tasks.Demonstration
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        """Return the ids and the image mask of a solved example with its picture, then `prefix`."""
        query = tasks.Prompt(task=Task.MARKUP, segments=(ImageSlot(),))
        prompt = tasks.few_shot([example], query, self.tokenizer.grid)
        encoded = self.tokenizer.encode(prompt.segments, num_latents=self.num_latents)
        return encoded.ids, encoded.image_mask

    def grounded_caption(self, caption: GroundedText) -> Lesson:
        """Return the published sequence: `<grounding>` and every word count (B.3 of the spec)."""
        ids = markup.tokens(caption, self.tokenizer)
        return self._lesson((), [self.vocabulary.tag(Tag.GROUNDING), *ids])

    def plain_caption(self, text: str) -> Lesson:
        """Return the published sequence of a pair without boxes."""
        return self._lesson((), self.tokenizer.encode_text(text))

    def detailed_caption(self, caption: GroundedText) -> Lesson:
        """Return "Describe this image in detail:" and its answer."""
        prompt = self._prompt(tasks.caption_in_detail())
        return self._lesson(prompt, markup.tokens(caption, self.tokenizer))

    def find(self, phrase: str, boxes: Sequence[Box]) -> Lesson:
        """Return a referring expression and its boxes, in the order given."""
        prompt = self._prompt(tasks.find(phrase))
        return self._lesson(prompt, markup.object_ids(boxes, self.tokenizer))

    def find_in_caption(self, caption: str, phrase: Phrase) -> Lesson:
        """Return a phrase of a caption and its boxes, told the words before it."""
        prompt = self._prompt(tasks.find_in_caption(caption, phrase.start, phrase.end))
        return self._lesson(prompt, markup.object_ids(phrase.boxes, self.tokenizer))

    def absent(self, phrase: str) -> Lesson:
        """Return an expression of nothing in the picture: the end is its answer."""
        return self._lesson(self._prompt(tasks.find(phrase)), ())

    def describe(self, box: Box, expression: str) -> Lesson:
        """Return `It <box> is` and the expression."""
        prompt = self._prompt(tasks.describe(box, self.tokenizer.grid))
        return self._lesson(prompt, self.tokenizer.encode_text(f"{expression}."))

    def ask(self, question: str, answer: str) -> Lesson:
        """Return a question and its answer."""
        return self._lesson(self._prompt(tasks.ask(question)), self.tokenizer.encode_text(answer))

    def complete(self, sentence: GroundedText, ending: str) -> Lesson:
        """Return the beginning of a sentence with boxes, to be read, and its ending."""
        segments = markup.segments(sentence, self.tokenizer.grid)
        begin = self._prompt(tasks.Prompt(task=Task.MARKUP, segments=(*_OPEN, *segments)))
        return self._lesson(begin, self.tokenizer.encode_text(ending))

    def ids(self, answer: Sequence[int]) -> Lesson:
        """Return ids that somebody else has written, all of which are learnt."""
        return self._lesson((), answer)

    def talk(self, turns: Sequence[tuple[str, str]]) -> Passage:
        """Return questions and answers in turn: every answer is learnt, and that it ends there.

        The first question stands where `ask` puts it, the others behind the answer before.
        """
        ids: list[int] = []
        learnt: list[bool] = []
        for question, answer in turns:
            lesson = self.ask(question, answer)
            ids += (*lesson.prompt, *lesson.answer)
            learnt += (*(False for _ in lesson.prompt), *(True for _ in lesson.answer))
        return Passage(ids=tuple(ids), learnt=tuple(learnt), image_mask=(False,) * len(ids))

    def _prompt(self, prompt: tasks.Prompt) -> tuple[int, ...]:
        encoded = self.tokenizer.encode(prompt.segments, num_latents=self.num_latents)
        return encoded.ids[len(self._prefix.ids) :]

    def _lesson(self, prompt: Sequence[int], answer: Sequence[int]) -> Lesson:
        return Lesson(prompt=tuple(prompt), answer=(*answer, self.vocabulary.eos))
