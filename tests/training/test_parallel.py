"""Two ranks learn what one does, whoever wrote the checkpoint; a rank that fails ends them all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kosmos2.training import checkpoint
from kosmos2.vocab.tokenizer import Tokenizer

HERE = Path(__file__).resolve().parent
# Batches of few rows, so that ranks have several, and now and then not equally many.
SETTINGS = (
    "optimizer.steps=6",
    "optimizer.batch_size=6",
    "optimizer.accumulation=1",
    "run.max_tokens=96",
    "run.checkpoint_every=3",
    "loss.patch_weight=0.5",
)
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start(out: Path, *settings: str, launcher: tuple[str, ...] = TWO, **environment: str) -> str:
    """Return what the run said; its losses and weights are in `out`."""
    paths = [str(HERE.parent.parent), str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *launcher, str(HERE / "rank_worker.py"), str(out), *SETTINGS, *settings],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise ChildProcessError(done.stdout + done.stderr)
    return done.stdout + done.stderr


def losses(out: Path) -> torch.Tensor:
    """Return text loss, location loss and norm of the gradient by step."""
    return torch.tensor(json.loads((out / "losses.json").read_text()))


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / "weights.pt", weights_only=True)
    return state


def new(folder: Path, tokenizer: Tokenizer) -> Path:
    folder.mkdir()
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """The run of one process."""
    out = new(tmp_path_factory.mktemp("one") / "run", tiny_tokenizer)
    start(out, launcher=())
    return out


def assert_like(out: Path, alone: Path, first: int = 0) -> None:
    torch.testing.assert_close(losses(out), losses(alone)[first:], rtol=1e-4, atol=1e-4)
    ours, theirs = weights(out), weights(alone)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)


def without_the_last_checkpoint(out: Path, copy: Path) -> Path:
    shutil.copytree(out, copy)
    assert checkpoint.steps(copy) == [3, 6]
    shutil.rmtree(checkpoint.place(copy, 6))
    return copy


@pytest.mark.parametrize(
    "settings",
    [
        ("parallel.kind=ddp",),
        ("parallel.kind=fsdp", "parallel.recompute=blocks", "checkpoints.asynchronous=true"),
    ],
    ids=["ddp", "fsdp"],
)
def test_two_ranks_learn_what_one_does_and_their_checkpoint_goes_on_with_one(
    tmp_path: Path, alone: Path, tiny_tokenizer: Tokenizer, settings: tuple[str, ...]
) -> None:
    out = new(tmp_path / "two", tiny_tokenizer)
    start(out, *settings)
    assert_like(out, alone)

    copy = without_the_last_checkpoint(out, tmp_path / "copy")
    start(copy, launcher=())
    assert_like(copy, alone, first=3)


def test_two_ranks_that_share_frozen_blocks_learn_the_same_low_rank_layers(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    out, alone = (new(tmp_path / name, tiny_tokenizer) for name in ("two", "one"))
    start(out, "lora.rank=2", "parallel.kind=fsdp")
    start(alone, "lora.rank=2", launcher=())
    assert_like(out, alone)
    assert not any("lora" in name for name in weights(out))  # they are merged


def test_a_checkpoint_of_one_rank_goes_on_with_two(tmp_path: Path, alone: Path) -> None:
    copy = without_the_last_checkpoint(alone, tmp_path / "copy")
    start(copy, "parallel.kind=fsdp")
    assert_like(copy, alone, first=3)


def test_a_rank_that_fails_ends_the_job_with_its_error(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    out = new(tmp_path / "two", tiny_tokenizer)
    with pytest.raises(ChildProcessError, match="no memory left on this rank"):
        start(out, "parallel.kind=ddp", FAILING_RANK="1")
    assert not (out / "losses.json").exists()
