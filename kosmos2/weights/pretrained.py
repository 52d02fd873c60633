"""Names to ready models: the embedded one, a local path, a name on the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from kosmos2.errors import WeightsError
from kosmos2.model import ModelConfig, Network
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import fairseq, huggingface
from kosmos2.weights.mapping import HUGGINGFACE, ORIGINAL, Layout
from kosmos2.weights.quantized import refuse_other, stored_precision
from kosmos2.weights.tensors import TensorSource, assemble, sha256

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parent.parent / "embedded"

# Neither ./folder nor folder/kosmos-2.pt, which are paths, also when nothing is there.
_HUB_NAME = re.compile(r"(?!.*\.pt$)(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_SMALL_FILES = ("*.json", "sentencepiece.bpe.model", "dict.txt")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pretrained:
    """A network with its weights, in evaluation mode, and the tokenizer it was trained with."""

    network: Network
    tokenizer: Tokenizer
    name: str
    """What was asked for: "embedded", a path or a name on the hub."""
    files: tuple[Path, ...]
    """The files that hold the weights."""

    def sha256(self) -> Mapping[str, str]:
        """Return file name -> checksum. Reads the files: seconds for the full-size model."""
        return {path.name: sha256(path) for path in self.files}


def load_pretrained(
    name_or_path: str | Path = EMBEDDED, *, dtype: torch.dtype, device: torch.device
) -> Pretrained:
    """Return the model of that name: the embedded one, a folder, a `kosmos-2.pt`, a hub name."""
    checkpoint = open_checkpoint(resolve(name_or_path))
    tokenizer = checkpoint.read_tokenizer()
    network = assemble(
        checkpoint.config, checkpoint.layout, checkpoint.source, dtype=dtype, device=device
    )
    return Pretrained(
        network=network, tokenizer=tokenizer, name=str(name_or_path), files=checkpoint.files
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on disk, opened but not read."""

    folder: Path
    """Where the tokenizer's files are."""
    config: ModelConfig
    layout: Layout
    source: TensorSource
    files: tuple[Path, ...]

    def read_tokenizer(self) -> Tokenizer:
        """Return the tokenizer; refuses one that is not of these weights."""
        tokenizer = Tokenizer.from_folder(self.folder)
        huggingface.check_vocabulary(tokenizer, self.config, self.folder)
        return tokenizer


def open_checkpoint(path: Path) -> Checkpoint:
    """Return what is in a model folder or a fairseq file; refuses a folder of few bits.

    `quantized.read_quantized` opens that one.
    """
    if path.is_dir():
        refuse_other(path, "floating point")
        return Checkpoint(
            folder=path,
            config=huggingface.read_config(path),
            layout=HUGGINGFACE,
            source=huggingface.open_tensors(path),
            files=huggingface.weight_files(path),
        )
    config, source = fairseq.open_container(path)
    return Checkpoint(
        folder=path.parent, config=config, layout=ORIGINAL, source=source, files=(path,)
    )


def weights_hash(path: Path) -> str:
    """Return the hash of a weights file; of several files, that of their names and hashes."""
    files = [path]
    if path.is_dir():
        files = sorted(file for pattern in _WEIGHTS for file in path.glob(pattern))
    if len(files) == 1:
        return f"sha256:{sha256(files[0])}"
    listed = "".join(f"{sha256(file)}  {file.name}\n" for file in files)
    return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"


def resolve(name_or_path: str | Path) -> Path:
    """Return the folder or `.pt` file of a name; downloads what only the hub has."""
    if name_or_path == EMBEDDED:
        if not (EMBEDDED_FOLDER / "config.json").is_file():
            raise WeightsError(
                f"this installation has no embedded model in {EMBEDDED_FOLDER}. "
                "Reinstall kosmos2, or name a model folder or a hub model."
            )
        return EMBEDDED_FOLDER
    path = Path(name_or_path).expanduser()
    if path.is_dir() or (path.suffix == ".pt" and path.is_file()):
        return path
    if path.exists():
        raise WeightsError(
            f"{path} is neither a model folder nor a .pt file. For model.safetensors or "
            "pytorch_model.bin name their folder, which also holds the sizes and the tokenizer."
        )
    hub_name = _HUB_NAME.fullmatch(name_or_path) if isinstance(name_or_path, str) else None
    if hub_name is None:
        raise WeightsError(
            f"there is no file or folder {str(name_or_path)!r}, and it is no hub name either "
            "(owner/model, or owner/model@revision). Say nothing for the embedded model."
        )
    return download(hub_name["name"], hub_name["revision"] or "main")


def download(repository: str, revision: str) -> Path:
    """Return the local folder of a hub model, downloaded once, with progress on stderr.

    Files that are there already are used as they are, also without a connection.
    """
    try:
        folder = _snapshot(repository, revision, (*_SMALL_FILES, "model*.safetensors"))
        if not huggingface.weight_files(folder) and stored_precision(folder) is None:
            folder = _snapshot(repository, revision, (*_SMALL_FILES, "pytorch_model*.bin"))
    except Exception as error:  # of the hub, or of the HTTP library that its release uses
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(
            f"cannot get {repository} (revision {revision}) from the hub: {reason} "
            "There are three ways out: a connection and a name that exists (owner/model); "
            "a folder downloaded elsewhere, named by its path; or the embedded model, which "
            "needs no download."
        ) from error
    return folder


def _snapshot(repository: str, revision: str, patterns: tuple[str, ...]) -> Path:
    folder = snapshot_download(
        repository, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
    )
    return Path(folder)
