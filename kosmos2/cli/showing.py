"""What becomes of answers: a table or JSON on standard output, drawings, crops and a page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kosmos2.cli.console import say
from kosmos2.errors import RequestError
from kosmos2.grounding.page import PageItem, page
from kosmos2.grounding.render import colour, crops, draw
from kosmos2.grounding.spans import GroundedText, Malformed, Phrase
from kosmos2.tasks import Task

if TYPE_CHECKING:
    from kosmos2.api import Question, Reply

DRAWABLE = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where answers go besides standard output."""

    as_json: bool = False
    draw: Path | None = None
    crops: Path | None = None
    page: Path | None = None
    into_folder: bool = field(default=True)
    """Whether `draw` is a folder."""


def outputs(
    num_pictures: int,
    *,
    as_json: bool,
    draw: Path | None,
    crops: Path | None,
    page: Path | None,
) -> Outputs:
    """Return where answers go; refuse what cannot be written before anything is computed."""
    into_folder = draw is None or draw.is_dir() or not draw.suffix
    if draw is not None and not into_folder:
        if draw.suffix.lower() not in DRAWABLE:
            raise RequestError(
                f"cannot draw into {draw.name}: use one of {', '.join(DRAWABLE)}, or a folder"
            )
        if num_pictures > 1:
            raise RequestError(
                f"{draw} is one file for {num_pictures} pictures; name a folder after --draw"
            )
    for folder in (draw if into_folder else None, crops):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise RequestError(f"{folder} is a file; name a folder there, or a new one")
    if page is not None and page.is_dir():
        raise RequestError(
            f"{page} is a folder; name the page's file, such as {page / 'page.html'}"
        )
    return Outputs(as_json, draw, crops, page, into_folder)


class Show:
    """Shows the answers of one picture after the other."""

    def __init__(self, outputs: Outputs, *, model: str) -> None:
        self._outputs = outputs
        self._model = model
        self._stems: set[str] = set()
        self._items: list[PageItem] = []

    def answers(
        self,
        name: str,
        image: Image.Image,
        questions: "Sequence[Question[Reply]]",
        replies: "Sequence[Reply]",
    ) -> None:
        """Show all answers about one picture."""
        if self._outputs.as_json:
            say(json.dumps(_as_dict(name, self._model, questions, replies)))
        else:
            _print(name, questions, replies)
        self._write(name, image, joined(replies))

    def failure(self, name: str, reason: str) -> None:
        """Say in JSON that a picture has no answers; the error line itself is on standard error."""
        if self._outputs.as_json:
            say(json.dumps({"image": name, "error": reason}))

    def finish(self) -> None:
        """Write the page of all pictures shown."""
        if self._outputs.page is not None and self._items:
            self._outputs.page.parent.mkdir(parents=True, exist_ok=True)
            self._outputs.page.write_text(page(self._items), encoding="utf-8")

    def _write(self, name: str, image: Image.Image, grounded: GroundedText) -> None:
        stem = self._unused(Path(name).stem if name != "-" else "stdin")
        if (target := self._outputs.draw) is not None:
            if self._outputs.into_folder:
                target = target / f"{stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(image, grounded).save(target)
        if self._outputs.crops is not None:
            self._outputs.crops.mkdir(parents=True, exist_ok=True)
            for crop_name, crop in crops(image, grounded):
                crop.save(self._outputs.crops / f"{stem}-{crop_name}.png")
        if self._outputs.page is not None:
            self._items.append(PageItem(name=Path(name).name, image=image, grounded=grounded))

    def _unused(self, stem: str) -> str:
        """Return a name that no picture before had: pictures of several folders may share one."""
        count, name = 1, stem
        while name.lower() in self._stems:
            count += 1
            name = f"{stem}-{count}"
        self._stems.add(name.lower())
        return name


def joined(replies: "Sequence[Reply]") -> GroundedText:
    """Return all answers about a picture as one text."""
    text = ""
    phrases: list[Phrase] = []
    malformed: list[Malformed] = []
    for reply in replies:
        text += "; " if text else ""
        for phrase in reply.phrases:
            moved = replace(phrase, start=phrase.start + len(text), end=phrase.end + len(text))
            phrases.append(moved)
        text += reply.text
        malformed += reply.grounded.malformed
    return GroundedText(text=text, phrases=tuple(phrases), malformed=tuple(malformed))


def why_no_boxes(question: "Question[Reply]", reply: "Reply") -> str:
    """Return why an answer points at nothing."""
    absent: float | None = getattr(reply, "absent", None)
    if absent is not None:
        return f"not there, the model says, with probability {absent:.2f}"
    if not question.asks_for_boxes:
        return "no boxes: the prompt has no <grounding> tag, so words alone were asked for"
    if reply.grounded.malformed:
        return f"no boxes: what the model wrote is malformed ({_faults(reply.grounded)})"
    if reply.stop == "length":
        return "no boxes: the answer was cut off before one came"
    return "no boxes: the model tied no words to a place in the picture"


def _faults(grounded: GroundedText) -> str:
    return ", ".join(sorted({item.reason for item in grounded.malformed}))


def _as_dict(
    name: str,
    model: str,
    questions: "Sequence[Question[Reply]]",
    replies: "Sequence[Reply]",
) -> dict[str, object]:
    return {
        "image": name,
        "width": replies[0].trace.width,
        "height": replies[0].trace.height,
        "model": model,
        "task": str(questions[0].prompt.task),
        "answers": [reply.to_dict() for reply in replies],
    }


def _print(name: str, questions: "Sequence[Question[Reply]]", replies: "Sequence[Reply]") -> None:
    console = Console()
    size = f"  {replies[0].trace.width} x {replies[0].trace.height}"
    console.print(Text.assemble((name, "bold"), (size, "dim")), soft_wrap=True)
    for question, reply in zip(questions, replies, strict=True):
        if question.prompt.task is not Task.FIND or not reply.phrases:
            console.print(Text(reply.text or "(no words)"), soft_wrap=True)
        if question.prompt.task is not Task.ASK and not reply.phrases:
            console.print(Text(why_no_boxes(question, reply), style="dim"))
    grounded = joined(replies)
    if grounded.phrases:
        console.print(_table(grounded, replies[0]))
        if grounded.malformed:
            faults = f"not used as written: {_faults(grounded)}; --json has the details"
            console.print(Text(faults, style="dim"), soft_wrap=True)
    console.print()


def _table(grounded: GroundedText, reply: "Reply") -> Table:
    table = Table("phrase", "box in pixels", "score")
    for index, phrase in enumerate(grounded.phrases):
        words = Text(grounded.phrase_text(phrase) or "(no words)", style=colour(index))
        scores = [f"{score:.2f}" for score in phrase.scores] or ["" for _ in phrase.boxes]
        for box, score in zip(phrase.boxes, scores, strict=True):
            corners = ", ".join(f"{corner:.0f}" for corner in reply.in_pixels(box))
            table.add_row(words, corners, score)
            words = Text("")
    return table
