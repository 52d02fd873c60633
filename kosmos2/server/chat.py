"""The chat endpoint that OpenAI's clients speak, and the list of models.

Kosmos-2 is no chat model: it goes on with a text. What the last user message says decides:

- a picture and no text, or "caption": a grounded caption;
- a text with tags, `<grounding> An image of`: that prompt, as written for Hugging Face's Kosmos-2;
- any other text: `Question: ... Answer:`.

Messages before it, a user's with a picture and the assistant's answer, are examples: few-shot.
The answer is plain text; `grounding` beside it has phrases, boxes and scores.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from kosmos2 import tasks
from kosmos2.api import Kosmos2, Question, Reply, View, questions
from kosmos2.errors import RequestError
from kosmos2.grounding.spans import GroundedText
from kosmos2.server import problems, schemas
from kosmos2.server.answering import Answering, replies_of, result_of
from kosmos2.server.desk import Desk, Ticket
from kosmos2.server.pictures import picture_of
from kosmos2.server.routes import ERRORS, client_of

_SAID = {status: told["description"] for status, told in ERRORS.items()}
AS_OPENAI: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {}}}
    for status, text in {**_SAID, 404: "There is no model of this name"}.items()
}


class ImageUrl(BaseModel):
    url: str


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


Part = Annotated[ImagePart | TextPart, Field(discriminator="type")]


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class AskedChat(BaseModel):
    """What OpenAI's clients send; fields that mean nothing here are ignored."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    n: Literal[1] = 1

    def decoding(self) -> schemas.Decoding:
        """Return how to answer; a temperature is only used when it is given."""
        return schemas.Decoding(
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
        )


@dataclass(frozen=True, slots=True)
class _Turn:
    """One user message: its pictures and its text."""

    pictures: tuple[str, ...]
    text: str


def router_of(desk: Desk, answerer: Answering) -> APIRouter:
    """Return `/v1/chat/completions` and `/v1/models`."""
    router = APIRouter(prefix="/v1", tags=["as OpenAI's"])
    name = answerer.model.name

    @router.get("/models", response_model=schemas.ModelList)
    async def models() -> schemas.ModelList:
        """List the one model."""
        return schemas.ModelList(data=[schemas.ModelCard(id=name)])

    @router.post("/chat/completions", response_model=None, responses=AS_OPENAI)
    async def completions(request: Request, asked: AskedChat) -> object:
        """Answer as OpenAI's chat completions do, with `grounding` beside the text."""
        if asked.model not in (name, "kosmos2"):
            raise problems.ProblemError(
                HTTPStatus.NOT_FOUND, f"there is no model {asked.model[:100]!r} here, only {name!r}"
            )
        work = _Work(asked, answerer)
        if asked.stream:
            pieces = work.pieces(desk, client_of(request))
            first = await anext(pieces)  # what is wrong with the request still gets its status
            return StreamingResponse(_events(first, pieces), media_type="text/event-stream")
        async with desk.let_in(client_of(request)) as ticket:
            return await desk.run(ticket, request.is_disconnected, lambda: work.whole(ticket))

    return router


