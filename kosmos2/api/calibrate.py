"""Rounding that is fitted to what a model reads when it looks at pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from kosmos2.api import questions
from kosmos2.api.model import Kosmos2
from kosmos2.engine.runner import Runner
from kosmos2.errors import RequestError
from kosmos2.images import Source
from kosmos2.kernels.calibration import collect_moments, round_int4_calibrated
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import Linear
from kosmos2.kernels.quantized import Quantized, fits_int4
from kosmos2.weights.mapping import EMBEDDING
from kosmos2.weights.quantized import rounding_to

PHRASES = 4
"""So many phrases of a caption are found and described again."""
MEMORY = 4 << 30
"""Bytes of second moments that are held at a time; the pictures are looked at again for more."""


class CalibratedRounding:
    """Rounds to 4 bits by what the layers of a float model read during `run`.

    It is asked for one matrix after the other, by the names of `weights.fused`.
    """

    def __init__(self, model: Kosmos2, run: Callable[[Kosmos2], object]) -> None:
        runner = model.engine.runner
        if runner.precision.is_quantized or type(runner) is not Runner:
            raise RequestError(
                f"a {runner.precision} model cannot be calibrated with: its kernels do not tell "
                "what a layer reads. Load it in fp32."
            )
        self._model = model
        self._run = run
        self._layers = {
            name: layer for name, layer in _layers(model).items() if fits_int4(layer.in_features)
        }
        self._moments: Mapping[str, Tensor] = {}

    def __call__(self, name: str, weight_NK: Tensor) -> Quantized:
        """Return a matrix in 4 bits; what cannot have them, or was never read, as it comes."""
        layer = name.removesuffix(".weight")
        if name == EMBEDDING or layer not in self._layers:
            return self._plain(name, weight_NK)
        if layer not in self._moments:
            self._moments = {}
            self._moments = collect_moments(self._next(layer), lambda: self._run(self._model))
        if layer not in self._moments:
            return self._plain(name, weight_NK)
        return round_int4_calibrated(weight_NK, self._moments[layer])

    def _plain(self, name: str, weight_NK: Tensor) -> Quantized:
        return rounding_to(Precision.INT4)(name, weight_NK)

    def _next(self, first: str) -> dict[str, Linear]:
        """Return the layers from this one on whose moments fit into memory."""
        names = list(self._layers)
        chosen: dict[str, Linear] = {}
        size = 0
        for name in names[names.index(first) :]:
            size += 4 * self._layers[name].in_features ** 2
            if chosen and size > MEMORY:
                break
            chosen[name] = self._layers[name]
        return chosen


def look_around(model: Kosmos2, pictures: Sequence[Source]) -> None:
    """Caption pictures, briefly and in detail; find and describe what the captions name."""
    if not pictures:
        raise RequestError("calibration needs at least one picture")
    views = model.look(list(pictures))
    model.answer([((view,), questions.caption_in_detail()) for view in views])
    captions = model.answer([((view,), questions.caption()) for view in views])
    named = [
        (view, caption.text[phrase.start : phrase.end], phrase.boxes)
        for view, caption in zip(views, captions, strict=True)
        for phrase in caption.phrases[:PHRASES]
    ]
    vocabulary, grid = model.tokenizer.vocabulary, model.tokenizer.grid
    model.answer([((view,), questions.find(words, vocabulary)) for view, words, _ in named])
    model.answer(
        [((view,), questions.describe(boxes[0], grid)) for view, _, boxes in named if boxes]
    )


def _layers(model: Kosmos2) -> dict[str, Linear]:
    """Return the linear layers of a model's runner by the names of `weights.fused`, in order."""
    runner = model.engine.runner
    parts = {
        "vision": runner.vision,
        "resampler": runner.resampler,
        **{f"decoder.blocks.{number}": block for number, block in enumerate(runner.blocks)},
    }
    return {
        f"{prefix}.{name}": layer
        for prefix, part in parts.items()
        for name, layer in part.named_modules()
        if isinstance(layer, Linear)
    }
