"""What a job makes, as a value that travels to every worker: all that its files depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import kosmos2
from kosmos2.api.decoding import Decoding
from kosmos2.api.loading import choose_device, choose_precision
from kosmos2.weights.pretrained import resolve, weights_hash
from kosmos2.weights.quantized import stored_precision


class Task(StrEnum):
    """What is asked of every picture."""

    CAPTION = "caption"
    DETAIL = "detail"
    GROUND = "ground"
    FIND = "find"
    DESCRIBE = "describe"


class Making(StrEnum):
    """What is made of a picture besides its record."""

    DRAWING = "drawings"
    CROPS = "crops"
    THUMBNAIL = "thumbnails"
    """For pages that show many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    task: Task
    model: str
    """As the user names it."""
    weights: str
    """`sha256:` and the hash of the files of the weights."""
    device: str
    dtype: str
    decoding: Decoding
    phrases: tuple[str, ...] | None = None
    """What to find in every picture; None: what the row of each says."""
    allow_absent: bool = False
    """The model may say that a phrase is not there."""
    base: Path
    """The folder that paths in records start from. Absolute."""
    makings: frozenset[Making] = frozenset()
    code: str = field(default=f"kosmos2 {kosmos2.__version__}")

    def settings(self) -> dict[str, Any]:
        """Return as JSON all that the files of a unit depend on."""
        return {
            **{name: str(getattr(self, name)) for name in ("task", "model", "weights", "code")},
            "device": self.device,
            "dtype": self.dtype,
            "decoding": asdict(self.decoding),
            "phrases": None if self.phrases is None else list(self.phrases),
            "allow_absent": self.allow_absent,
            "paths from": str(self.base),
            "makings": sorted(self.makings),
        }

    def decoding_record(self) -> Mapping[str, Any]:
        """Return what provenance says of how answers were made: only what changes answers."""
        default = asdict(Decoding())
        changed = {
            name: value for name, value in asdict(self.decoding).items() if value != default[name]
        }
        changed.pop("batch_size", None)
        return {"dtype": self.dtype, "max_new_tokens": self.decoding.max_new_tokens, **changed}


def resolved(model: str, device: str, dtype: str) -> tuple[str, str, str]:
    """Return (weights hash, device, dtype): what "auto" means on this machine.

    Every worker is told these, so that all of them compute alike. A device that is named is not
    looked for here: a cluster may have what this machine lacks.
    """
    path = resolve(model)
    device = choose_device("auto").type if device == "auto" else device
    if dtype == "auto":
        stored = stored_precision(path) if path.is_dir() else None
        dtype = str(stored or choose_precision("auto", choose_device(device)))
    return weights_hash(path), device, dtype
