"""From a recipe's `[detection]` to a detector that is ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kosmos2.errors import ConfigError
from kosmos2.grit import dino, kosmos, owl, remote
from kosmos2.grit.detectors import Detector, Oracle
from kosmos2.grit.glip import detector as glip
from kosmos2.grit.kosmos import Kosmos2Detector
from kosmos2.grit.recipe import Detection
from kosmos2.records.store import read
from kosmos2.weights.tensors import sha256


def load(settings: Detection) -> Detector:
    """Return the detector that a recipe names, with its weights on its device."""
    match settings.name:
        case "kosmos2":
            return kosmos.load(settings)
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
            return Oracle(known, _truth(truth))


def identity(settings: Detection) -> Mapping[str, str]:
    """Return what the boxes of a recipe's detector depend on, as `load` would say it.

    Weights are not loaded for it.
    """
    match settings.name:
        case "kosmos2":
            return kosmos.identity(settings)
        case "mm-grounding-dino" | "llmdet" | "grounding-dino":
            return dino.identity(settings)
        case "owlv2":
            return owl.identity(settings)
        case "glip":
            return glip.identity(settings)
        case "remote":
            return remote.load(settings).identity
        case "oracle":
            return {"detector": "oracle", "model": _truth(Path(settings.model))}


def settled(settings: Detection, identity: Mapping[str, str]) -> Detection:
    """Return the settings with which any machine computes in the numbers of an identity."""
    known = settings.dtype == "auto" and "precision" in identity
    return replace(settings, dtype=identity["precision"]) if known else settings


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


def _truth(path: Path) -> str:
    try:
        return f"{path.name} sha256:{sha256(path)}"
    except OSError as error:
        raise ConfigError(
            f"detection.model: {path} cannot be read ({error.strerror}); an oracle's is the file "
            "of the true records"
        ) from error
