"""The Hugging Face folder: every way to store it, and every way to store it wrongly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import TINY, assert_same, random_network

from kosmos2.errors import WeightsError
from kosmos2.model import ModelConfig, Network
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.tensors import (
    RenamedSource,
    StateSource,
    open_safetensors,
    write_safetensors,
)

CPU = torch.device("cpu")
EMBEDDING = "text_model.model.embed_tokens.weight"


def their_state(network: Network) -> dict[str, torch.Tensor]:
    return {
        HUGGINGFACE.theirs(name): parameter.detach().clone()
        for name, parameter in network.named_parameters()
    }


def load(folder: Path) -> Network:
    return huggingface.load(folder, dtype=torch.float32, device=CPU)


def test_loading_what_was_saved_changes_nothing(folder: Path, network: Network) -> None:
    assert_same(load(folder), network)


def test_saving_again_gives_the_same_bytes(
    folder: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    huggingface.save(load(folder), tiny_tokenizer, tmp_path / "again", dtype=torch.float32)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_smaller_type_is_stored_and_any_type_is_loaded(
    network: Network, dtype: torch.dtype, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    huggingface.save(network, tiny_tokenizer, tmp_path, dtype=dtype)
    stored = open_safetensors(tmp_path / "model.safetensors").specs
    assert {spec.dtype for spec in stored.values()} == {dtype}
    again = huggingface.load(tmp_path, dtype=torch.float64, device=CPU)
    for parameter, original in zip(again.parameters(), network.parameters(), strict=True):
        assert torch.equal(parameter, original.to(dtype).double())


def test_a_network_that_is_loaded_can_be_trained_and_its_file_stays_as_it_is(
    folder: Path,
) -> None:
    before = (folder / "model.safetensors").read_bytes()
    network = load(folder)
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_network_can_be_saved_over_the_files_it_was_loaded_from(
    folder: Path, network: Network, tiny_tokenizer: Tokenizer
) -> None:
    loaded = load(folder)
    huggingface.save(loaded, tiny_tokenizer, folder, dtype=torch.float32)
    assert_same(loaded, network)
    assert_same(load(folder), network)


def test_a_save_in_one_file_replaces_an_earlier_one_in_shards(
    folder: Path, network: Network, tiny_tokenizer: Tokenizer
) -> None:
    write_in_shards(network, folder)
    assert len(list(folder.glob("model-*"))) > 1
    assert not (folder / "model.safetensors").exists()
    huggingface.save(network, tiny_tokenizer, folder, dtype=torch.float32)
    assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]


def write_in_shards(network: Network, folder: Path) -> tuple[Path, ...]:
    return write_safetensors(
        folder, StateSource(their_state(network)), max_shard_bytes=30_000, on_tensor=str
    )


def test_shards_load_like_one_file_and_none_is_larger_than_asked(
    folder: Path, network: Network
) -> None:
    files = write_in_shards(network, folder)
    assert_same(load(folder), network)
    assert set(huggingface.weight_files(folder)) == set(files[:-1])
    for path in files[:-1]:
        specs = open_safetensors(path).specs
        assert sum(spec.num_bytes() for spec in specs.values()) <= 30_000 or len(specs) == 1


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pytorch_model_bin_loads_like_safetensors(
    folder: Path, network: Network, zipped: bool
) -> None:
    state = their_state(network)
    state[HUGGINGFACE.tied] = state[EMBEDDING]
    # Buffers that files of older transformers releases hold.
    state["vision_model.model.embeddings.position_ids"] = torch.arange(5)[None]
    state["text_model.model.embed_positions.weights"] = torch.zeros(66, 32)
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    (folder / "model.safetensors").unlink()
    assert_same(load(folder), network)


def test_shards_of_pytorch_model_bin_load_alike(folder: Path, network: Network) -> None:
    (folder / "model.safetensors").unlink()
    homes = {}
    for number, name in enumerate(their_state(network)):
        homes[name] = f"pytorch_model-{number % 3}.bin"
    for home in set(homes.values()):
        state = {n: t for n, t in their_state(network).items() if homes[n] == home}
        torch.save(state, folder / home)
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": homes})
    assert_same(load(folder), network)


def test_an_output_matrix_of_its_own_is_refused(folder: Path, network: Network) -> None:
    state = their_state(network)
    state[HUGGINGFACE.tied] = state[EMBEDDING] + 1
    write_safetensors(folder, StateSource(state), max_shard_bytes=10**9, on_tensor=str)
    with pytest.raises(WeightsError, match=r"lm_head.weight differs from .*embed_tokens.weight"):
        load(folder)


def test_an_equal_copy_of_the_embedding_is_accepted(folder: Path, network: Network) -> None:
    state = their_state(network)
    state[HUGGINGFACE.tied] = state[EMBEDDING].clone()
    write_safetensors(folder, StateSource(state), max_shard_bytes=10**9, on_tensor=str)
    assert_same(load(folder), network)


def test_whole_numbers_in_place_of_weights_are_refused(folder: Path, network: Network) -> None:
    state = their_state(network)
    state[EMBEDDING] = state[EMBEDDING].long()
    write_safetensors(folder, StateSource(state), max_shard_bytes=10**9, on_tensor=str)
    with pytest.raises(WeightsError, match=r"embed_tokens.weight holds torch.int64"):
        load(folder)


def test_a_pickle_that_runs_code_is_refused(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "was-run",)

    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="plain state dict"):
        load(folder)
    assert not (tmp_path / "was-run").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "model_type None"),
        (
            lambda f: (f / "model.safetensors").unlink(),
            r"no model\.safetensors.*it holds \['config",
        ),
        (lambda f: cut(f / "model.safetensors"), r"cannot read .*model\.safetensors.*complete"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), r"cannot read .*model\.safetensors"),
    ],
    ids=["no config", "no json", "no table", "no weights", "truncated", "empty"],
)
def test_a_damaged_folder_is_told_in_one_line(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    "shard", ["../elsewhere.safetensors", "/etc/passwd", "missing.safetensors"]
)
def test_a_shard_that_is_not_beside_its_index_is_refused(
    folder: Path, network: Network, shard: str
) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    homes = dict.fromkeys(their_state(network), shard)
    write_json(folder / "model.safetensors.index.json", {"weight_map": homes})
    with pytest.raises(WeightsError, match="not beside it"):
        load(folder)


def test_an_index_that_names_the_wrong_shard_is_refused(folder: Path, network: Network) -> None:
    files = write_in_shards(network, folder)
    index = json.loads(files[-1].read_text())
    index["weight_map"][EMBEDDING] = files[-2].name
    write_json(files[-1], index)
    with pytest.raises(WeightsError, match=rf"{EMBEDDING} and 0 more tensors are not in the file"):
        load(folder)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": 3}', "x"])
def test_a_file_that_is_no_index_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match="no index of shards"):
        load(folder)


def test_the_sizes_survive_config_json(tmp_path: Path) -> None:
    for config in (TINY, ModelConfig()):
        write_json(tmp_path / "config.json", huggingface.format_config(config, torch.float32))
        assert huggingface.read_config(tmp_path) == config


def test_what_config_json_leaves_out_has_the_value_of_the_released_model() -> None:
    assert huggingface.parse_config({"model_type": "kosmos-2"}, name="x") == ModelConfig()


def test_the_other_names_of_hugging_face_are_understood() -> None:
    data = {
        "model_type": "kosmos-2",
        "text_config": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2},
        "vision_config": {"image_size": [28, 28]},
    }
    config = huggingface.parse_config(data, name="x")
    assert (config.text.width, config.text.num_layers, config.text.num_heads) == (64, 3, 2)
    assert config.vision.image_size == 28


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "kosmos-2.5"}, "model_type 'kosmos-2.5'"),
        ({"text_config": {"activation_function": "relu"}}, "activation_function is 'relu'.*'gelu'"),
        ({"text_config": {"tie_word_embeddings": False}}, "tie_word_embeddings is False"),
        ({"text_config": {"add_cross_attention": True}}, "add_cross_attention is True"),
        ({"vision_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu'.*'quick_gelu'"),
        ({"text_config": {"layers": "24"}}, "text_config.layers must be int, got '24'"),
        ({"text_config": {"layers": True}}, "text_config.layers must be int, got True"),
        ({"text_config": {"scale_embedding": 1}}, "scale_embedding must be bool, got 1"),
        ({"vision_config": {"image_size": [28, 32]}}, r"image_size must be int, got \[28, 32\]"),
        ({"text_config": 3}, "text_config must be a table"),
    ],
)
def test_a_network_that_this_one_cannot_be_is_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        huggingface.parse_config({"model_type": "kosmos-2", **change}, name="config.json")


def test_a_tokenizer_of_other_weights_is_not_saved_with_them(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer has \d+ tokens, the embedding 97 rows"):
        huggingface.save(random_network(TINY), tiny_tokenizer, tmp_path, dtype=torch.float32)
    assert not list(tmp_path.iterdir())


def test_a_source_under_other_names_reads_the_same_tensors() -> None:
    source = RenamedSource(StateSource({"old": torch.arange(3.0)}), {"new": "old"})
    assert list(source.specs) == ["new"]
    assert torch.equal(source.read("new"), torch.arange(3.0))
