"""`caption`, `ground`, `find`, `describe` and `ask`: what a user asks of pictures."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.boxes import Box
from kosmos2.cli.asking import ModelChoice, ask_pictures
from kosmos2.cli.options import (
    BOX_HELP,
    CropsOption,
    Device,
    DeviceOption,
    DrawOption,
    Dtype,
    DtypeOption,
    ImagesArgument,
    JsonOption,
    ModelOption,
    PageOption,
    SetOption,
    Unit,
    UnitOption,
)
from kosmos2.cli.showing import outputs
from kosmos2.errors import RequestError

if TYPE_CHECKING:
    from kosmos2.api import Question, Reply, View


class Style(StrEnum):
    BRIEF = "brief"
    DETAILED = "detailed"
    PLAIN = "plain"
    PLAIN_DETAILED = "plain-detailed"


def caption(
    images: ImagesArgument,
    style: Annotated[
        Style, typer.Option("--style", help="A sentence or a paragraph; plain: without boxes.")
    ] = Style.BRIEF,
    model: ModelOption = "embedded",
    as_json: JsonOption = False,
    draw: DrawOption = None,
    crops: CropsOption = None,
    page: PageOption = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Say what pictures show, with a box for each phrase.

    Example:  kosmos2 caption photo.jpg --draw photo-boxes.png
    """

    def asked(view: "View") -> "Sequence[Question[Reply]]":
        from kosmos2.api import questions

        return [
            {
                Style.BRIEF: questions.caption,
                Style.DETAILED: questions.caption_in_detail,
                Style.PLAIN: questions.plain_caption,
                Style.PLAIN_DETAILED: questions.plain_caption_in_detail,
            }[style]()
        ]

    where = outputs(len(images), as_json=as_json, draw=draw, crops=crops, page=page)
    ask_pictures(images, ModelChoice(model, device, dtype, overrides), asked, where)


def ground(
    images: ImagesArgument,
    text: Annotated[
        str, typer.Option("--caption", "-c", help="The caption to ground.", show_default=False)
    ],
    phrases: Annotated[
        list[str] | None,
        typer.Option(
            "--phrase",
            "-p",
            help="Words of the caption to find, in its order; without any, the model chooses.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = "embedded",
    as_json: JsonOption = False,
    draw: DrawOption = None,
    crops: CropsOption = None,
    page: PageOption = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Find the phrases of a caption that you give.

    Example:  kosmos2 ground photo.jpg --caption "a snowman by a fire"
    """

    def asked(view: "View") -> "Sequence[Question[Reply]]":
        from kosmos2.api import questions

        if not phrases:
            return [questions.ground(text, view.model.tokenizer)]
        spans = questions.spans_of(text, phrases)
        return [questions.ground_phrases(text, spans, view.model.tokenizer)]

    where = outputs(len(images), as_json=as_json, draw=draw, crops=crops, page=page)
    ask_pictures(images, ModelChoice(model, device, dtype, overrides), asked, where)


def find(
    images: ImagesArgument,
    phrases: Annotated[
        list[str],
        typer.Option("--phrase", "-p", help="What to look for; repeatable.", show_default=False),
    ],
    allow_absent: Annotated[
        bool,
        typer.Option(
            "--allow-absent",
            help="Let the model say that a phrase is not there. Read what its word is worth first.",
        ),
    ] = False,
    model: ModelOption = "embedded",
    as_json: JsonOption = False,
    draw: DrawOption = None,
    crops: CropsOption = None,
    page: PageOption = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Find where something is: always a best guess; the score says how sure it is.

    Example:  kosmos2 find photo.jpg --phrase "the red cup" --phrase "a dog"
    """

    def asked(view: "View") -> "Sequence[Question[Reply]]":
        from kosmos2.api import questions

        ask = questions.find_or_absent if allow_absent else questions.find
        return [ask(phrase, view.model.tokenizer.vocabulary) for phrase in phrases]

    where = outputs(len(images), as_json=as_json, draw=draw, crops=crops, page=page)
    ask_pictures(images, ModelChoice(model, device, dtype, overrides), asked, where)


def describe(
    images: ImagesArgument,
    boxes: Annotated[
        list[str],
        typer.Option("--box", "-b", help=f"{BOX_HELP} Repeatable.", show_default=False),
    ],
    unit: UnitOption = None,
    model: ModelOption = "embedded",
    as_json: JsonOption = False,
    draw: DrawOption = None,
    crops: CropsOption = None,
    page: PageOption = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Say what is inside a box.

    Example:  kosmos2 describe photo.jpg --box 34,12,310,200 --unit pixels
    """
    corners = [read_corners(box, unit) for box in boxes]

    def asked(view: "View") -> "Sequence[Question[Reply]]":
        from kosmos2.api import questions

        grid = view.model.tokenizer.grid
        return [questions.describe(box_of(each, unit, view), grid) for each in corners]

    where = outputs(len(images), as_json=as_json, draw=draw, crops=crops, page=page)
    ask_pictures(images, ModelChoice(model, device, dtype, overrides), asked, where)


def ask(
    images: ImagesArgument,
    question: Annotated[
        str, typer.Option("--question", "-q", help="What to ask.", show_default=False)
    ],
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Let the answer point at things.")
    ] = False,
    box: Annotated[
        str | None,
        typer.Option("--box", "-b", help=f"Ask about {BOX_HELP}", show_default=False),
    ] = None,
    unit: UnitOption = None,
    words: Annotated[
        str, typer.Option("--words", help="The words of the question that mean the box.")
    ] = "it",
    model: ModelOption = "embedded",
    as_json: JsonOption = False,
    draw: DrawOption = None,
    crops: CropsOption = None,
    page: PageOption = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Ask a question about pictures, or about a box in them.

    Example:  kosmos2 ask photo.jpg --question "What is it?" --box 34,12,310,200 --unit pixels
    """
    corners = read_corners(box, unit) if box is not None else None

    def asked(view: "View") -> "Sequence[Question[Reply]]":
        from kosmos2.api import questions

        if corners is not None:
            place = box_of(corners, unit, view)
            return [questions.ask_about(question, words, place, view.model.tokenizer.grid)]
        return [questions.ask_grounded(question) if grounded else questions.ask(question)]

    where = outputs(len(images), as_json=as_json, draw=draw, crops=crops, page=page)
    ask_pictures(images, ModelChoice(model, device, dtype, overrides), asked, where)


Corners = tuple[float, float, float, float]


def read_corners(text: str, unit: Unit | None) -> Corners:
    """Return the four numbers of a --box; refuse them while their unit is unsaid."""
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(f"a box is four numbers x0,y0,x1,y1, got {text!r}") from None
    if unit is None:
        raise RequestError(
            f"say what the numbers of --box {text} are: --unit pixels or --unit normalised"
        )
    return x0, y0, x1, y1


def box_of(corners: Corners, unit: Unit | None, view: "View") -> Box:
    """Return the box that the numbers of a user mean in this picture."""
    if unit is Unit.PIXELS:
        return Box.from_pixels(corners, width=view.width, height=view.height)
    return Box(*corners)
