"""The GPU benchmark walks on a CPU, says what it lacks, and counts its bytes rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_card import missing
from benchmarks.gpu_stages import Goal, bytes_of_step
from kosmos2.kernels.kind import Precision
from kosmos2.model import ModelConfig


@pytest.mark.slow
def test_a_tiny_walk_on_a_cpu_tells_every_table_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    assert gpu.main(["--tiny", "--device", "cpu", "--sweep", "--page", str(page)]) == 0
    said = capsys.readouterr().out
    titles = [line.removeprefix("## ") for line in said.splitlines() if line.startswith("## ")]
    assert titles == [
        "Decoding, one row",
        "Decoding, more rows",
        "Vision and prefill, 2 pictures",
        "Captions, offline",
        "Goals",
        "Where 3 steps of one row in bf16 spend their time",
    ]
    for name in ("bf16", "fp16", "int8", "fp8"):
        assert f"| ours {name}, on the device |" in said
    assert not page.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_in_one_line_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--page", str(tmp_path / "page.md")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and said[0].startswith("nothing was measured: ")
    assert not (tmp_path / "page.md").exists()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "without CUDA" in str(missing())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(missing())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "Triton" in str(missing())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert missing() is None


def test_a_step_reads_every_matrix_once_and_the_memory_of_every_row() -> None:
    config = ModelConfig()
    matrices = 24 * 50_331_648 + 65_037 * 2048
    assert bytes_of_step(config, Precision.BF16, 1, 0) == 2 * matrices
    assert bytes_of_step(config, Precision.INT8, 1, 0) == matrices
    per_token = 24 * 2 * 2048 * 2
    more = bytes_of_step(config, Precision.FP8, 4, 100) - bytes_of_step(config, Precision.FP8, 1, 0)
    assert more == 400 * per_token


def test_a_goal_is_reached_at_its_number() -> None:
    assert Goal(name="", wanted=15, found=15, unit="").reached
    assert not Goal(name="", wanted=15, found=14.9, unit="").reached
