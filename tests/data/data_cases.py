"""What tests of sources share: a tiny vision tower, pictures, and rows read back as text."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmos2.data.album import Album
from kosmos2.data.collate import Row
from kosmos2.data.frames import Frames
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Teacher
from kosmos2.data.opening import Reader, open_source
from kosmos2.data.recipe import SourceRecipe
from kosmos2.data.sources import Finite
from kosmos2.model.config import ModelConfig, TextConfig, VisionConfig

VISION = VisionConfig(
    width=8, feedforward_width=16, num_layers=1, num_heads=2, image_size=16, patch_size=4
)
MODEL = ModelConfig(
    vision=VISION,
    text=TextConfig(width=8, feedforward_width=16, num_layers=1, num_heads=2, max_positions=128),
    num_latents=3,
)
FRAMES = Frames(VISION, "squash")


def ramp(width: int = 40, height: int = 20, shift: int = 0) -> Image.Image:
    """A picture that is like no other and unlike its mirror."""
    values = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3) + shift
    return Image.fromarray((values % 251).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def opened(path: Path, teacher: Teacher, kind: str, **changes: Any) -> Finite:
    """The samples of a source, in the order of its file."""
    recipe = SourceRecipe(kind=kind, path=str(path), **changes)  # type: ignore[arg-type]
    cache = path.parent / "cache"
    return open_source(recipe, Reader(teacher, MODEL, cache), seed=0).finite


def sampled(source: Finite, number: int, seed: int = 0) -> Row | Rejected:
    return source.sample(number, np.random.default_rng(seed))


def row_of(source: Finite, number: int, seed: int = 0) -> Row:
    row = sampled(source, number, seed)
    assert isinstance(row, Row), row
    return row


def rejection(source: Finite, number: int, seed: int = 0) -> Rejected:
    row = sampled(source, number, seed)
    assert isinstance(row, Rejected)
    return row


def answers(row: Row, teacher: Teacher) -> list[str]:
    """The targets as text, answer by answer."""
    ends = [n for n, token in enumerate(row.targets, 1) if token == teacher.vocabulary.eos]
    starts = [0, *ends[:-1]]
    return [
        teacher.tokenizer.decode(row.targets[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


def album(root: Path) -> Album:
    return Album(root, root / "cache")


def square(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture as a model sees it in use, (3, 16, 16)."""
    return np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
