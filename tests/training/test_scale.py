"""The arithmetic of large runs against networks that exist, and the page against the arithmetic."""

import dataclasses
from pathlib import Path

import pytest
import torch
from run_cases import RECIPE

from kosmos2.errors import TrainingError
from kosmos2.model import ModelConfig, Network
from kosmos2.model.decoder import DecoderBlock
from kosmos2.training import lowrank
from kosmos2.training.finetune import recipe_for
from kosmos2.training.recipe import LoraRecipe, ParallelRecipe
from kosmos2.training.scale import (
    KEPT_PER_WIDTH,
    Cluster,
    Work,
    estimate,
    fitting_tokens,
    low_rank_parameters,
    parameters,
    state_bytes,
    table,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training-at-scale.md"
PAIRS = Work(samples=2234, tokens=96, targets=30, micro_batch=32, kind="fsdp", recompute="none")


@pytest.mark.parametrize("config", [RECIPE.model, ModelConfig()], ids=["tiny", "full size"])
def test_the_weights_are_those_of_the_network(config: ModelConfig) -> None:
    with torch.device("meta"):
        network = Network(config)
    assert parameters(config) == sum(each.numel() for each in network.parameters())


def test_a_block_keeps_about_what_is_counted() -> None:
    text = dataclasses.replace(
        ModelConfig().text, width=256, feedforward_width=1024, num_heads=8,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    block, length = DecoderBlock(text), 64
    weights = {each.data_ptr() for each in block.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x_BTD = torch.randn(1, length, 256, requires_grad=True)
    mask = torch.ones(1, length, length, dtype=torch.bool).tril()
    copies = 3 * 2 * (4 * 256**2 + 2 * 256 * 1024)  # of weights in bf16, not activations
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16),
    ):
        block(x_BTD, mask)
    counted = length * (KEPT_PER_WIDTH * 256 + 4 * 1024) * 2
    measured = sum(kept.values()) - copies / 3
    assert measured == pytest.approx(counted, rel=0.25)


def test_sharding_divides_the_state_and_recomputing_the_activations() -> None:
    config = ModelConfig()
    one, eight = (estimate(config, Cluster(gpus=n), PAIRS) for n in (1, 8))
    assert eight.state_bytes == one.state_bytes / 8
    assert eight.compute_seconds == pytest.approx(one.compute_seconds / 8)
    again = dataclasses.replace(PAIRS, recompute="blocks")
    less = estimate(config, Cluster(gpus=8), again)
    assert less.activation_bytes < 0.5 * eight.activation_bytes
    assert less.compute_seconds == pytest.approx(4 / 3 * eight.compute_seconds)


def test_one_gpu_exchanges_nothing() -> None:
    for kind in ("ddp", "fsdp"):
        work = dataclasses.replace(PAIRS, kind=kind)
        assert estimate(ModelConfig(), Cluster(gpus=1), work).exchange_seconds == 0


def test_batches_fill_a_gpu_and_no_more() -> None:
    config, memory = ModelConfig(), 80e9
    for kind, recompute in (("ddp", "none"), ("fsdp", "none"), ("fsdp", "blocks")):
        parallel = ParallelRecipe(kind=kind, recompute=recompute)
        tokens = fitting_tokens(config, memory, 8, parallel, LoraRecipe())
        work = dataclasses.replace(
            PAIRS, kind=kind, recompute=recompute, micro_batch=tokens // PAIRS.tokens
        )
        one_more = dataclasses.replace(work, micro_batch=work.micro_batch + 1)
        fits, does_not = (estimate(config, Cluster(gpus=8), each) for each in (work, one_more))
        assert fits.bytes <= 0.9 * memory < does_not.bytes


def test_a_gpu_that_is_too_small_is_refused_with_the_way_out() -> None:
    with pytest.raises(TrainingError, match=r"of 16 GB .* take 27 GB .*fsdp"):
        fitting_tokens(ModelConfig(), 16e9, 1, ParallelRecipe(kind="ddp"), LoraRecipe())


def test_low_rank_layers_are_counted_as_they_are_added() -> None:
    lora = LoraRecipe(rank=3, targets=("decoder.blocks.*", "*.key"))
    network = Network(RECIPE.model)
    before = sum(each.numel() for each in network.parameters())
    lowrank.add(network, lora, torch.Generator())
    added = sum(each.numel() for each in network.parameters()) - before
    assert low_rank_parameters(RECIPE.model, lora) == added > 0


def test_the_full_size_is_fine_tuned_on_a_gpu_of_16_gb_as_the_page_says() -> None:
    config, page = ModelConfig(), PAGE.read_text(encoding="utf-8")
    recipe = recipe_for(Path("train.jsonl"), Path("."), "model", steps=200)
    tokens = fitting_tokens(config, 16e9, 1, recipe.parallel, recipe.lora)
    assert tokens >= 5 * 160  # a step of 16 records in a few batches
    state, thin = state_bytes(config, recipe.lora), low_rank_parameters(config, recipe.lora)
    for said in (f"{state / 1e9:.1f} GB", f"{thin:,} weights", f"{tokens:,} positions"):
        assert said in page


def test_the_tables_of_the_page_are_what_the_functions_give() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind in ("ddp", "fsdp"):
        work = dataclasses.replace(PAIRS, kind=kind)
        assert table(ModelConfig(), work, (1, 8, 64, 256, 1024)) in page
