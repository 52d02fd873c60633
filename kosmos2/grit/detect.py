"""From a recipe's `[detection]` to a detector that is ready."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kosmos2.api import Kosmos2, Settings
from kosmos2.grit import dino, owl, remote
from kosmos2.grit.detectors import Detector, Oracle
from kosmos2.grit.kosmos import Kosmos2Detector
from kosmos2.grit.recipe import Detection
from kosmos2.records.store import read
from kosmos2.weights.pretrained import resolve
from kosmos2.weights.tensors import sha256

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""As `kosmos2.annotate.plan` has it; a test holds the two together."""


def load(settings: Detection) -> Detector:
    """Return the detector that a recipe names, with its weights on its device."""
    match settings.name:
        case "kosmos2":
            return _kosmos2(settings)
        case "mm-grounding-dino" | "llmdet" | "grounding-dino":
            return dino.load(settings)
        case "owlv2":
            return owl.load(settings)
        case "remote":
            return remote.load(settings)
        case "oracle":
            truth = Path(settings.model)
            known = {str(record.id): record for record in read(truth)}
            return Oracle(known, f"{truth.name} sha256:{sha256(truth)}")


def _kosmos2(settings: Detection) -> Kosmos2Detector:
    model = Kosmos2.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        settings=Settings(batch_size=settings.batch_size),
    )
    return Kosmos2Detector(model, _weights(resolve(settings.model)))


def _weights(path: Path) -> str:
    """Return `sha256:` and the hash of a weights file; of several, that of names and hashes."""
    files = [path]
    if path.is_dir():
        files = sorted(file for pattern in WEIGHTS for file in path.glob(pattern))
    if len(files) == 1:
        return f"sha256:{sha256(files[0])}"
    listed = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
