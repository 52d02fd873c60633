"""Resumed = uninterrupted, learning learns, and what a run writes is whole."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path

import pytest
import torch
from blob_cases import RECIPE, trainer
from torch import Tensor

from kosmos2.data.collate import Batch, Row, collate
from kosmos2.data.sources import Source
from kosmos2.errors import TrainingError
from kosmos2.training import failure
from kosmos2.training.loss import Losses
from kosmos2.training.meter import Progress
from kosmos2.training.recipe import (
    LossRecipe,
)
from kosmos2.training.trainer import Trainer
from kosmos2.vocab.tokenizer import Tokenizer


class Four:
    """The first four samples of a source, again and again."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def row(self, index: int) -> Row:
        return self.source.row(index % 4)


def losses_of(run: Trainer, stop: int | None = None) -> list[tuple[float, float]]:
    seen: list[tuple[float, float]] = []

    def report(progress: Progress) -> None:
        seen.append((progress.text_loss, progress.location_loss))
        if progress.step == stop:
            raise KeyboardInterrupt

    try:
        run.train(report, lambda step, network: None)
    except KeyboardInterrupt:
        assert stop is not None
    return seen


def test_a_killed_run_resumes_with_the_bits_of_the_uninterrupted_one(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    whole_run = trainer(RECIPE, tmp_path / "whole", tiny_tokenizer)
    whole = losses_of(whole_run)

    losses_of(trainer(RECIPE, tmp_path / "killed", tiny_tokenizer), stop=8)
    resumed_run = trainer(RECIPE, tmp_path / "killed", tiny_tokenizer)
    resumed_run.resume()

    assert resumed_run.step == 5  # the last checkpoint before the kill
    assert losses_of(resumed_run) == whole[5:]
    for ours, theirs in zip(
        resumed_run.network.parameters(), whole_run.network.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_workers_change_no_sample_and_no_loss(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    run = dataclasses.replace(RECIPE.run, workers=2)
    parallel = dataclasses.replace(RECIPE, run=run)

    assert losses_of(trainer(parallel, tmp_path / "two", tiny_tokenizer)) == losses_of(
        trainer(RECIPE, tmp_path / "none", tiny_tokenizer)
    )


def test_the_same_question_learns_a_different_answer_for_every_picture(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    text = dataclasses.replace(RECIPE.model.text, dropout=0.0, attention_dropout=0.0)
    recipe = dataclasses.replace(
        RECIPE,
        optimizer=dataclasses.replace(
            RECIPE.optimizer, steps=120, learning_rate=1e-2, warmup_steps=10, accumulation=1
        ),
        loss=LossRecipe(patch_weight=0.5),
        model=dataclasses.replace(RECIPE.model, text=text),
        run=dataclasses.replace(RECIPE.run, log_every=30, checkpoint_every=1000),
    )
    run = trainer(recipe, tmp_path / "learning", tiny_tokenizer)
    run.sources = [Four(run.sources[0])]

    losses = losses_of(run)

    blind = 1.386 / 2  # ln 4 for the first corner; the second follows from it
    assert losses[-1][1] < 0.3 * blind


def test_a_checkpoint_of_another_recipe_is_refused(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    trainer(RECIPE, tmp_path / "run", tiny_tokenizer).save()
    other = dataclasses.replace(RECIPE, seed=6)
    with pytest.raises(TrainingError, match="another recipe"):
        trainer(other, tmp_path / "run", tiny_tokenizer).resume()


def test_a_run_may_be_lengthened(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    trainer(RECIPE, tmp_path / "run", tiny_tokenizer).save()
    longer = dataclasses.replace(RECIPE, optimizer=dataclasses.replace(RECIPE.optimizer, steps=20))
    trainer(longer, tmp_path / "run", tiny_tokenizer).resume()


def test_resuming_nothing_says_so(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainingError, match="without --resume"):
        trainer(RECIPE, tmp_path / "empty", tiny_tokenizer).resume()


def test_the_log_has_every_step_with_text_and_location_loss_apart(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    losses = losses_of(trainer(RECIPE, tmp_path / "run", tiny_tokenizer))
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [(line["text_loss"], line["location_loss"]) for line in lines] == losses


def test_a_step_over_several_batches_has_the_gradient_of_one_batch_of_all_their_rows(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    text = dataclasses.replace(RECIPE.model.text, dropout=0.0, attention_dropout=0.0)
    recipe = dataclasses.replace(
        RECIPE,
        model=dataclasses.replace(RECIPE.model, text=text),
        loss=LossRecipe(location_spread=0.5, location_weight=0.3, patch_weight=0.5),
        optimizer=dataclasses.replace(RECIPE.optimizer, steps=1, warmup_steps=0, clip=1e9),
    )
    run = trainer(recipe, tmp_path / "run", tiny_tokenizer)
    batch = collate([run.sources[0].row(index) for index in range(8)], multiple=16)
    whole = run.losses(batch, run.totals([batch])).objective
    expected = torch.autograd.grad(whole, list(run.network.parameters()))

    losses_of(run)

    for parameter, gradient in zip(run.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_bf16_computes_near_fp32_and_keeps_the_weights_in_fp32(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    half = dataclasses.replace(RECIPE, run=dataclasses.replace(RECIPE.run, precision="bf16"))
    in_bf16 = trainer(half, tmp_path / "bf16", tiny_tokenizer)
    with torch.no_grad():
        in_bf16.network.eval()
        batch = collate([in_bf16.sources[0].row(index) for index in range(4)], multiple=16)
        rough = in_bf16.losses(batch, in_bf16.totals([batch])).objective
        in_bf16.recipe = RECIPE
        exact = in_bf16.losses(batch, in_bf16.totals([batch])).objective
        in_bf16.recipe = half
    assert rough != exact
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)

    losses = losses_of(in_bf16)
    assert losses[-1][1] < losses[0][1]
    assert {each.dtype for each in in_bf16.trained.parameters()} == {torch.float32}


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_reaches_a_weight(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    run = trainer(RECIPE, tmp_path / "run", tiny_tokenizer)
    before = {name: weight.clone() for name, weight in run.network.named_parameters()}
    run.loss.location_weight = float("inf")

    with pytest.raises(TrainingError, match=r"step 1: the gradient is not finite .* start_from"):
        losses_of(run)

    for name, weight in run.network.named_parameters():
        assert torch.equal(weight, before[name]), name


def test_a_loss_that_is_not_finite_leaves_its_batches_in_a_file_that_gives_it_again(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    run = trainer(RECIPE, tmp_path / "run", tiny_tokenizer)
    with torch.no_grad():
        run.network.decoder.embedding.weight[tiny_tokenizer.vocabulary.eos] = float("nan")

    with pytest.raises(TrainingError, match=r"failure-000001-rank0\.pt") as caught:
        losses_of(run)

    assert "loss nan" in str(caught.value)
    found = failure.read(tmp_path / "run/failure-000001-rank0.pt")
    assert (found.step, len(found.batches)) == (1, 2)
    assert all(math.isnan(each) for each in found.objectives)
    again = run.losses(found.batches[1], run.totals(found.batches))
    assert not again.objective.isfinite()


def test_a_file_that_holds_no_batches_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "failure.pt").write_bytes(b"none")
    with pytest.raises(TrainingError, match=r"holds no batches of ours") as caught:
        failure.read(tmp_path / "failure.pt")
    assert "\n" not in str(caught.value)


def test_speed_and_waiting_leave_checkpoints_and_evaluations_out(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that stands still but for data (1 s a batch), gradients (2 s) and evaluation (100 s).
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    often = dataclasses.replace(RECIPE.run, evaluate_every=1, checkpoint_every=1, log_every=3)
    run = trainer(dataclasses.replace(RECIPE, run=often), tmp_path / "run", tiny_tokenizer)
    row, losses = run.sources[0].row, run.losses

    def slow_row(index: int) -> Row:
        clock[0] += 0.25
        return row(index)

    def slow_losses(batch: Batch, totals_3: Tensor) -> Losses:
        clock[0] += 2
        return losses(batch, totals_3)

    monkeypatch.setattr(run.sources[0], "row", slow_row)
    monkeypatch.setattr(run, "losses", slow_losses)
    seen: list[Progress] = []
    run.train(seen.append, lambda step, network: clock.__setitem__(0, clock[0] + 100))

    assert [each.waiting_share for each in seen] == pytest.approx([1 / 3] * 4)
    assert [each.pictures_per_second for each in seen] == pytest.approx([4 / 3] * 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_resumed_run_draws_the_same_dropout(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    def on_gpu() -> Trainer:
        run = trainer(RECIPE, tmp_path / "gpu", tiny_tokenizer)
        return Trainer(RECIPE, run.folder, run.network.cuda(), run.teacher, run.sources)

    first = on_gpu()
    first.save()
    drawn = torch.rand(8, device="cuda")
    on_gpu().resume()
    assert torch.equal(torch.rand(8, device="cuda"), drawn)
    losses = losses_of(first)
    assert losses[-1][1] < losses[0][1]
