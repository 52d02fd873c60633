"""The native kernels for tests: built once a run, into a folder of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kosmos2.errors import ConfigError, MissingExtraError
from kosmos2.kernels import native


@pytest.fixture(scope="session")
def native_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the kernels of these sources; workers of one run share it."""
    folder = tmp_path_factory.getbasetemp()
    # Under xdist each worker has a folder of its own inside the run's.
    shared = (folder.parent if folder.name.startswith("popen-") else folder) / "kosmos2-native"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOSMOS2_CACHE", str(shared))
        patch.delenv(native.SWITCH, raising=False)
        if not native.available():
            try:
                native.build()
            except (ConfigError, MissingExtraError) as error:
                pytest.skip(f"the native kernels cannot be built here: {str(error)[:200]}")
    return shared


@pytest.fixture
def built(native_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernels are there, in the processor's best set."""
    monkeypatch.setenv("KOSMOS2_CACHE", str(native_cache))
    monkeypatch.delenv(native.SWITCH, raising=False)
    return native_cache


@pytest.fixture(params=native.SETS)
def every_set(request: pytest.FixtureRequest, built: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One instruction set after the other, as far as this processor goes."""
    monkeypatch.setenv(native.SWITCH, request.param)
    if not native.available():
        pytest.skip(native.status())
    return str(request.param)
