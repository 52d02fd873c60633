"""Names to models: a folder, a `.pt`, the embedded model, a hub on this machine."""

import hashlib
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from fairseq_cases import container, original_state
from hub_server import serve
from model_cases import assert_same, random_network, with_vocabulary
from test_fairseq import WIDE

from kosmos2.errors import VocabularyError, WeightsError
from kosmos2.model import Network
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import Pretrained, load_pretrained, pretrained, resolve
from kosmos2.weights.mapping import HUGGINGFACE

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing here may reach the real hub or a user's cache."""
    point_to(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")


def point_to(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


def load(name: str | Path) -> Pretrained:
    return load_pretrained(name, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_is_loaded_with_its_tokenizer(
    kind: type[str] | type[Path], folder: Path, network: Network, tiny_tokenizer: Tokenizer
) -> None:
    model = load(kind(folder))
    assert_same(model.network, network)
    assert not model.network.training
    assert model.tokenizer.vocabulary == tiny_tokenizer.vocabulary
    text = "two red dogs"
    assert model.tokenizer.encode_text(text) == tiny_tokenizer.encode_text(text)
    assert model.name == str(folder)


def test_the_checksum_is_that_of_the_file(folder: Path) -> None:
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert load(folder).sha256() == {"model.safetensors": expected}


def test_a_fairseq_file_is_loaded_with_the_tokenizer_beside_it(
    folder: Path, tiny_tokenizer: Tokenizer
) -> None:
    network = random_network(with_vocabulary(WIDE, tiny_tokenizer))
    path = folder / "kosmos-2.pt"
    torch.save(container(original_state(network, torch.float16)), path)
    model = load(path)
    assert_same(model.network, network.half().float())
    assert list(model.sha256()) == ["kosmos-2.pt"]


def test_the_originals_tokenizer_files_beside_a_fairseq_file_are_read(
    shared_data: Path, tmp_path: Path
) -> None:
    for name in ("sentencepiece.bpe.model", "dict.txt"):
        shutil.copy(shared_data / "kosmos2-tokenizer" / name, tmp_path)
    state = original_state(random_network(WIDE), torch.float16)
    torch.save(container(state), tmp_path / "kosmos-2.pt")
    with pytest.raises(WeightsError, match="tokenizer has 65037 tokens, the embedding 97 rows"):
        load(tmp_path / "kosmos-2.pt")


def test_a_fairseq_file_without_a_tokenizer_says_what_to_put_beside_it(tmp_path: Path) -> None:
    torch.save(
        container(original_state(random_network(WIDE), torch.float16)), tmp_path / "kosmos-2.pt"
    )
    with pytest.raises(VocabularyError, match=r"sentencepiece.bpe.model and dict.txt"):
        load(tmp_path / "kosmos-2.pt")


def test_no_name_means_the_model_inside_the_package(
    folder: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "EMBEDDED_FOLDER", folder)
    assert resolve(pretrained.EMBEDDED) == folder
    model = load_pretrained(dtype=torch.float32, device=CPU)
    assert_same(model.network, network)
    assert model.name == "embedded"


def test_an_installation_without_the_embedded_model_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "EMBEDDED_FOLDER", tmp_path)
    with pytest.raises(WeightsError, match=r"no embedded model in .*Reinstall"):
        resolve("embedded")


@pytest.mark.parametrize(
    "name",
    ["nothing", "./nothing", "./nothing/here", "../a", "a/b/c", "nothing.pt", "a/nothing.pt"],
)
def test_a_name_that_is_nothing_is_told_with_what_names_can_be(name: str) -> None:
    with pytest.raises(WeightsError, match=r"no file or folder .*owner/model"):
        resolve(name)


def test_a_path_that_is_not_there_is_never_looked_for_on_the_hub() -> None:
    with pytest.raises(WeightsError, match="no file or folder 'owner/model'"):
        resolve(Path("owner/model"))


def test_a_file_inside_a_model_folder_names_the_folder_as_the_way_out(folder: Path) -> None:
    with pytest.raises(WeightsError, match="name their folder"):
        resolve(folder / "model.safetensors")


def test_a_hub_name_is_downloaded_once_and_then_read_without_a_connection(
    folder: Path, network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What a careless download would also fetch: the same weights again, other formats, folders.
    (folder / "pytorch_model.bin").write_bytes(b"the same again")
    (folder / "README.md").write_text("a card")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"no")
    (folder / "onnx" / "config.json").write_text("{}")
    with serve("owner/tiny", folder) as hub:
        point_to(monkeypatch, hub.url, tmp_path / "cache")
        model = load("owner/tiny")
        assert_same(model.network, network)
        assert model.name == "owner/tiny"
        assert sorted(hub.downloads) == sorted(
            [path.name for path in folder.glob("*.json")] + ["model.safetensors"]
        )
        hub.downloads.clear()
        load("owner/tiny@main")
        assert hub.downloads == []
    assert_same(load("owner/tiny").network, network)  # the server is gone


def test_a_hub_model_that_is_only_pickled_is_downloaded_too(
    folder: Path, network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (folder / "model.safetensors").unlink()
    state = {HUGGINGFACE.theirs(name): p.detach() for name, p in network.named_parameters()}
    torch.save(state, folder / "pytorch_model.bin")
    with serve("owner/tiny", folder) as hub:
        point_to(monkeypatch, hub.url, tmp_path / "cache")
        assert_same(load("owner/tiny").network, network)


def test_a_name_that_the_hub_does_not_have_is_told_with_the_ways_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve("owner/tiny", folder) as hub:
        point_to(monkeypatch, hub.url, tmp_path / "cache")
        with pytest.raises(WeightsError, match=r"cannot get owner/other \(revision main\)"):
            load("owner/other")


def test_a_download_without_a_connection_is_told_with_the_ways_out() -> None:
    with pytest.raises(WeightsError, match=r"cannot get owner/tiny .*three ways out") as caught:
        load("owner/tiny")
    assert "\n" not in str(caught.value)


def test_the_hash_of_weights_is_that_of_their_files_and_of_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    alone = pretrained.weights_hash(tmp_path)
    assert alone == f"sha256:{hashlib.sha256(b'one').hexdigest()}"
    (tmp_path / "config.json").write_text("{}")
    assert pretrained.weights_hash(tmp_path) == alone
    assert pretrained.weights_hash(tmp_path / "model.safetensors") == alone
    (tmp_path / "more.safetensors").write_bytes(b"two")
    both = pretrained.weights_hash(tmp_path)
    (tmp_path / "more.safetensors").rename(tmp_path / "other.safetensors")
    assert len({alone, both, pretrained.weights_hash(tmp_path)}) == 3
