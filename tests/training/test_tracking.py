"""TensorBoard's files, read back by its own reader."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from PIL import Image

from kosmos2.training.tracking import FOLDER, Board


@dataclasses.dataclass
class News:
    step: int
    loss: float
    mfu: float | None = None


def test_numbers_and_pictures_are_there_by_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path, 0)
    for step in (1, 2):
        board.numbers("train", News(step, 1 / step))
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "preview.png")
    board.picture(tmp_path / "preview.png", 2)
    board.close()

    events = EventAccumulator(str(tmp_path / FOLDER))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("train/loss")] == [(1, 1), (2, 0.5)]
    assert events.Tags()["scalars"] == ["train/loss"]
    assert [each.step for each in events.Images("preview")] == [2]


def test_without_the_library_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = Board(tmp_path, 0)
    board.numbers("train", News(1, 0.5))
    board.close()
    assert not list(tmp_path.iterdir())
