"""The model with everything it needs: one encoding of a picture answers many questions."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor

from kosmos2.api import questions
from kosmos2.api.questions import Heard, Question, Span
from kosmos2.api.replies import Answer, Caption, Description, Found, Reply, Trace
from kosmos2.boxes import Box
from kosmos2.engine import (
    BoxConstraint,
    CaptionConstraint,
    Engine,
    Generation,
    Greedy,
    Request,
    Rules,
    Sampling,
    Step,
    StopReason,
)
from kosmos2.errors import ConfigError, RequestError, one_line
from kosmos2.images import Source, open_picture, preprocess
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Symbol, Tokenizer
from kosmos2.weights import load_pretrained
from kosmos2.weights.pretrained import EMBEDDED

SourceT = TypeVar("SourceT", bound=Source)
ReplyT = TypeVar("ReplyT", bound=Reply)
ItemT = TypeVar("ItemT")

Many = list[SourceT] | tuple[SourceT, ...]
"""Several pictures: several answers, in their order."""

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How answers are made. As given here: greedily, as both references do by default."""

    batch_size: int = 8
    """Questions that are answered, and pictures that are encoded, at a time."""
    max_new_tokens: int = 256
    """Of free text; a forced form has room for its longest answer."""
    sampling: Greedy | Sampling = field(default_factory=Greedy)
    """Its generator is drawn from once for each question, in their order, whatever the batches."""
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


DEFAULTS = Settings()