class _Work:
    """One chat request on its way."""

    def __init__(self, asked: AskedChat, answerer: Answering) -> None:
        self._answerer = answerer
        self._decoding = asked.decoding()
        self._turns, self._answers = _turns_of(asked.messages)
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._made = int(time.time())
        limits = answerer.limits
        answerer.check_texts(*(turn.text for turn in self._turns), *self._answers)
        count = sum(len(turn.pictures) for turn in self._turns)
        if count > limits.max_pictures:
            raise RequestError(f"{count} pictures, this server takes {limits.max_pictures}")

    def whole(self, ticket: Ticket) -> dict[str, Any]:
        """Return the answer in one piece."""
        model, views, question = self._ready(ticket)
        (reply,) = replies_of(model, [(views, question)], ticket)
        message = {"role": "assistant", "content": reply.text, "grounding": _grounding(reply)}
        tokens = len(model.tokenizer.encode_text(reply.text))
        return {
            **self._head("chat.completion", model),
            "choices": [
                {"index": 0, "message": message, "finish_reason": _finish(reply), "logprobs": None}
            ],
            "usage": {
                "prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens,
            },
        }  # fmt: skip

    async def pieces(self, desk: Desk, client: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the answer in pieces; the last one has the grounding."""
        async with desk.let_in(client) as ticket:
            async for piece in desk.stream(ticket, lambda: self._pieces(ticket)):
                yield piece

    def _pieces(self, ticket: Ticket) -> Generator[dict[str, Any], None, None]:
        model, views, question = self._ready(ticket)
        head = self._head("chat.completion.chunk", model)

        def chunk(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
            return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

        yield chunk({"role": "assistant", "content": ""}, None)
        stream = model.stream(views, question)
        while True:
            try:
                yield chunk({"content": next(stream)}, None)
            except StopIteration as end:
                reply: Reply = end.value
                yield chunk({"grounding": _grounding(reply)}, _finish(reply))
                return

    def _ready(self, ticket: Ticket) -> tuple[Kosmos2, Sequence[View], Question[Reply]]:
        """Return the model with its settings, what it sees, and the question."""
        limits = self._answerer.limits
        sent = [picture for turn in self._turns for picture in turn.pictures]
        pictures = [picture_of(each, limits) for each in sent]
        ticket.check()
        model = self._answerer.with_decoding(self._decoding)
        return model, model.look(pictures), self._question(model)

    def _question(self, model: Kosmos2) -> Question[Reply]:
        *before, last = [_asked(turn.text) for turn in self._turns]
        if not before:
            return last
        examples = [
            tasks.Demonstration(
                prompt=question.prompt, answer=GroundedText(text=answer, phrases=())
            )
            for question, answer in zip(before, self._answers, strict=True)
        ]
        return questions.few_shot(examples, last, model.tokenizer.grid)

    def _head(self, kind: str, model: Kosmos2) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._made, "model": model.name}


async def _events(
    first: dict[str, Any], pieces: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[str]:
    """Yield pieces as server-sent events."""
    yield f"data: {json.dumps(first)}\n\n"
    try:
        async for piece in pieces:
            yield f"data: {json.dumps(piece)}\n\n"
    except Exception as error:
        yield f"data: {problems.event_of(error)}\n\n"
    yield "data: [DONE]\n\n"


def _turns_of(messages: Sequence[ChatMessage]) -> tuple[list[_Turn], list[str]]:
    """Return the user's messages and the answers between them."""
    said = [each for each in messages if each.role in ("user", "assistant")]
    roles = [each.role for each in said]
    if roles != [("user", "assistant")[index % 2] for index in range(len(said))] or not (
        len(said) % 2
    ):
        raise RequestError(
            "messages must begin with the user, alternate, and end with the user; got "
            f"{', '.join(roles[:10]) or 'none of a user'}"
        )
    turns = []
    for number, each in enumerate(said[::2], start=1):
        parts = [each.content] if isinstance(each.content, str) else each.content
        pictures = tuple(part.image_url.url for part in parts if isinstance(part, ImagePart))
        texts = [part if isinstance(part, str) else part.text for part in parts
                 if not isinstance(part, ImagePart)]  # fmt: skip
        if len(pictures) != 1:
            raise RequestError(
                f"user message {number} has {len(pictures)} pictures: each message has one, and "
                "earlier ones are examples with their answers"
            )
        turns.append(_Turn(pictures, " ".join(texts).strip()))
    return turns, [_text_of(each) for each in said[1::2]]


def _text_of(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join(part.text for part in message.content if isinstance(part, TextPart))


def _asked(text: str) -> Question[Reply]:
    if not text or text.lower().rstrip(".?!") == "caption":
        return questions.caption()
    if "<grounding>" in text or "<phrase>" in text or "<object>" in text:
        return questions.complete(text)
    return questions.ask(text)


def _grounding(reply: Reply) -> dict[str, Any]:
    return {
        "width": reply.trace.width,
        "height": reply.trace.height,
        **result_of(reply).model_dump(mode="json"),
    }


def _finish(reply: Reply) -> str:
    return "length" if str(reply.stop) == "length" else "stop"
