from __future__ import annotations

from collections.abc import Iterator

import pytest
from webdemo_cases import EXAMPLES

from kosmos2.api import Kosmos2, Settings


@pytest.fixture(scope="session")
def shown_model() -> Kosmos2:
    """The embedded model: real answers about the example scenes."""
    return Kosmos2.load(device="cpu", dtype="fp32", settings=Settings(batch_size=8))


@pytest.fixture(scope="module")
def address(shown_model: Kosmos2) -> Iterator[str]:
    """Where the demo is, with the example scenes, for files of at most 200 kB and a megapixel."""
    pytest.importorskip("gradio", reason="needs the extra demo")
    from kosmos2.webdemo import Bounds, build, launch

    bounds = Bounds(max_bytes=200_000, max_pixels=1_000_000)
    page = build(shown_model, EXAMPLES, bounds)
    with launch(page, shown_model, host="127.0.0.1", port=0, bounds=bounds) as url:
        yield url
