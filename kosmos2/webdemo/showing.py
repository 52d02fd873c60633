"""What the page is given to show, as values that JSON can hold. All HTML in them is escaped."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kosmos2.api import Question, Reply
from kosmos2.api.decoding import Decoding
from kosmos2.grounding.markup import literal
from kosmos2.grounding.page import boxes_html, caption_html, data_uri, paint
from kosmos2.grounding.render import draw
from kosmos2.images import Picture, open_picture
from kosmos2.tasks import Task
from kosmos2.webdemo.sitting import Bounds, Entry, Sitting

THUMBNAIL_SIDE = 160
JPEG_QUALITY = 92

NOTHING: dict[str, Any] = {"boxes": "", "caption": "", "rows": [], "note": ""}
"""An answer before there is one."""


def picture_value(sitting: Sitting, picture: Picture) -> dict[str, Any]:
    """Return an opened picture for the page: small enough for it, with its own size in pixels."""
    return {
        "uri": data_uri(picture.image),
        "name": sitting.name,
        "width": sitting.width,
        "height": sitting.height,
    }


def thumbnails(examples: Sequence[Path]) -> list[dict[str, str]]:
    """Return the example pictures, small."""
    return [
        {"uri": data_uri(open_picture(path).image, THUMBNAIL_SIDE), "name": path.name}
        for path in examples
    ]


def answer_value(reply: Reply, note: str = "") -> dict[str, Any]:
    """Return an answer, finished or not, for the page."""
    return {
        "boxes": boxes_html(reply.grounded),
        "caption": caption_html(reply.grounded),
        "rows": _rows(reply),
        "note": note,
    }


def note_of(question: Question[Reply], reply: Reply) -> str:
    """Return what a user should know of a finished answer; mostly nothing."""
    said = []
    if reply.stop == "length":
        said.append("The answer reached the most tokens allowed, and may be cut off.")
    if not reply.phrases and not question.asks_for_boxes and question.prompt.task is Task.MARKUP:
        said.append("No boxes: the prompt has no <grounding>, so only words were asked for.")
    elif not reply.phrases and question.prompt.task is not Task.ASK:
        said.append("No boxes: the model tied no words to a place in the picture.")
    if reply.grounded.malformed:
        reasons = sorted({fault.reason for fault in reply.grounded.malformed})
        said.append(f"Parts of the answer could not be used as written: {', '.join(reasons)}.")
    return " ".join(said)


def prompt_of(question: Question[Reply]) -> str:
    """Return the prompt as it was tokenised, tags and all."""
    return "".join(literal(segment) for segment in question.prompt.segments)


def entry_of(task: str, question: Question[Reply], reply: Reply, told: Decoding) -> Entry:
    """Return the line of the log for an answer."""
    chosen = "the most probable token each time"
    if told.temperature:
        chosen = f"drawn: temperature {told.temperature:g}, top-p {told.top_p:g}, seed {told.seed}"
    return Entry(
        task=task,
        prompt=prompt_of(question),
        settings=f"{chosen}; at most {told.max_new_tokens} tokens",
        markup=reply.trace.markup,
        stop=str(reply.stop),
    )


def log_value(log: Sequence[Entry]) -> list[dict[str, str]]:
    """Return the log for the page, the newest first."""
    return [asdict(entry) for entry in reversed(log)]


def files_value(sitting: Sitting, model: str, told: Decoding) -> dict[str, str]:
    """Return the last answer as files of text, by their kind."""
    reply, entry = sitting.reply, sitting.log[-1]
    assert reply is not None
    whole = {
        "image": sitting.name,
        "width": sitting.width,
        "height": sitting.height,
        "model": model,
        "task": entry.task,
        "prompt": entry.prompt,
        "decoding": {
            name: value
            for name, value in asdict(told).items()
            if name in ("max_new_tokens", "temperature", "top_p", "seed")
        },
        **reply.to_dict(),
    }
    return {
        "stem": Path(sitting.name).stem,
        "json": json.dumps(whole, ensure_ascii=False, indent=2) + "\n",
        "markup": f"{entry.prompt}{entry.markup}\n",
    }


def drawn_uri(sitting: Sitting, bounds: Bounds, threshold: float) -> str:
    """Return the picture at its own size as JPEG, with the boxes whose score is not below."""
    image = sitting.picture(bounds).image
    if sitting.reply is not None:
        image = draw(image, sitting.reply.grounded, threshold)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode('ascii')}"


def _rows(reply: Reply) -> list[dict[str, Any]]:
    """Return one row for each box: its phrase's number, words, place in pixels and score."""
    return [
        {
            "link": str(index),
            "words": reply.grounded.phrase_text(phrase) or f"box {index + 1}",
            "pixels": ", ".join(f"{corner:.0f}" for corner in reply.in_pixels(box)),
            "score": phrase.scores[number] if phrase.scores else None,
            "paint": paint(index),
        }
        for index, phrase in enumerate(reply.phrases)
        for number, box in enumerate(phrase.boxes)
    ]
