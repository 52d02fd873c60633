"""What stays, what is refused, what runs in the background, and what earlier releases wrote."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from blob_cases import RECIPE, trainer
from run_cases import changed

from kosmos2.errors import TrainingError
from kosmos2.training import checkpoint
from kosmos2.training.match import must_match
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.trainer import Trainer
from kosmos2.vocab.tokenizer import Tokenizer

EVERY = changed(changed(RECIPE, "run", checkpoint_every=1), "optimizer", steps=7)


def finish(run: Trainer) -> None:
    run.train(lambda progress: None, lambda step, network: None)


def assert_same(one: Trainer, other: Trainer) -> None:
    for ours, theirs in zip(one.trained.parameters(), other.trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, [6, 7]), ({"keep": 1}, [7]), ({"keep": 1, "keep_every": 3}, [3, 6, 7])],
)
def test_the_last_ones_stay_and_those_of_every_so_many_steps(
    tmp_path: Path, tiny_tokenizer: Tokenizer, settings: dict[str, int], expected: list[int]
) -> None:
    finish(trainer(changed(EVERY, "checkpoints", **settings), tmp_path, tiny_tokenizer))
    assert checkpoint.steps(tmp_path) == expected
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_written_in_the_background_resumes_with_the_bits_of_another(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    whole = trainer(EVERY, tmp_path / "whole", tiny_tokenizer)
    finish(whole)
    short = changed(EVERY, "run", checkpoint_every=3)
    short = changed(short, "checkpoints", asynchronous=True)

    def kill(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    killed = trainer(short, tmp_path / "killed", tiny_tokenizer)
    with pytest.raises(KeyboardInterrupt):
        killed.train(lambda progress: kill(progress.step), lambda step, network: None)
    killed.checkpoints.finish()
    resumed = trainer(short, tmp_path / "killed", tiny_tokenizer)
    resumed.resume()
    assert resumed.step == 3
    finish(resumed)
    assert_same(resumed, whole)


def old_file(run: Trainer, folder: Path, recipe: TrainRecipe) -> None:
    """Write what the release before wrote, whose recipes had fewer tables."""
    tree = must_match(recipe)
    for table in ("parts", "lora", "adapt"):
        del tree[table]
    del tree["optimizer"]["decayed"]
    state = {
        "recipe": tree,
        "trained": run.trained.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "step": run.step,
    }
    for group in state["optimizer"]["param_groups"]:  # type: ignore[index]
        del group["factor"]
    torch.save(state, folder / checkpoint.OLD_FILE)


def test_a_run_of_an_earlier_release_goes_on_with_the_same_bits(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    whole = trainer(EVERY, tmp_path / "whole", tiny_tokenizer)
    finish(whole)
    stopped = trainer(EVERY, tmp_path / "stopped", tiny_tokenizer)
    (tmp_path / "old").mkdir()

    def write(step: int) -> None:
        if step == 5:
            old_file(stopped, tmp_path / "old", EVERY)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.train(lambda progress: write(progress.step), lambda step, network: None)
    old = trainer(EVERY, tmp_path / "old", tiny_tokenizer)
    old.resume()
    assert old.step == 5
    finish(old)
    assert_same(old, whole)
    assert checkpoint.steps(tmp_path / "old") == [6, 7]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


def test_nothing_in_a_checkpoint_can_run_code(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    finish(trainer(EVERY, tmp_path, tiny_tokenizer))
    path = checkpoint.place(tmp_path, 7) / ".metadata"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TrainingError, match=r"names builtins\.exec"):
        trainer(EVERY, tmp_path, tiny_tokenizer).resume()
    with pytest.raises(TrainingError, match=r"names builtins\.exec"):
        checkpoint.weights(tmp_path, 7)


def test_objects_among_the_tensors_are_refused(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    run = trainer(EVERY, tmp_path, tiny_tokenizer)
    run.checkpoints.save(1, {"trained.network.decoder.norm.bias": Evil()}, must_match(EVERY))  # type: ignore[dict-item]
    run.checkpoints.finish()
    with pytest.raises(TrainingError):
        trainer(EVERY, tmp_path, tiny_tokenizer).resume()
