"""From a request to questions, and from replies to an answer. Runs in a request's own thread."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kosmos2.api import Kosmos2, Question, Reply, View, questions
from kosmos2.api import decoding as flat
from kosmos2.api.replies import Caption, Found
from kosmos2.boxes import Box
from kosmos2.errors import RequestError
from kosmos2.grounding.render import draw
from kosmos2.images import Picture
from kosmos2.server import schemas
from kosmos2.server.desk import Ticket
from kosmos2.server.limits import Limits
from kosmos2.server.pictures import picture_of

Questioner = Callable[[Kosmos2, View], Sequence[Question[Reply]]]
"""What is asked of a picture; it may depend on the picture's size."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answering:
    """A model and what may be asked of it."""

    model: Kosmos2
    limits: Limits

    def answer(
        self, sent: str | bytes, asked: schemas.Asked, questioner: Questioner, ticket: Ticket
    ) -> schemas.Answered:
        """Return the answer to a typed request."""
        begun = time.monotonic()
        picture = picture_of(sent, self.limits)
        ticket.check()
        model = self.with_decoding(asked.decoding)
        view = model.look(picture)
        looked = time.monotonic()
        found = questioner(model, view)
        replies = replies_of(model, [((view,), each) for each in found], ticket)
        return schemas.Answered(
            model=model.name,
            width=view.width,
            height=view.height,
            results=[result_of(reply) for reply in replies],
            timings=schemas.Timings(
                waited=_milliseconds(ticket.seconds_waited),
                picture=_milliseconds(looked - begun),
                answer=_milliseconds(time.monotonic() - looked),
            ),
            drawn=_drawn(picture, replies) if asked.drawn else None,
        )

    def with_decoding(self, wanted: schemas.Decoding) -> Kosmos2:
        """Return the model with a request's settings; the engine stays the same."""
        most = self.limits.max_new_tokens
        tokens = wanted.max_new_tokens or min(flat.Decoding().max_new_tokens, most)
        if tokens > most:
            raise RequestError(f"max_new_tokens is {tokens}, this server allows {most}")
        said = wanted.model_dump() | {"max_new_tokens": tokens}
        told = flat.Decoding(batch_size=self.model.settings.batch_size, **said)
        return replace(self.model, settings=told.settings())

    def check_texts(self, *texts: str) -> None:
        """Refuse texts that are too long."""
        for text in texts:
            if len(text) > self.limits.max_text:
                raise RequestError(
                    f"a text has {len(text):,} characters, this server reads {self.limits.max_text}"
                )

    def check_count(self, what: str, count: int) -> None:
        """Refuse too many questions at once."""
        if count > self.limits.max_questions:
            raise RequestError(
                f"{count} {what}, this server takes {self.limits.max_questions} in a request"
            )


def replies_of(
    model: Kosmos2, asked: Sequence[tuple[Sequence[View], Question[Reply]]], ticket: Ticket
) -> list[Reply]:
    """Return the replies, for as long as somebody wants them."""
    try:
        return model.answer(asked, ticket.wanted)
    except RequestError:
        ticket.check()  # it may be that nobody wanted the answer any more
        raise


def caption(asked: schemas.AskedCaption) -> Questioner:
    """Ask for a caption."""
    kinds = {
        (True, False): questions.caption,
        (True, True): questions.caption_in_detail,
        (False, False): questions.plain_caption,
        (False, True): questions.plain_caption_in_detail,
    }
    question = kinds[asked.grounded, asked.detail]()
    return lambda model, view: [question]


def ground(asked: schemas.AskedGround) -> Questioner:
    """Ask for the boxes of a caption's phrases."""
    if asked.allow_absent and not asked.phrases:
        raise RequestError("allow_absent needs phrases: those that may be absent")

    def ask(model: Kosmos2, view: View) -> Sequence[Question[Reply]]:
        if not asked.phrases:
            return [questions.ground(asked.caption, model.tokenizer)]
        spans = questions.spans_of(asked.caption, asked.phrases)
        put = questions.ground_phrases_or_absent if asked.allow_absent else questions.ground_phrases
        return [put(asked.caption, spans, model.tokenizer)]

    return ask


def find(asked: schemas.AskedFind) -> Questioner:
    """Ask for the boxes of phrases."""
    put = questions.find_or_absent if asked.allow_absent else questions.find
    return lambda model, view: [put(phrase, model.tokenizer.vocabulary) for phrase in asked.phrases]


def describe(asked: schemas.AskedDescribe) -> Questioner:
    """Ask for words for boxes."""
    return lambda model, view: [
        questions.describe(box_of(box, asked.unit, view), model.tokenizer.grid)
        for box in asked.boxes
    ]


def ask(asked: schemas.AskedAsk) -> Questioner:
    """Ask a question."""
    about = asked.about
    if about is None:
        put = questions.ask_grounded if asked.grounded else questions.ask
        return lambda model, view: [put(asked.question)]
    if asked.grounded:
        raise RequestError("a question about a box has no grounded form: leave grounded out")
    return lambda model, view: [
        questions.ask_about(
            asked.question, about.words, box_of(about.box, about.unit, view), model.tokenizer.grid
        )
    ]


def box_of(corners: Sequence[float], unit: schemas.Unit, view: View) -> Box:
    """Return the box of a request, normalised."""
    x0, y0, x1, y1 = corners
    if unit is schemas.Unit.NORMALISED:
        return Box(x0, y0, x1, y1)
    return Box.from_pixels((x0, y0, x1, y1), width=view.width, height=view.height)


def result_of(reply: Reply) -> schemas.Result:
    """Return a reply as clients get it."""
    phrases = [
        schemas.PlacedPhrase(
            text=reply.grounded.phrase_text(phrase),
            start=phrase.start,
            end=phrase.end,
            boxes=[
                schemas.PlacedBox(
                    normalised=list(box.corners), pixels=list(reply.in_pixels(box)), score=score
                )
                for box, score in zip(
                    phrase.boxes, phrase.scores or [None] * len(phrase.boxes), strict=True
                )
            ],
        )
        for phrase in reply.phrases
    ]
    doubts = reply.doubts if isinstance(reply, Caption) else ()
    return schemas.Result(
        text=reply.text,
        phrases=phrases,
        absent=reply.absent if isinstance(reply, Found) else None,
        absent_phrases=[
            {
                "start": it.start,
                "end": it.end,
                "text": reply.text[it.start : it.end],
                "absent": it.absent,
            }
            for it in doubts
        ],
        mean_logprob=reply.mean_logprob,
        stop=str(reply.stop),  # type: ignore[arg-type]
        markup=reply.trace.markup,
    )


def _drawn(picture: Picture, replies: Sequence[Reply]) -> str:
    image = picture.image
    for grounded in (reply.grounded for reply in replies):
        image = draw(image, grounded) if grounded.phrases else image
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 2)
