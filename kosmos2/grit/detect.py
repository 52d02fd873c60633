"""From a recipe's `[detection]` to a detector that is ready."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kosmos2.api import Kosmos2, Settings
from kosmos2.grit import dino, owl, remote
from kosmos2.grit.detectors import Detector, Oracle
from kosmos2.grit.glip import detector as glip
from kosmos2.grit.kosmos import Kosmos2Detector
from kosmos2.grit.recipe import Detection
from kosmos2.records.store import read
from kosmos2.weights.pretrained import resolve, weights_hash
from kosmos2.weights.tensors import sha256


def load(settings: Detection) -> Detector:
    """Return the detector that a recipe names, with its weights on its device."""
    match settings.name:
        case "kosmos2":
            return _kosmos2(settings)
        case "mm-grounding-dino" | "llmdet" | "grounding-dino":
            return dino.load(settings)
        case "owlv2":
            return owl.load(settings)
        case "glip":
            return glip.load(settings)
        case "remote":
            return remote.load(settings)
        case "oracle":
            truth = Path(settings.model)
            known = {str(record.id): record for record in read(truth)}
            return Oracle(known, f"{truth.name} sha256:{sha256(truth)}")


def identity(settings: Detection) -> Mapping[str, str]:
    """Return what the boxes of a recipe's detector depend on."""
    return load(settings).identity


def score(settings: Detection) -> str:
    """Return what the scores of a recipe's detector are, in a sentence; loads no weights."""
    match settings.name:
        case "kosmos2":
            return Kosmos2Detector.score
        case "mm-grounding-dino" | "llmdet" | "grounding-dino":
            return dino.GroundingDino.score
        case "owlv2":
            return owl.Owl.score
        case "glip":
            return glip.GlipDetector.score
        case "remote":
            return remote.load(settings).score
        case "oracle":
            return Oracle.score


def _kosmos2(settings: Detection) -> Kosmos2Detector:
    model = Kosmos2.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        settings=Settings(batch_size=settings.batch_size),
    )
    return Kosmos2Detector(model, weights_hash(resolve(settings.model)))
