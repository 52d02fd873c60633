"""Pictures made ready for the vision tower, by other threads while it works."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from kosmos2.images import Source, open_picture, preprocess


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture as the vision tower reads it, and its own size in pixels."""

    pixels_CYX: Tensor
    width: int
    height: int


def prepare(source: Source, size: int) -> Prepared:
    """Return a picture as a square of `size` pixels."""
    picture = open_picture(source)
    return Prepared(preprocess(picture.image, size), picture.width, picture.height)


def prepare_ahead(
    sources: Sequence[Source], size: int, batch_size: int
) -> Iterator[list[Prepared]]:
    """Yield pictures by the batch, in order; the next batch is made while one is used."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        coming = [pool.submit(prepare, source, size) for source in sources[:batch_size]]
        for start in range(0, len(sources), batch_size):
            ready = [picture.result() for picture in coming]
            following = sources[start + batch_size : start + 2 * batch_size]
            coming = [pool.submit(prepare, source, size) for source in following]
            yield ready
