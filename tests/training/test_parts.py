"""What is frozen stays equal to the bit; low-rank layers merge into plain ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from blob_cases import NO_DROPOUT, RECIPE, trainer
from run_cases import changed

from kosmos2.errors import TrainingError
from kosmos2.training import checkpoint, lowrank, start
from kosmos2.training.recipe import TrainRecipe
from kosmos2.training.trainer import Trainer
from kosmos2.vocab.tokenizer import Tokenizer

SHORT = changed(RECIPE, "optimizer", steps=3, weight_decay=0.5)
LORA = changed(
    changed(NO_DROPOUT, "lora", rank=3, alpha=6.0, targets=("decoder.blocks.*", "*.key")),
    "optimizer",
    steps=4,
    warmup_steps=0,
)


def trained(recipe: TrainRecipe, folder: Path, tokenizer: Tokenizer) -> tuple[Trainer, set[str]]:
    """Return a finished run, and the names of the weights that it changed."""
    run = trainer(recipe, folder, tokenizer)
    before = {name: each.clone() for name, each in run.network.named_parameters()}
    run.train(lambda progress: None, lambda step, network: None)
    moved = {
        name for name, each in run.network.named_parameters() if not torch.equal(each, before[name])
    }
    return run, moved


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"vision": 0.0}, ("resampler.", "decoder.")),
        ({"resampler": 0.0, "decoder": 0.0, "embedding": 0.0}, ("vision.",)),
        ({"vision": 0.0, "resampler": 0.0, "decoder": 0.0}, ("decoder.embedding.",)),
        (
            {"vision": 0.0, "resampler": 0.0, "embedding": 0.0, "decoder_blocks": (1, 1)},
            ("decoder.blocks.1.",),
        ),
    ],
    ids=["no tower", "tower", "embedding", "last block"],
)
def test_only_the_parts_of_the_recipe_move(
    tmp_path: Path, tiny_tokenizer: Tokenizer, parts: dict[str, object], expected: tuple[str, ...]
) -> None:
    recipe = changed(changed(SHORT, "parts", **parts), "loss", patch_weight=1.0)
    run, moved = trained(recipe, tmp_path / "run", tiny_tokenizer)
    assert moved == {n for n, _ in run.network.named_parameters() if n.startswith(expected)}


def test_of_the_embedding_only_location_rows_move(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    recipe = changed(SHORT, "parts", embedding_rows="locations")
    run = trainer(recipe, tmp_path / "run", tiny_tokenizer)
    before = run.network.decoder.embedding.weight.detach().clone()
    run.train(lambda progress: None, lambda step, network: None)
    after, first = run.network.decoder.embedding.weight, tiny_tokenizer.vocabulary.first_location
    assert torch.equal(after[:first], before[:first])
    assert (after[first:] != before[first:]).any(dim=1).all()


def test_a_part_s_factor_scales_its_learning_rate(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    one = changed(NO_DROPOUT, "optimizer", steps=1, warmup_steps=0)
    recipe = changed(one, "parts", vision=0.01)
    runs = [
        trained(each, tmp_path / name, tiny_tokenizer)[0]
        for each, name in ((recipe, "slow"), (one, "fast"))
    ]
    new = trainer(recipe, tmp_path / "new", tiny_tokenizer).network
    slow, fast = (
        (run.network.vision.patches.weight - new.vision.patches.weight).abs().max() for run in runs
    )
    torch.testing.assert_close(slow, 0.01 * fast, rtol=0.05, atol=0)


def test_freezing_everything_is_refused(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    nothing = changed(RECIPE, "parts", vision=0.0, resampler=0.0, decoder=0.0, embedding=0.0)
    with pytest.raises(TrainingError, match="nothing to train"):
        trainer(nothing, tmp_path / "run", tiny_tokenizer)


def test_blocks_that_are_not_there_are_refused(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainingError, match=r"decoder_blocks is \[0, 2\].* 0 to 1"):
        trainer(changed(RECIPE, "parts", decoder_blocks=(0, 2)), tmp_path / "run", tiny_tokenizer)


def hidden(run: Trainer) -> torch.Tensor:
    network = run.network.eval()
    ids = torch.arange(4, 24).view(2, 10)
    return network(ids).hidden_BTD.detach()


def test_low_rank_layers_begin_as_nothing_move_alone_and_merge_into_the_same_outputs(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    plain = trainer(NO_DROPOUT, tmp_path / "plain", tiny_tokenizer)
    untouched = trainer(LORA, tmp_path / "untouched", tiny_tokenizer)
    assert torch.equal(hidden(untouched), hidden(plain))

    run, moved = trained(LORA, tmp_path / "run", tiny_tokenizer)
    assert moved == {name for name, _ in run.network.named_parameters() if "lora_" in name}
    assert "vision.blocks.0.key.lora_up" in moved

    merged = run.plain()
    assert merged is not None
    assert not any("lora" in name for name, _ in merged.named_parameters())
    ids = torch.arange(4, 24).view(2, 10)
    assert not torch.allclose(hidden(run), hidden(plain), atol=1e-4)
    torch.testing.assert_close(merged(ids).hidden_BTD.detach(), hidden(run))

    again = trainer(NO_DROPOUT, tmp_path / "again", tiny_tokenizer).network.eval()
    lowrank.merge_file(again, tmp_path / "run" / lowrank.FILE)
    torch.testing.assert_close(again(ids).hidden_BTD.detach(), hidden(run))
    assert not torch.equal(
        again.vision.blocks[0].key.weight, plain.network.vision.blocks[0].key.weight
    )


def test_a_run_with_low_rank_layers_resumes_and_can_be_started_from(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    run, _ = trained(LORA, tmp_path / "run", tiny_tokenizer)
    resumed = trainer(LORA, tmp_path / "run", tiny_tokenizer)
    resumed.resume()
    assert torch.equal(hidden(resumed), hidden(run))

    first = start.plain_weights(tmp_path / "run", checkpoint.last(tmp_path / "run"))
    next_run = Trainer(
        NO_DROPOUT, tmp_path / "next", run.plain() or run.network, run.teacher, [], first=first
    )
    torch.testing.assert_close(hidden(next_run), hidden(run))


def test_parts_beside_low_rank_layers_are_trained_whole(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    recipe = changed(LORA, "lora", also=("embedding",))
    _, moved = trained(recipe, tmp_path / "run", tiny_tokenizer)
    assert {name for name in moved if "lora_" not in name} == {"decoder.embedding.weight"}


def test_a_target_that_names_no_layer_is_refused_with_those_that_do(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    with pytest.raises(TrainingError, match=r"q_proj.*decoder\.blocks\.\*\.query"):
        trainer(changed(LORA, "lora", targets=("*.q_proj",)), tmp_path / "run", tiny_tokenizer)


def test_recomputed_blocks_give_the_same_bits(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    recipe = changed(SHORT, "parallel", recompute="blocks")
    ours, _ = trained(recipe, tmp_path / "recomputed", tiny_tokenizer)
    theirs, _ = trained(SHORT, tmp_path / "kept", tiny_tokenizer)
    for one, other in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_compiled_blocks_learn_the_same(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tracing alone, without a compiler for C++, which a user's machine may lack.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward: compile_(forward, backend="aot_eager"))
    recipe = changed(changed(NO_DROPOUT, "optimizer", steps=2), "parallel", compile="blocks")
    ours, moved = trained(recipe, tmp_path / "compiled", tiny_tokenizer)
    theirs, _ = trained(
        changed(recipe, "parallel", compile="none"), tmp_path / "not", tiny_tokenizer
    )
    assert moved
    for one, other in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_file_of_low_rank_layers_of_another_network_is_refused(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    run, _ = trained(LORA, tmp_path / "run", tiny_tokenizer)
    run.plain()
    shallow = dataclasses.replace(
        NO_DROPOUT,
        model=dataclasses.replace(
            NO_DROPOUT.model, text=dataclasses.replace(NO_DROPOUT.model.text, num_layers=1)
        ),
    )
    other = trainer(shallow, tmp_path / "other", tiny_tokenizer).network
    with pytest.raises(TrainingError, match=r"decoder\.blocks\.1\..* has no counterpart"):
        lowrank.merge_file(other, tmp_path / "run" / lowrank.FILE)
