"""The editor's tests need no disk that holds: only one of them asks whether it would."""

import os

import pytest


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gather which files were synced, and do not wait for the disk."""
    files: list[int] = []
    monkeypatch.setattr(os, "fsync", files.append)
    return files
