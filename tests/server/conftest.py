from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from kosmos2.api import Kosmos2, Settings
from kosmos2.server import Limits, create_app


@pytest.fixture(scope="session")
def served() -> Kosmos2:
    return Kosmos2.load(device="cpu", dtype="fp32", settings=Settings(batch_size=8))


@pytest.fixture(scope="module")
def client(served: Kosmos2) -> Iterator[TestClient]:
    with TestClient(create_app(served, Limits()), raise_server_exceptions=False) as client:
        yield client
