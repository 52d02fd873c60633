"""Every direction of conversion: the same numbers, little memory, nothing overwritten."""

import shutil
import subprocess
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fairseq_cases import container, original_state
from model_cases import assert_same, random_network, with_vocabulary
from test_fairseq import WIDE
from torch import Tensor
from transformers import Kosmos2ForConditionalGeneration

from kosmos2.errors import WeightsError
from kosmos2.model import Network
from kosmos2.vocab.tokenizer import Tokenizer, train_tokenizer
from kosmos2.weights import fairseq, huggingface, load_pretrained
from kosmos2.weights.convert import Format, Step, Written, convert
from kosmos2.weights.mapping import HUGGINGFACE, ORIGINAL, Layout
from kosmos2.weights.tensors import CastSource, RenamedSource, Spec, StateSource, TensorSource

CPU = torch.device("cpu")


def quiet(step: Step) -> None:
    assert step.done <= step.total


def load(path: Path) -> Network:
    return load_pretrained(path, dtype=torch.float32, device=CPU).network


def test_there_and_back_changes_no_bit(folder: Path, network: Network, tmp_path: Path) -> None:
    original = tmp_path / "original" / "kosmos-2.pt"
    convert(folder, original, to=Format.ORIGINAL, progress=quiet)
    assert_same(load(original), network)
    convert(original, tmp_path / "back", to=Format.HUGGINGFACE, progress=quiet)
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_a_file_of_fairseq_becomes_a_folder_that_transformers_loads(
    folder: Path, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    network = random_network(with_vocabulary(WIDE, tiny_tokenizer)).half()
    torch.save(container(original_state(network, torch.float16)), folder / "kosmos-2.pt")
    convert(folder / "kosmos-2.pt", tmp_path / "new", to=Format.HUGGINGFACE, progress=quiet)

    theirs = Kosmos2ForConditionalGeneration.from_pretrained(tmp_path / "new", dtype="auto")
    for name, parameter in network.named_parameters():
        assert torch.equal(theirs.get_parameter(HUGGINGFACE.theirs(name)), parameter), name


@pytest.mark.parametrize("to", Format)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_another_number_type_rounds_every_tensor(
    to: Format, dtype: torch.dtype, folder: Path, network: Network, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "x.pt" if to is Format.ORIGINAL else tmp_path / "new"
    convert(folder, target, to=to, dtype=dtype, progress=quiet)
    for parameter, original in zip(load(target).parameters(), network.parameters(), strict=True):
        assert torch.equal(parameter, original.to(dtype).float())


def test_without_a_number_type_every_tensor_keeps_its_own(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "half", to=Format.HUGGINGFACE, dtype=torch.float16, progress=quiet)
    convert(tmp_path / "half", tmp_path / "new", to=Format.HUGGINGFACE, progress=quiet)
    specs = huggingface.open_tensors(tmp_path / "new").specs
    assert {spec.dtype for spec in specs.values()} == {torch.float16}


def test_shards_are_no_larger_than_asked_and_load_alike(
    folder: Path, network: Network, tmp_path: Path
) -> None:
    written = convert(
        folder,
        tmp_path / "new",
        to=Format.HUGGINGFACE,
        progress=quiet,
        max_shard_bytes=60_000,
    )
    assert_same(load(tmp_path / "new"), network)
    assert len(written) > 3
    assert written[-1].path.name == "model.safetensors.index.json"
    theirs = Kosmos2ForConditionalGeneration.from_pretrained(tmp_path / "new")
    for name, parameter in network.named_parameters():
        assert torch.equal(theirs.get_parameter(HUGGINGFACE.theirs(name)), parameter), name


def test_the_steps_count_every_tensor_once(folder: Path, network: Network, tmp_path: Path) -> None:
    count = len(list(network.parameters()))
    for to, target in ((Format.HUGGINGFACE, "new"), (Format.ORIGINAL, "x.pt")):
        steps: list[Step] = []
        convert(folder, tmp_path / "other" / target, to=to, progress=steps.append)
        assert [step.done for step in steps] == list(range(1, count + 1))
        assert {step.total for step in steps} == {count}
        assert len({step.tensor for step in steps}) == count
        shutil.rmtree(tmp_path / "other")


def test_the_lines_are_those_that_sha256sum_checks(folder: Path, tmp_path: Path) -> None:
    written = convert(folder, tmp_path / "new", to=Format.HUGGINGFACE, progress=quiet)
    lines = "".join(f"{each}\n" for each in written)
    assert isinstance(written[0], Written)
    subprocess.run(
        ["sha256sum", "--check", "--status"], input=lines.encode(), cwd=tmp_path / "new", check=True
    )


def test_a_folder_that_is_not_empty_is_left_alone(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(WeightsError, match="not an empty folder"):
        convert(folder, folder, to=Format.HUGGINGFACE, dtype=torch.float16, progress=quiet)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["model", "x.bin", "there.pt"])
def test_a_target_that_is_no_new_pt_file_is_refused(
    name: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.pt").write_bytes(b"precious")
    with pytest.raises(WeightsError, match=r"must be a new file whose name ends in \.pt"):
        convert(folder, tmp_path / name, to=Format.ORIGINAL, progress=quiet)
    assert (tmp_path / "there.pt").read_bytes() == b"precious"


def test_a_file_is_not_laid_beside_the_tokenizer_of_another_model(
    folder: Path, tmp_path: Path
) -> None:
    other = train_tokenizer(["another model altogether"], num_pieces=100, bins=4)
    other.save(tmp_path / "other")
    with pytest.raises(WeightsError, match="tokenizer of another model"):
        convert(folder, tmp_path / "other" / "x.pt", to=Format.ORIGINAL, progress=quiet)
    assert not (tmp_path / "other" / "x.pt").exists()


def test_a_file_may_lie_in_the_folder_that_it_was_made_from(folder: Path, network: Network) -> None:
    convert(folder, folder / "kosmos-2.pt", to=Format.ORIGINAL, progress=quiet)
    assert_same(load(folder / "kosmos-2.pt"), network)
    assert_same(load(folder), network)


def test_nothing_is_written_when_the_source_does_not_match(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "kosmos-2"}')
    with pytest.raises(WeightsError):
        convert(folder, tmp_path / "new", to=Format.HUGGINGFACE, progress=quiet)
    assert not (tmp_path / "new").exists()


@dataclass
class Watched:
    """A source whose tensors are counted while anybody holds them."""

    source: TensorSource
    held: int = 0
    most_held: int = 0

    @property
    def specs(self) -> Mapping[str, Spec]:
        return self.source.specs

    def read(self, name: str) -> Tensor:
        tensor = self.source.read(name).clone()
        size = tensor.nbytes
        self.held += size
        self.most_held = max(self.most_held, self.held)
        weakref.finalize(tensor, self.release, size)
        return tensor

    def release(self, size: int) -> None:
        self.held -= size


def watch(network: Network, layout: Layout) -> Watched:
    state = StateSource({name: p.detach() for name, p in network.named_parameters()})
    return Watched(RenamedSource(state, {layout.theirs(name): name for name in state.state}))


def test_the_original_is_written_with_one_tensor_in_memory(
    network: Network, tmp_path: Path
) -> None:
    source = watch(network, ORIGINAL)
    fairseq.write(network.config, source, tmp_path / "x.pt", on_tensor=str)
    assert source.most_held == max(spec.num_bytes() for spec in source.specs.values())


def test_a_folder_is_written_with_one_tensor_in_memory(
    network: Network, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = watch(network, HUGGINGFACE)
    huggingface.write(network.config, source, tiny_tokenizer, tmp_path, on_tensor=str)
    assert_same(load(tmp_path), network)
    assert source.most_held == max(spec.num_bytes() for spec in source.specs.values())


def test_a_write_that_fails_leaves_no_half_file(network: Network, tmp_path: Path) -> None:
    source = watch(network, ORIGINAL)
    with pytest.raises(ZeroDivisionError):
        fairseq.write(network.config, source, tmp_path / "x.pt", on_tensor=lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not list(tmp_path.iterdir())


def test_a_cast_source_tells_the_type_it_gives() -> None:
    source = CastSource(StateSource({"a": torch.arange(3.0)}), torch.float16)
    assert source.specs["a"] == Spec((3,), torch.float16)
    assert source.read("a").dtype == torch.float16