@dataclass(frozen=True, slots=True, eq=False)
class Kosmos2:
    """A loaded model. Each method takes one picture, or a list and then answers with a list."""

    engine: Engine = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    name: str
    settings: Settings = DEFAULTS

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = EMBEDDED,
        *,
        device: str = "auto",
        dtype: str = "auto",
        settings: Settings = DEFAULTS,
    ) -> Kosmos2:
        """Return the embedded model, or that of a folder, a `kosmos-2.pt` or a hub name.

        The device "auto" is a GPU if there is one; the dtype "auto" is float32 on a CPU and
        bfloat16 elsewhere.
        """
        place = choose_device(device)
        pretrained = load_pretrained(name_or_path, dtype=choose_dtype(dtype, place), device=place)
        engine = Engine(pretrained.network, pretrained.tokenizer.vocabulary)
        return cls(engine, pretrained.tokenizer, pretrained.name, settings)

    @overload
    def look(self, images: Source) -> View: ...
    @overload
    def look(self, images: Many[SourceT]) -> list[View]: ...
    def look(self, images: Source | Many[SourceT]) -> View | list[View]:
        """Return what the model sees of a picture: encode once, ask often."""
        if isinstance(images, list | tuple):
            chunks = _chunks(images, self.settings.batch_size)
            return [view for chunk in chunks for view in self._encode(chunk)]
        return self._encode([images])[0]

    @overload
    def caption(self, images: Source) -> Caption: ...
    @overload
    def caption(self, images: Many[SourceT]) -> list[Caption]: ...
    def caption(self, images: Source | Many[SourceT]) -> Caption | list[Caption]:
        """Return one sentence whose phrases have boxes."""
        return self.put(images, questions.caption())

    @overload
    def caption_in_detail(self, images: Source) -> Caption: ...
    @overload
    def caption_in_detail(self, images: Many[SourceT]) -> list[Caption]: ...
    def caption_in_detail(self, images: Source | Many[SourceT]) -> Caption | list[Caption]:
        """Return a paragraph whose phrases have boxes."""
        return self.put(images, questions.caption_in_detail())

    @overload
    def plain_caption(self, images: Source) -> Caption: ...
    @overload
    def plain_caption(self, images: Many[SourceT]) -> list[Caption]: ...
    def plain_caption(self, images: Source | Many[SourceT]) -> Caption | list[Caption]:
        """Return one sentence without boxes."""
        return self.put(images, questions.plain_caption())

    @overload
    def ground(self, images: Source, caption: str) -> Caption: ...
    @overload
    def ground(self, images: Many[SourceT], caption: str) -> list[Caption]: ...
    def ground(self, images: Source | Many[SourceT], caption: str) -> Caption | list[Caption]:
        """Return the given caption with boxes for the phrases that the model picks out of it."""
        return self.put(images, questions.ground(caption, self.tokenizer))

    @overload
    def find(self, images: Source, phrase: str) -> Found: ...
    @overload
    def find(self, images: Many[SourceT], phrase: str) -> list[Found]: ...
    def find(self, images: Source | Many[SourceT], phrase: str) -> Found | list[Found]:
        """Return the boxes of a phrase, the surest first."""
        return self.put(images, questions.find(phrase, self.tokenizer.vocabulary))

    @overload
    def describe(self, images: Source, box: Box) -> Description: ...
    @overload
    def describe(self, images: Many[SourceT], box: Box) -> list[Description]: ...
    def describe(self, images: Source | Many[SourceT], box: Box) -> Description | list[Description]:
        """Return an expression for what is inside a box."""
        return self.put(images, questions.describe(box, self.tokenizer.grid))

    @overload
    def ask(self, images: Source, question: str) -> Answer: ...
    @overload
    def ask(self, images: Many[SourceT], question: str) -> list[Answer]: ...
    def ask(self, images: Source | Many[SourceT], question: str) -> Answer | list[Answer]:
        """Return a short answer in words."""
        return self.put(images, questions.ask(question))

    @overload
    def put(self, images: Source, question: Question[ReplyT]) -> ReplyT: ...
    @overload
    def put(self, images: Many[SourceT], question: Question[ReplyT]) -> list[ReplyT]: ...
    def put(
        self, images: Source | Many[SourceT], question: Question[ReplyT]
    ) -> ReplyT | list[ReplyT]:
        """Return the answer to any question of `api.questions`, one for each picture."""
        if not isinstance(images, list | tuple):
            return self.look(images).put(question)
        replies: list[ReplyT] = []
        for chunk in _chunks(images, self.settings.batch_size):
            replies += self.answer([((view,), question) for view in self._encode(chunk)])
        return replies

    def answer(self, asked: Sequence[tuple[Sequence[View], Question[ReplyT]]]) -> list[ReplyT]:
        """Return the answers to any mixture of questions, each with the pictures of its prompt.

        They run in batches of prompts of similar length; the batch changes no answer.
        """
        requests = [self._request(views, question) for views, question in asked]
        by_length = sorted(range(len(requests)), key=lambda index: len(requests[index].ids))
        replies: dict[int, ReplyT] = {}
        for chunk in _chunks(by_length, self.settings.batch_size):
            generations = self.engine.generate([requests[index] for index in chunk])
            for index, generation in zip(chunk, generations, strict=True):
                views, question = asked[index]
                replies[index] = question.read(self._heard(views[-1], generation))
        return [replies[index] for index in range(len(requests))]

    def stream(
        self, views: Sequence[View], question: Question[ReplyT]
    ) -> Generator[str, None, ReplyT]:
        """Yield the text of an answer in pieces as it is written; return the whole answer.

        The pieces joined are the text of the answer that `answer` gives.
        """
        steps: list[Step] = []
        said = ""
        stream = self.engine.stream(self._request(views, question))
        while True:
            try:
                steps.append(next(stream))
            except StopIteration as end:
                reply = question.read(self._heard(views[-1], end.value))
                break
            unfinished = Generation(
                steps=tuple(steps), stop=StopReason.LENGTH, mean_logprob=math.nan
            )
            text = question.read(self._heard(views[-1], unfinished)).text
            if text.startswith(said) and text != said:
                yield text[len(said) :]
                said = text
        if reply.text != said:
            yield reply.text[len(said) :]
        return reply

    def _encode(self, sources: Sequence[Source]) -> list[View]:
        pictures = [open_picture(source) for source in sources]
        if not pictures:
            return []
        size = self.engine.network.config.vision.image_size
        pixels_NCYX = torch.stack([preprocess(picture.image, size) for picture in pictures])
        latents_NQD = self.engine.encode_images(pixels_NCYX)
        return [
            View(self, latents_QD, picture.width, picture.height)
            for picture, latents_QD in zip(pictures, latents_NQD, strict=True)
        ]

    def _request(self, views: Sequence[View], question: Question[ReplyT]) -> Request:
        prompt = question.prompt
        if len(views) != prompt.num_images:
            raise RequestError(
                f"the prompt has places for {prompt.num_images} pictures, got {len(views)}"
            )
        num_latents = self.engine.network.config.num_latents
        encoded = self.tokenizer.encode(prompt.segments, num_latents=num_latents)
        latents = [view.latents_QD for view in views]
        return Request(
            ids=encoded.ids,
            image_mask=encoded.image_mask,
            latents_NQD=torch.stack(latents) if latents else None,
            max_new_tokens=self._room(question),
            sampling=self._sampling(),
            rules=self.settings.rules,
            constraint=question.form,
        )

    def _sampling(self) -> Greedy | Sampling:
        """Return how one question is answered: with a generator that no other question shares."""
        match self.settings.sampling:
            case Sampling(generator=shared) as sampling:
                seed = torch.randint(2**62, (), generator=shared, device=shared.device)
                own = torch.Generator(shared.device).manual_seed(int(seed))
                return replace(sampling, generator=own)
            case greedy:
                return greedy

    def _room(self, question: Question[ReplyT]) -> int:
        match question.form:
            case BoxConstraint(longest=longest):
                return longest
            case CaptionConstraint(longest=longest, caption_ids=ids):
                # The longest form has sixteen boxes at every word; memory for that is never needed.
                return min(longest, len(ids) + self.settings.max_new_tokens)
        return self.settings.max_new_tokens

    def _heard(self, view: View, generation: Generation) -> Heard:
        return Heard(
            symbols=tuple(map(_without_picture, self.tokenizer.symbols(generation.ids))),
            scores=generation.masses,
            grid=self.tokenizer.grid,
            trace=Trace(
                width=view.width,
                height=view.height,
                mean_logprob=generation.mean_logprob,
                stop=generation.stop,
                markup=self.tokenizer.decode(generation.ids),
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture as the model sees it, encoded once. Keeps the picture's size, not the picture."""

    model: Kosmos2 = field(repr=False)
    latents_QD: Tensor = field(repr=False)
    width: int
    height: int

    def caption(self) -> Caption:
        """Return one sentence whose phrases have boxes."""
        return self.put(questions.caption())

    def caption_in_detail(self) -> Caption:
        """Return a paragraph whose phrases have boxes."""
        return self.put(questions.caption_in_detail())

    def plain_caption(self) -> Caption:
        """Return one sentence without boxes."""
        return self.put(questions.plain_caption())

    def ground(self, caption: str) -> Caption:
        """Return the given caption with boxes for the phrases that the model picks out of it."""
        return self.put(questions.ground(caption, self.model.tokenizer))

    def ground_phrases(self, caption: str, spans: Sequence[Span]) -> Caption:
        """Return the given caption with boxes for its phrases at characters [start, end)."""
        return self.put(questions.ground_phrases(caption, spans, self.model.tokenizer))

    def find(self, phrase: str) -> Found:
        """Return the boxes of a phrase, the surest first."""
        return self.put(questions.find(phrase, self.model.tokenizer.vocabulary))

    def find_each(self, phrases: Sequence[str]) -> list[Found]:
        """Return the boxes of several phrases, in one batch."""
        vocabulary = self.model.tokenizer.vocabulary
        asked = [((self,), questions.find(phrase, vocabulary)) for phrase in phrases]
        return self.model.answer(asked)

    def describe(self, box: Box) -> Description:
        """Return an expression for what is inside a box."""
        return self.put(questions.describe(box, self.model.tokenizer.grid))

    def ask(self, question: str) -> Answer:
        """Return a short answer in words."""
        return self.put(questions.ask(question))

    def ask_grounded(self, question: str) -> Answer:
        """Return an answer that may point at things."""
        return self.put(questions.ask_grounded(question))

    def ask_about(self, question: str, words: str, box: Box) -> Answer:
        """Return the answer to a question in which `words` mean what is inside a box."""
        return self.put(questions.ask_about(question, words, box, self.model.tokenizer.grid))

    def complete(self, markup: str) -> Caption:
        """Return what follows a prompt with tags, written as for Hugging Face's Kosmos-2."""
        return self.put(questions.complete(markup))

    def put(self, question: Question[ReplyT]) -> ReplyT:
        """Return the answer to any question of `api.questions`."""
        return self.model.answer([((self,), question)])[0]

    def stream(self, question: Question[ReplyT]) -> Generator[str, None, ReplyT]:
        """Yield the text of an answer in pieces as it is written; return the whole answer."""
        return self.model.stream((self,), question)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"the device {name!r} is not here ({one_line(error)}); use cpu, or auto"
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of that name; "auto" is float32 on a CPU, bfloat16 elsewhere."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(['auto', *DTYPES])}, got {name!r}")
    return DTYPES[name]


def _without_picture(symbol: Symbol) -> Symbol:
    """Return an opening `<image>` as a closing one, which readers report as a stray tag.

    Behind the opening they would expect a picture, and forget the answer before it.
    """
    return replace(symbol, value=Tag.IMAGE_END) if symbol.value is Tag.IMAGE else symbol


def _chunks(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
