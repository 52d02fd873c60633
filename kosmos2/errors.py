"""Every error raised on purpose, as one tree.

    Kosmos2Error
    ├── BoxError            corners that are no box
    ├── ConfigError         a setting that cannot work, a recipe key that does not exist
    ├── VocabularyError     a tokenizer folder or an id outside the vocabulary
    ├── MarkupError         grounded markup that breaks its grammar (strict reading only)
    ├── ImageError          a file that is no picture, or one that is refused
    ├── FetchError          a download that is refused or that failed
    ├── WeightsError        a checkpoint that does not match, cannot be read or is unsafe
    ├── RequestError        a question that cannot be asked (prompt too long, no image, ...)
    ├── RecordError         a grounded record that is not valid
    ├── SceneError          artwork missing or a scene that cannot be made
    ├── TrainingError       a run that cannot start, resume or go on
    └── MissingExtraError   an optional library is needed; the message names the pip command

A user's fault becomes one of these, with the values and the way out; our own fault is an `assert`.
"""


class Kosmos2Error(Exception):
    """Base of every error that this package raises on purpose."""


class BoxError(Kosmos2Error, ValueError):
    """Corners that are no box."""


class ConfigError(Kosmos2Error, ValueError):
    """A setting that cannot work."""


class VocabularyError(Kosmos2Error, ValueError):
    """A vocabulary file, token or id that does not fit."""


class MarkupError(Kosmos2Error, ValueError):
    """Grounded markup that breaks its grammar."""


class ImageError(Kosmos2Error, ValueError):
    """A picture that cannot or must not be opened."""


class FetchError(Kosmos2Error, ValueError):
    """A download that is refused or that failed."""

    kind = ""
    """One or two words for counts: "timeout", "http 404", "private address", ..."""
    retry_after = ""
    """How the server, answering 429 or 503, says when to come again."""


class WeightsError(Kosmos2Error, ValueError):
    """A checkpoint that does not match the model, or that is unsafe to read."""


class RequestError(Kosmos2Error, ValueError):
    """A question that cannot be asked of this model."""


class RecordError(Kosmos2Error, ValueError):
    """A grounded record that is not valid."""


class SceneError(Kosmos2Error, ValueError):
    """Artwork that is missing, or a scene that cannot be made."""


class TrainingError(Kosmos2Error, RuntimeError):
    """A run that cannot start, resume or go on."""


class MissingExtraError(Kosmos2Error, ImportError):
    """An optional library is needed; the message names the `pip install` to run."""


def one_line(value: object) -> str:
    """Return a text fit for a message: control characters, as in a file name, shown not obeyed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
