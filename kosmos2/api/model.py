"""The model with everything it needs: one encoding of a picture answers many questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor

from kosmos2.api import questions
from kosmos2.api.loading import choose_device, load_runner, use_physical_cores
from kosmos2.api.looking import Prepared, prepare, prepare_ahead
from kosmos2.api.questions import Heard, Question, Span
from kosmos2.api.replies import Answer, Caption, Description, Found, Reply, Trace
from kosmos2.api.settings import DEFAULTS, Settings
from kosmos2.boxes import Box
from kosmos2.engine import (
    BoxConstraint,
    CaptionConstraint,
    Engine,
    Generation,
    Limits,
    Request,
    Sampling,
    Score,
    ScoreRequest,
    Step,
    StopReason,
)
from kosmos2.errors import RequestError
from kosmos2.images import Source
from kosmos2.tasks import Prompt
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Symbol, Tokenizer
from kosmos2.weights.pretrained import EMBEDDED

SourceT = TypeVar("SourceT", bound=Source)
ReplyT = TypeVar("ReplyT", bound=Reply)

Many = list[SourceT] | tuple[SourceT, ...]
"""Several pictures: several answers, in their order."""


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

        The device "auto" is a GPU if there is one. The dtype is auto, fp32, bf16, fp16, int8, int4,
        fp8 or fp64; see `load_runner`.
        """
        place = choose_device(device)
        use_physical_cores()
        runner, tokenizer = load_runner(name_or_path, dtype, place)
        engine = Engine(runner, tokenizer.vocabulary, Limits(max_rows=settings.batch_size))
        return cls(engine, tokenizer, str(name_or_path), settings)

    @overload
    def look(self, images: Source) -> View: ...
    @overload
    def look(self, images: Many[SourceT]) -> list[View]: ...
    def look(self, images: Source | Many[SourceT]) -> View | list[View]:
        """Return what the model sees of a picture: encode once, ask often."""
        if isinstance(images, list | tuple):
            return [view for views in self._look(images) for view in views]
        return self._encode([prepare(images, self._image_size)])[0]

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
    def find_or_absent(self, images: Source, phrase: str) -> Found: ...
    @overload
    def find_or_absent(self, images: Many[SourceT], phrase: str) -> list[Found]: ...
    def find_or_absent(self, images: Source | Many[SourceT], phrase: str) -> Found | list[Found]:
        """Return the boxes of a phrase, or none; `Found.absent` is how probable that is."""
        return self.put(images, questions.find_or_absent(phrase, self.tokenizer.vocabulary))

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
        for views in self._look(images):
            replies += self.answer([((view,), question) for view in views])
        return replies

    def answer(
        self,
        asked: Sequence[tuple[Sequence[View], Question[ReplyT]]],
        wanted: Callable[[], bool] = lambda: True,
    ) -> list[ReplyT]:
        """Return the answers to any mixture of questions, each with the pictures of its prompt.

        They run together, each from when there is room for it; that changes no answer. Once
        `wanted` says no, nothing more is computed and a RequestError ends the call.
        """
        requests = [self._request(views, question) for views, question in asked]
        times = self.settings.best_of
        generations = self.engine.generate(
            [draw for each in requests for draw in self._draws(each)], wanted
        )
        best = [
            max(generations[start : start + times], key=lambda drawn: drawn.mean_logprob)
            for start in range(0, len(generations), times)
        ]
        return [
            question.read(self._heard(views[-1], generation))
            for (views, question), generation in zip(asked, best, strict=True)
        ]

    def score(
        self, views: Sequence[View], prompt: Prompt, continuations: Sequence[str]
    ) -> list[Score]:
        """Return how probable each text is behind a prompt, without writing anything."""
        ids, mask = self._prompt(views, prompt)
        return self.engine.score(
            [
                ScoreRequest(
                    ids=ids,
                    image_mask=mask,
                    latents=tuple(view.latents_QD for view in views),
                    continuation=tuple(self.tokenizer.encode_text(text)),
                )
                for text in continuations
            ]
        )

    def stream(
        self, views: Sequence[View], question: Question[ReplyT]
    ) -> Generator[str, None, ReplyT]:
        """Yield the text of an answer in pieces as it is written; return the whole answer.

        The pieces joined are the text of the answer that `answer` gives.
        """
        said = ""
        replies = self.follow(views, question)
        while True:
            try:
                text = next(replies).text
            except StopIteration as end:
                reply: ReplyT = end.value
                break
            if text.startswith(said) and text != said:
                yield text[len(said) :]
                said = text
        if reply.text != said:
            yield reply.text[len(said) :]
        return reply

    def follow(
        self, views: Sequence[View], question: Question[ReplyT]
    ) -> Generator[ReplyT, None, ReplyT]:
        """Yield what an answer says so far, boxes and all, at each token; return the whole one."""
        steps: list[Step] = []
        stream = self.engine.stream(self._request(views, question))
        while True:
            try:
                steps.append(next(stream))
            except StopIteration as end:
                return question.read(self._heard(views[-1], end.value))
            unfinished = Generation(
                steps=tuple(steps), stop=StopReason.LENGTH, mean_logprob=math.nan
            )
            yield question.read(self._heard(views[-1], unfinished))

    def _look(self, sources: Many[SourceT]) -> Iterator[list[View]]:
        batches = prepare_ahead(sources, self._image_size, self.settings.batch_size)
        return map(self._encode, batches)

    @property
    def _image_size(self) -> int:
        return self.engine.config.vision.image_size

    def _encode(self, pictures: Sequence[Prepared]) -> list[View]:
        latents = self.engine.look(torch.stack([picture.pixels_CYX for picture in pictures]))
        return [
            View(self, latents_QD, picture.width, picture.height)
            for picture, latents_QD in zip(pictures, latents, strict=True)
        ]

    def _request(self, views: Sequence[View], question: Question[ReplyT]) -> Request:
        ids, mask = self._prompt(views, question.prompt)
        return Request(
            ids=ids,
            image_mask=mask,
            latents=tuple(view.latents_QD for view in views),
            max_new_tokens=self._room(question),
            sampling=self.settings.sampling,
            rules=self.settings.rules,
            constraint=question.form,
        )

    def _prompt(
        self, views: Sequence[View], prompt: Prompt
    ) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        if len(views) != prompt.num_images:
            raise RequestError(
                f"the prompt has places for {prompt.num_images} pictures, got {len(views)}"
            )
        num_latents = self.engine.config.num_latents
        encoded = self.tokenizer.encode(prompt.segments, num_latents=num_latents)
        return encoded.ids, encoded.image_mask

    def _draws(self, request: Request) -> list[Request]:
        sampling = request.sampling
        if not isinstance(sampling, Sampling):
            return [request]
        return [
            replace(request, sampling=replace(sampling, seed=sampling.seed + draw))
            for draw in range(self.settings.best_of)
        ]

    def _room(self, question: Question[ReplyT]) -> int:
        match question.form:
            case BoxConstraint(longest=longest):
                return longest
            case CaptionConstraint(longest=longest, caption_ids=ids):
                # The longest form has sixteen boxes at every word; memory for that is never needed.
                wanted = len(ids) + self.settings.max_new_tokens
                return min(longest, max(question.form.shortest, wanted))
        return self.settings.max_new_tokens

    def _heard(self, view: View, generation: Generation) -> Heard:
        return Heard(
            symbols=tuple(map(_without_picture, self.tokenizer.symbols(generation.ids))),
            scores=generation.masses,
            steps=generation.steps,
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

    def find_or_absent(self, phrase: str) -> Found:
        """Return the boxes of a phrase, or none; `Found.absent` is how probable that is."""
        return self.put(questions.find_or_absent(phrase, self.model.tokenizer.vocabulary))

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


def _without_picture(symbol: Symbol) -> Symbol:
    """Return an opening `<image>` as a closing one, which readers report as a stray tag.

    Behind the opening they would expect a picture, and forget the answer before it.
    """
    return replace(symbol, value=Tag.IMAGE_END) if symbol.value is Tag.IMAGE else symbol
