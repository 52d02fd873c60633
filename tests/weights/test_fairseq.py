"""The original's container: read without its libraries, written so that torch reads it too."""

import argparse
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fairseq_cases import MODULES, container, original_state, write_like_fairseq
from model_cases import TINY, assert_same_parameters, random_network

from kosmos2.errors import WeightsError
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.weights import fairseq
from kosmos2.weights.mapping import ORIGINAL
from kosmos2.weights.tensors import CastSource, RenamedSource, StateSource, TensorSource

CPU = torch.device("cpu")
WIDE = ModelConfig(
    text=TextConfig(vocab_size=97, width=128, feedforward_width=32, num_layers=2, num_heads=2),
    vision=VisionConfig(
        width=64, feedforward_width=32, num_layers=1, num_heads=1, image_size=28, patch_size=14
    ),
    num_latents=3,
)
"""Heads as wide as the original's, so that their number can be told from shapes."""


def load(path: Path) -> Network:
    return fairseq.load(path, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_file_of_fairseq_loads_without_fairseq(
    zipped: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "kosmos-2.pt"
    network = random_network(WIDE).to(dtype)
    write_like_fairseq(path, original_state(network, dtype), heads=4, zipped=zipped)
    assert not set(MODULES) & set(sys.modules)

    ours = load(path)

    assert ours.config.text.num_heads == 4  # told by cfg.model, not by the width
    assert ours.config == replace(WIDE, text=replace(WIDE.text, num_heads=4))
    assert not ours.training
    assert_same_parameters(ours, network.float())
    assert not set(MODULES) & set(sys.modules)


def test_a_namespace_also_tells_the_number_of_heads(tmp_path: Path) -> None:
    path = tmp_path / "kosmos-2.pt"
    state = original_state(random_network(WIDE), torch.float32)
    torch.save(container(state, args=argparse.Namespace(decoder_attention_heads=8)), path)
    assert load(path).config.text.num_heads == 8


def test_without_settings_a_head_is_as_wide_as_in_the_released_model(tmp_path: Path) -> None:
    path = tmp_path / "kosmos-2.pt"
    torch.save(container(original_state(random_network(WIDE), torch.float32)), path)
    assert load(path).config == WIDE


def test_the_sizes_of_the_released_file_are_told_by_its_shapes() -> None:
    with torch.device("meta"):
        network = Network(ModelConfig())
    shapes = {ORIGINAL.theirs(n): tuple(p.shape) for n, p in network.named_parameters()}
    assert fairseq.read_sizes({}, shapes, Path("kosmos-2.pt")) == ModelConfig()


def test_a_width_that_hides_the_number_of_heads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(container(original_state(random_network(TINY), torch.float32)), path)
    with pytest.raises(WeightsError, match=r"32 is no multiple of 64.*number of heads"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"no fairseq checkpoint: no 'model' in \[1, 2\]"),
        ({"state_dict": {}}, r"no 'model' in \['state_dict'\]"),
        ({"model": {}}, "has no gpt_model.decoder.embed_tokens.weight"),
        ({"model": {"a": 3}}, "'a' is a int, not a tensor"),
        ({"model": {1: torch.ones(1)}}, "1 is a Tensor"),
    ],
)
def test_another_file_of_torch_is_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=message):
        load(tmp_path / "other.pt")


def test_a_tensor_without_a_home_is_refused_by_name(tmp_path: Path) -> None:
    state = original_state(random_network(WIDE), torch.float32)
    state["gpt_model.decoder.segment_emb.weight"] = torch.ones(2, 128)
    torch.save(container(state), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"no rule \[gpt_model.decoder.segment_emb.weight\]"):
        load(tmp_path / "other.pt")


def test_an_output_matrix_of_its_own_is_refused(tmp_path: Path) -> None:
    state = original_state(random_network(WIDE), torch.float32)
    state[ORIGINAL.tied] = state[ORIGINAL.tied] + 1
    torch.save(container(state), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"output_projection.weight differs"):
        load(tmp_path / "other.pt")


def as_source(network: Network) -> TensorSource:
    state = StateSource({name: p.detach() for name, p in network.named_parameters()})
    return RenamedSource(state, {ORIGINAL.theirs(name): name for name in state.state})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_we_write_we_read_and_torch_reads(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    network = random_network(TINY)
    fairseq.write(TINY, CastSource(as_source(network), dtype), path, on_tensor=str)

    ours = load(path)
    assert ours.config == TINY  # heads and all: our own settings are in the file
    assert_same_parameters(ours, network.to(dtype).float())

    theirs = torch.load(path, weights_only=True)
    expected = original_state(network, dtype)
    assert set(theirs["model"]) == set(expected)
    for name, tensor in theirs["model"].items():
        assert tensor.dtype == dtype
        if name not in ORIGINAL.ignored:
            assert torch.equal(tensor, expected[name]), name
    assert theirs["cfg"]["kosmos2"]["model_type"] == "kosmos-2"


def test_the_file_we_write_has_one_embedding_under_two_names(tmp_path: Path) -> None:
    fairseq.write(TINY, as_source(random_network(TINY)), tmp_path / "tiny.pt", on_tensor=str)
    state = torch.load(tmp_path / "tiny.pt", weights_only=True)["model"]
    embedding = state["gpt_model.decoder.embed_tokens.weight"]
    assert state[ORIGINAL.tied].data_ptr() == embedding.data_ptr()


def test_the_file_we_write_is_a_sound_zip_that_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    fairseq.write(TINY, as_source(random_network(TINY)), path, on_tensor=str)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    for tensor in torch.load(path, weights_only=True, mmap=True)["model"].values():
        assert tensor.data_ptr() % 64 == 0
    assert [child.name for child in tmp_path.iterdir()] == ["tiny.pt"]


def test_the_unused_buffer_of_xpos_is_that_of_the_released_file() -> None:
    extra = fairseq.unread_tensors(ModelConfig(), torch.float32).state
    scale = extra["gpt_model.decoder.self_attn_sope.scale"]
    torch.testing.assert_close(scale, (torch.arange(0, 64, 2) + 25.6) / 89.6)


def test_the_full_size_has_888_names() -> None:
    with torch.device("meta"):
        names = {ORIGINAL.theirs(name) for name, _ in Network(ModelConfig()).named_parameters()}
    names |= {ORIGINAL.tied, *fairseq.unread_tensors(ModelConfig(), torch.float16).state}
    assert len(names) == 888
