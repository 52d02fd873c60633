"""An item -> the questions of a task; their answers -> the record of the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kosmos2.annotate.plan import Plan, Task
from kosmos2.api import Found, Question, Reply, questions
from kosmos2.boxes import Box
from kosmos2.engine import StopReason
from kosmos2.errors import RequestError
from kosmos2.grounding.spans import GroundedText
from kosmos2.records.record import Grounded, GroundedRecord, Provenance
from kosmos2.sources.rows import Item
from kosmos2.vocab.tokenizer import Tokenizer

DIGITS = 4
"""Scores and logarithms of probabilities in records: what a batch of another size leaves alone."""
PROMPTS: Mapping[Task, str] = {
    Task.CAPTION: "<grounding>An image of",
    Task.DETAIL: "<grounding>Describe this image in detail:",
    Task.GROUND: "<grounding>{caption}",
    Task.FIND: "<grounding><phrase> {phrase}</phrase>",
    Task.DESCRIBE: "<grounding><phrase> It</phrase><object>{box}</object> is",
}
"""As provenance tells them; words in braces are of each picture."""
BETWEEN = "; "
"""Stands between several answers about one picture."""
_ANSWERED = ("caption", "noun_chunks", "ref_exps", "provenance")
_OWN = ("mean_logprob", "stop", "malformed", "absent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the file of a picture tells."""

    width: int
    height: int
    """Pixels of the upright picture."""
    sha256: str


def questions_about(
    item: Item, facts: Facts, plan: Plan, tokenizer: Tokenizer
) -> list[Question[Reply]]:
    """Return what is asked of a picture; RequestError or BoxError where that cannot be asked."""
    match plan.task:
        case Task.CAPTION:
            return [questions.caption()]
        case Task.DETAIL:
            return [questions.caption_in_detail()]
        case Task.GROUND:
            return [questions.ground(_needed(item.caption, Task.GROUND), tokenizer)]
        case Task.FIND:
            phrases = item.phrases if plan.phrases is None else plan.phrases
            ask = questions.find_or_absent if plan.allow_absent else questions.find
            wanted = dict.fromkeys(_needed(phrases, Task.FIND))
            return [ask(phrase, tokenizer.vocabulary) for phrase in wanted]
        case Task.DESCRIBE:
            boxes = _needed(item.boxes, Task.DESCRIBE)
            grid = tokenizer.grid
            return [questions.describe(_box(box, item, facts), grid) for box in boxes]


def lacking(item: Item, plan: Plan) -> str:
    """Return what an item lacks for the task, "" where it has all."""
    match plan.task:
        case Task.GROUND if not item.caption:
            return "there is no caption to ground, neither in a column nor in a .txt beside it"
        case Task.FIND if plan.phrases is None and not item.phrases:
            return "there are no phrases to find: give --phrases FILE, or a column `phrases`"
        case Task.DESCRIBE if not item.boxes:
            return "there are no boxes to describe: give records, or a column `boxes`"
    return ""


def record_of(
    item: Item, facts: Facts, asked: Sequence[Question[Reply]], replies: Sequence[Reply], plan: Plan
) -> GroundedRecord:
    """Return the record that says what was answered, and what the source had besides."""
    grounded, malformed = _joined(replies)
    provenance = Provenance(
        model=plan.model,
        weights=plan.weights,
        task=str(plan.task),
        prompt=PROMPTS[plan.task],
        decoding=plan.decoding_record(),
        code=plan.code,
    )
    made = {
        "caption": grounded.text,
        "noun_chunks": None,
        "ref_exps": _entries(grounded),
        "provenance": provenance,
    }
    image, shard = item.place.in_record(plan.base) if item.place else (None, None)
    url = item.source.get("url")
    return GroundedRecord(
        **made,  # type: ignore[arg-type]
        id=item.id,
        image=image,
        shard=shard,
        url=url if isinstance(url, str) else None,
        sha256=facts.sha256,
        width=facts.width,
        height=facts.height,
        extra={**_carried(item.source, grounded.text), **_said(replies), **malformed},
    )


def _box(corners: tuple[float, float, float, float], item: Item, facts: Facts) -> Box:
    if item.in_pixels:
        return Box.from_pixels(corners, width=facts.width, height=facts.height)
    return Box(*corners)


def _needed(value: Any, task: Task) -> Any:  # noqa: ANN401 (of whichever kind the task needs)
    if not value:
        raise RequestError(f"the task {task} has nothing to go on")
    return value


def _joined(replies: Sequence[Reply]) -> tuple[GroundedText, dict[str, Any]]:
    """Return all answers as one text, and what could not be used as written."""
    text, phrases, malformed = "", [], []
    for reply in replies:
        text += BETWEEN if text else ""
        for fault in reply.grounded.malformed:
            malformed.append({"reason": fault.reason, "detail": fault.detail})
        for phrase in reply.phrases:
            moved = replace(phrase, start=phrase.start + len(text), end=phrase.end + len(text))
            if not phrase.is_anonymous:
                phrases.append(moved)
                continue
            for box in phrase.boxes:  # a record has no place for boxes without words
                corners = ", ".join(f"{corner:g}" for corner in box.corners)
                malformed.append({"reason": "no_words", "detail": f"box {corners}"})
        text += reply.text
    return GroundedText(text=text, phrases=tuple(phrases)), (
        {"malformed": malformed} if malformed else {}
    )


def _entries(grounded: GroundedText) -> tuple[Grounded, ...]:
    entries = []
    for phrase in grounded.phrases:
        scores: list[float | None] = [round(score, DIGITS) for score in phrase.scores]
        for box, score in zip(phrase.boxes, scores or [None] * len(phrase.boxes), strict=True):
            entries.append(Grounded(phrase.start, phrase.end, *box.corners, score))
    return tuple(entries)


def _said(replies: Sequence[Reply]) -> dict[str, Any]:
    """Return how sure the model was of its words, and what was cut off."""
    sure = [round(reply.mean_logprob, DIGITS) for reply in replies]
    said: dict[str, Any] = {"mean_logprob": sure[0] if len(sure) == 1 else sure}
    if any(reply.stop is StopReason.LENGTH for reply in replies):
        said["stop"] = str(StopReason.LENGTH)
    absent = {
        reply.phrase: round(reply.absent, DIGITS)
        for reply in replies
        if isinstance(reply, Found) and reply.absent is not None
    }
    return {**said, "absent": absent} if absent else said


def _carried(source: Mapping[str, Any], caption: str) -> dict[str, Any]:
    """Return the source's other fields; what an answer replaced is kept under a name that says so.

    A caption that was grounded is still the caption, and needs no second name.
    """
    kept = {key: value for key, value in source.items() if key not in (*_ANSWERED, *_OWN, "url")}
    for key in (*_ANSWERED, *_OWN):
        value = source.get(key)
        if value is not None and not (key == "caption" and value.strip() == caption):
            kept[f"source_{key}"] = value
    return kept
