"""What the detectors that run in torch share: numbers, hashes, work ahead, rows into candidates."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from kosmos2.api.loading import choose_device
from kosmos2.boxes import Box
from kosmos2.errors import ConfigError, MissingExtraError, RequestError, WeightsError, one_line
from kosmos2.grit.linking import Candidate
from kosmos2.grit.recipe import Detection
from kosmos2.weights import pretrained as files
from kosmos2.weights.tensors import sha256

T = TypeVar("T")
R = TypeVar("R")

Foreign: TypeAlias = Any
"""A model, tokenizer or class of transformers, whose types are not ours."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIGS = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
"""What boxes depend on besides the weights, where a folder has it; a hub's snapshot has them all
from the first look on, so that a hash of them does not change while a run goes on."""
AHEAD = 2
"""Batches whose pictures are scaled while the model looks at others."""


def transformers() -> Foreign:
    """Return the library, which is an extra."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError(
            'this detector needs transformers: pip install "kosmos2[detect]"'
        ) from None
    return transformers


def pretrained(opener: Foreign, model: str, key: str = "detection.model") -> Foreign:
    """Return `opener.from_pretrained(model)`; what is not there becomes an error about `key`."""
    try:
        return opener.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key}: cannot open {model!r} as {opener.__name__}: {error}. It must be a "
            "folder as transformers saves it, or a name on the hub that can be reached."
        ) from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the numbers that products are computed in; "auto" is fp16 on a GPU, else fp32."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ConfigError(
            f"detection.dtype must be one of {', '.join(['auto', *DTYPES])} for this detector, "
            f"got {name!r}"
        )
    return DTYPES[name]


def device_named(name: str) -> torch.device:
    """Return the device of that name, without looking whether it is here: a worker may have it."""
    if name == "auto":
        return choose_device(name)
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"detection.device {name!r} is none ({one_line(error)})") from error


def precision(settings: Detection) -> str:
    """Return the name of the numbers that products are computed in."""
    chosen = choose_dtype(settings.dtype, device_named(settings.device))
    return next(name for name, kind in DTYPES.items() if kind == chosen)


def of_files(model: str, key: str = "detection.model") -> dict[str, str]:
    """Return the hashes of a model's weights and of its settings; loads nothing.

    A name on the hub is that of the library's own cache, where `pretrained` finds it, too.
    """
    try:
        folder = files.resolve(model)
        weights = files.weights_hash(folder)
    except (WeightsError, OSError) as error:
        raise ConfigError(f"{key}: {error}") from error
    digest = hashlib.sha256()
    for path in (folder / name for name in CONFIGS):
        if path.is_file():
            digest.update(f"{sha256(path)}  {path.name}\n".encode())
    return {"weights": weights, "config": f"sha256:{digest.hexdigest()}"}


def computing_in(
    dtype: torch.dtype, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which products are computed in `dtype`.

    Weights, norms and boxes stay in fp32: the corners of a box in bf16 would be off by pixels.
    """
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def weights_hash(model: torch.nn.Module) -> str:
    """Return `sha256:` and the hash of all names and numbers of a model, wherever it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        numbers = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(numbers.view(torch.uint8).numpy())
    return f"sha256:{digest.hexdigest()}"


def ahead(items: Iterable[T], prepare: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Yield each item with what `prepare` made of it, in order; a few are made ahead in threads."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for item in items:
            waiting.append((item, pool.submit(prepare, item)))
            if len(waiting) > AHEAD:
                first, made = waiting.popleft()
                yield first, made.result()
        for item, made in waiting:
            yield item, made.result()


def surest(
    scores_BNQ: Tensor, boxes_BQ4: Tensor, rows_per_phrase: int
) -> tuple[list[list[list[float]]], list[list[list[list[float]]]]]:
    """Return the highest scores of each phrase and their boxes as lists, the surest first.

    Boxes are (centre x, centre y, width, height) and remain so.
    """
    if not (scores_BNQ.isfinite().all() and boxes_BQ4.isfinite().all()):
        raise RequestError(
            "the detector computed numbers that are not finite; with detection.dtype = fp16 this "
            "is too large a number: use bf16 or fp32"
        )
    rows = min(rows_per_phrase, scores_BNQ.shape[-1])
    top_BNK, index_BNK = scores_BNQ.topk(rows, dim=-1)
    index_BN4K = index_BNK[:, :, None].expand(-1, -1, 4, -1)
    boxes_BN4Q = boxes_BQ4.transpose(1, 2)[:, None].expand(-1, index_BNK.shape[1], -1, -1)
    return top_BNK.tolist(), boxes_BN4Q.gather(3, index_BN4K).transpose(2, 3).tolist()


def candidates(
    phrase: int, scores: Sequence[float], boxes: Sequence[Sequence[float]]
) -> Iterator[Candidate]:
    """Yield a phrase's boxes from normalised (centre x, centre y, width, height), clipped.

    Boxes outside the picture and scores of 0 are no candidates.
    """
    for score, (x, y, width, height) in zip(scores, boxes, strict=True):
        x0, x1 = _clip(x - width / 2), _clip(x + width / 2)
        y0, y1 = _clip(y - height / 2), _clip(y + height / 2)
        if score > 0 and x0 < x1 and y0 < y1:
            yield Candidate(phrase=phrase, box=Box(x0, y0, x1, y1), score=min(score, 1.0))


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
