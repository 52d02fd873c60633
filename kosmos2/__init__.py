"""Grounded language about pictures: captions whose phrases have boxes, and boxes for phrases.

from kosmos2 import Kosmos2

model = Kosmos2.load()
caption = model.caption("photo.jpg")
print(caption.text, caption.phrases)
"""

from typing import TYPE_CHECKING

from kosmos2.boxes import Box
from kosmos2.errors import (
    BoxError,
    ConfigError,
    ImageError,
    Kosmos2Error,
    MarkupError,
    MissingExtraError,
    RecordError,
    RequestError,
    SceneError,
    TrainingError,
    VocabularyError,
    WeightsError,
)
from kosmos2.grounding import GroundedText

if TYPE_CHECKING:
    from kosmos2.api import Kosmos2

__version__ = "0.1.0"

__all__ = [
    "Box",
    "BoxError",
    "ConfigError",
    "GroundedText",
    "ImageError",
    "Kosmos2",
    "Kosmos2Error",
    "MarkupError",
    "MissingExtraError",
    "RecordError",
    "RequestError",
    "SceneError",
    "TrainingError",
    "VocabularyError",
    "WeightsError",
]


def __getattr__(name: str) -> object:
    """Import the model only when it is asked for: the text side and `--help` need no torch."""
    if name == "Kosmos2":
        from kosmos2.api import Kosmos2

        return Kosmos2
    raise AttributeError(f"module 'kosmos2' has no attribute {name!r}")
