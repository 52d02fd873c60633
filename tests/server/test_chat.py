"""The official client of OpenAI's API, against a server on a port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from server_cases import EXAMPLES, base64_of, listening

from kosmos2.api import Kosmos2, questions
from kosmos2.grounding.spans import GroundedText
from kosmos2.server import Limits, create_app
from kosmos2.tasks import Demonstration


@pytest.fixture(scope="module")
def chat(served: Kosmos2) -> Iterator[openai.OpenAI]:
    with (
        listening(create_app(served, Limits(api_keys=("secret",), max_pictures=2))) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client,
    ):
        yield client


def said(text: str, number: int = 0) -> dict[str, Any]:
    url = f"data:image/jpeg;base64,{base64_of(EXAMPLES[number])}"
    picture = {"type": "image_url", "image_url": {"url": url}}
    return {
        "role": "user",
        "content": [picture, *([{"type": "text", "text": text}] if text else [])],
    }


def ask(chat: openai.OpenAI, *messages: Any, **more: Any) -> Any:
    return chat.chat.completions.create(model="kosmos2", messages=list(messages), **more)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("", questions.caption()),
        ("Caption.", questions.caption()),
        ("What color is the tree?", questions.ask("What color is the tree?")),
        (
            "<grounding> Describe this image in detail:",
            questions.complete("<grounding> Describe this image in detail:"),
        ),
    ],
)
def test_an_answer_is_the_offline_answer_whole_and_streamed(
    chat: openai.OpenAI, served: Kosmos2, text: str, question: questions.Question[Any]
) -> None:
    reply = served.put(EXAMPLES[0], question)
    whole = ask(chat, said(text))
    message = whole.choices[0].message
    assert message.content == reply.text
    assert message.grounding["markup"] == reply.trace.markup
    assert whole.choices[0].finish_reason == "stop"
    pieces = list(ask(chat, said(text), stream=True))
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == reply.text
    assert pieces[-1].choices[0].delta.grounding == message.grounding
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_earlier_messages_are_examples(chat: openai.OpenAI, served: Kosmos2) -> None:
    question = questions.ask("What color is the tree?")
    example = Demonstration(prompt=question.prompt, answer=GroundedText(text="pink", phrases=()))
    views = served.look([EXAMPLES[1], EXAMPLES[0]])
    shown = questions.few_shot([example], question, served.tokenizer.grid)
    (reply,) = served.answer([(views, shown)])
    answer = {"role": "assistant", "content": "pink"}
    text = "What color is the tree?"
    told = ask(chat, said(text, 1), answer, said(text, 0))
    assert told.choices[0].message.content == reply.text


def test_tokens_end_an_answer_and_are_told(chat: openai.OpenAI) -> None:
    told = ask(chat, said(""), max_tokens=2)
    assert told.choices[0].finish_reason == "length"
    assert told.usage.completion_tokens <= 4


def test_what_is_wrong_raises_the_clients_own_errors(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        chat.chat.completions.create(model="gpt", messages=[said("")])  # type: ignore[list-item]
    for messages, word in (
        ([{"role": "user", "content": "hello"}], "0 pictures"),
        ([said(""), said("")], "alternate"),
        ([{"role": "assistant", "content": "hello"}], "alternate"),
        ([{"role": "system", "content": "hello"}], "none of a user"),
        ([said("<grounding><image>")], "picture is put in"),
        ([said("", n) if n % 2 == 0 else {"role": "assistant", "content": "a"} for n in range(5)],
         "3 pictures"),
    ):  # fmt: skip
        for stream in (False, True):
            with pytest.raises(openai.UnprocessableEntityError, match=word):
                ask(chat, *messages, stream=stream)
    with pytest.raises(openai.AuthenticationError):
        chat.with_options(api_key="wrong").models.list()
    assert [model.id for model in chat.models.list()] == ["embedded"]


def test_a_stream_that_is_closed_early_frees_its_row(chat: openai.OpenAI, served: Kosmos2) -> None:
    prompt = "<grounding> Describe this image in detail:"
    with ask(chat, said(prompt), stream=True) as stream:
        next(iter(stream))
    reply = served.put(EXAMPLES[0], questions.complete(prompt))
    assert ask(chat, said(prompt)).choices[0].message.content == reply.text
    assert served.engine.scheduler.num_live == 0
