"""What requests and answers look like. Boxes are (x0, y0, x1, y1), their unit always said."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Corners = Annotated[list[float], Field(min_length=4, max_length=4)]
"""x0, y0, x1, y1: upper left and lower right."""


class Unit(StrEnum):
    PIXELS = "pixels"
    NORMALISED = "normalised"


class Strict(BaseModel):
    """A body in which a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Decoding(Strict):
    """How the answer is made; greedily, if nothing is said."""

    max_new_tokens: int | None = Field(
        default=None, ge=1, description="None: 256, or fewer where the server allows no more."
    )
    temperature: float = Field(default=0.0, ge=0, le=10)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**63)


class Asked(Strict):
    """What all questions share."""

    image: str = Field(
        description="The picture: base64, a data: URL, or (if allowed) an http(s) URL. In a "
        "multipart request, the file.",
        examples=["data:image/jpeg;base64,/9j/4AAQSkZJRg..."],
    )
    decoding: Decoding = Decoding()
    drawn: bool = Field(
        default=False, description="Whether to send back the picture with its boxes."
    )


class AskedCaption(Asked):
    detail: bool = Field(default=False, description="A paragraph instead of a sentence.")
    grounded: bool = Field(True, description="Whether phrases get boxes.")


class AskedGround(Asked):
    caption: str = Field(examples=["a dog next to a red ball"])
    phrases: list[str] = Field(
        [], description="Words of the caption, in its order; none: the model picks them."
    )
    allow_absent: bool = Field(default=False, description="Let a given phrase have no box.")


class AskedFind(Asked):
    phrases: list[str] = Field(min_length=1, examples=[["the red ball"]])
    allow_absent: bool = False


class AskedDescribe(Asked):
    boxes: list[Corners] = Field(min_length=1, examples=[[[10, 20, 200, 180]]])
    unit: Unit


class About(Strict):
    """Some words of a question that mean a box."""

    words: str
    box: Corners
    unit: Unit


class AskedAsk(Asked):
    question: str = Field(examples=["What colour is the ball?"])
    grounded: bool = Field(default=False, description="Let the answer point at things.")
    about: About | None = None


class PlacedBox(BaseModel):
    normalised: Corners
    """Fractions of the picture."""
    pixels: Corners
    """Of the upright picture as it was sent."""
    score: float | None
    """0 to 1: the model's probability of this place."""


class PlacedPhrase(BaseModel):
    text: str
    start: int
    """Characters [start, end) of the answer's text."""
    end: int
    boxes: list[PlacedBox]


class Result(BaseModel):
    """One answer."""

    text: str
    phrases: list[PlacedPhrase]
    absent: float | None = None
    """Find with allow_absent: how probable it is that the picture does not show it."""
    absent_phrases: list[dict[str, Any]] = []
    """Ground with allow_absent: of each given phrase start, end, text and that probability."""
    mean_logprob: float
    stop: Literal["eos", "length", "constraint", "cancelled"]
    markup: str
    """What the model wrote, with its tags and location tokens."""


class Timings(BaseModel):
    """Milliseconds."""

    waited: float
    picture: float
    """Opening, decoding and encoding it; little where it was seen before."""
    answer: float


class Answered(BaseModel):
    model: str
    width: int
    height: int
    """Pixels of the upright picture."""
    results: list[Result]
    """One; of find and describe, one for each phrase or box."""
    timings: Timings
    drawn: str | None = None
    """A PNG as base64."""


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "kosmos2"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
