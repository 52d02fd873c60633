"""Folders of few bits: written in little memory, mapped, the same bits again, strict."""

import json
import mmap
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from model_cases import TINY, random_network, with_vocabulary
from safetensors.torch import load_file, save_file
from torch import Tensor

from kosmos2.errors import WeightsError
from kosmos2.kernels import native
from kosmos2.kernels.kind import Precision
from kosmos2.kernels.linear import FloatLinear, PackedLinear, pack, quantize
from kosmos2.kernels.quantized import Int4, Int8, Quantized, round_int8
from kosmos2.model import ModelConfig, Network
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface, load_pretrained, quantized
from kosmos2.weights.convert import Format, Step, convert, convert_to_few_bits
from kosmos2.weights.fused import FusedSource, fuse, fused_names, fused_specs, matrices
from kosmos2.weights.mapping import EMBEDDING, HUGGINGFACE
from kosmos2.weights.parts import FloatParts, QuantizedParts, open_parts
from kosmos2.weights.quantized import read_quantized, rounding_to, stored_precision, weight_file
from kosmos2.weights.tensors import Spec, StateSource, TensorSource

CPU = torch.device("cpu")
GROUPED = replace(  # widths that have whole groups in the decoder alone
    TINY,
    text=replace(TINY.text, width=128, feedforward_width=256, num_heads=4),
    vision=replace(TINY.vision, num_layers=1),
)
STORED = pytest.mark.parametrize("precision", quantized.STORED)


def quiet(step: Step) -> None:
    assert step.done <= step.total


@pytest.fixture(scope="module")
def network(tiny_tokenizer: Tokenizer) -> Network:
    return random_network(with_vocabulary(GROUPED, tiny_tokenizer))


@pytest.fixture(params=quantized.STORED)
def few_bits(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    """The model of `folder` in few bits."""
    target = tmp_path / "few"
    write(folder, target, request.param)
    return target


def write(folder: Path, target: Path, precision: Precision) -> None:
    convert_to_few_bits(
        folder, target, precision=precision, rounding=rounding_to(precision), progress=quiet
    )


def precision_of(folder: Path) -> Precision:
    precision = stored_precision(folder)
    assert precision is not None
    return precision


def same(ours: object, expected: object) -> bool:
    if isinstance(ours, Tensor) and isinstance(expected, Tensor):
        return torch.equal(ours, expected)
    if isinstance(ours, Int8) and isinstance(expected, Int8):
        pairs = ((ours.rounded_NK, expected.rounded_NK), (ours.scale_N, expected.scale_N))
    else:
        assert isinstance(ours, Int4) and isinstance(expected, Int4)
        pairs = ((ours.packed_NK, expected.packed_NK), (ours.scale_NG, expected.scale_NG))
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_every_tensor_is_read_back_as_it_was_rounded(few_bits: Path, network: Network) -> None:
    precision = precision_of(few_bits)
    opened = read_quantized(few_bits, precision)
    assert opened.config == network.config
    rounded = matrices(network.config)
    for name, parts in fused_names(network.config).items():
        expected: Tensor | Quantized = torch.cat([network.get_parameter(n).detach() for n in parts])
        if name == EMBEDDING:
            expected = round_int8(expected)  # type: ignore[arg-type]
        elif name in rounded:
            expected = quantize(expected, precision)  # type: ignore[arg-type]
        assert same(opened.read(name), expected), name


def test_the_names_are_all_parameters_with_query_key_and_value_of_blocks_as_one() -> None:
    names = fused_names(GROUPED)
    assert names["decoder.blocks.1.qkv.weight"] == tuple(
        f"decoder.blocks.1.{part}.weight" for part in ("query", "key", "value")
    )
    assert names["vision.blocks.0.qkv.bias"][1] == "vision.blocks.0.key.bias"
    assert names["resampler.key.weight"] == ("resampler.key.weight",)
    with torch.device("meta"):
        parameters = dict(Network(GROUPED).named_parameters())
    assert sorted(part for parts in names.values() for part in parts) == sorted(parameters)
    sizes = {name: spec.shape for name, spec in fused_specs(GROUPED).items()}
    assert sizes["decoder.blocks.0.qkv.weight"] == (3 * 128, 128)


def test_matrices_of_layers_and_the_embedding_are_rounded_and_nothing_else() -> None:
    rounded = matrices(GROUPED)
    assert EMBEDDING in rounded and "resampler.input.weight" in rounded
    kept = set(fused_names(GROUPED)) - rounded
    assert {"vision.patches.weight", "vision.positions", "resampler.latents"} <= kept
    assert all(
        name.endswith("bias") or "norm" in name or name.startswith(("vision.", "resampler.latents"))
        for name in kept
    )


def test_four_bits_are_kept_to_matrices_with_whole_groups(folder: Path, tmp_path: Path) -> None:
    write(folder, tmp_path / "four", Precision.INT4)
    opened = read_quantized(tmp_path / "four", Precision.INT4)
    assert isinstance(opened.read("decoder.blocks.0.contract.weight"), Int4)
    assert isinstance(opened.read("vision.blocks.0.contract.weight"), Int8)
    assert isinstance(opened.read(EMBEDDING), Int8)


def test_tensors_lie_in_the_map_and_their_memory_is_given_back(few_bits: Path) -> None:
    opened = read_quantized(few_bits, precision_of(few_bits))
    matrix = opened.read("decoder.blocks.0.expand.weight")
    assert isinstance(matrix, Int8 | Int4)
    tensor = matrix.rounded_NK if isinstance(matrix, Int8) else matrix.packed_NK
    (base, stop), = (
        (int(start, 16), int(stop, 16))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(weight_file(few_bits, opened.precision)))
        for start, stop in [line.split()[0].split("-")]
    )  # fmt: skip
    assert base <= tensor.data_ptr() < stop
    before = tensor.clone()
    opened.release("decoder.blocks.0.expand.weight")
    assert torch.equal(tensor, before)


def test_mapping_a_large_file_takes_no_memory_and_packing_takes_only_the_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    shape, count = (4096, 4096), 12  # 16 MiB each
    state = {f"{n}.weight": torch.zeros(shape, dtype=torch.int8) + n for n in range(count)}
    state |= {f"{n}.bias": torch.zeros(shape[0]) for n in range(count)}
    state |= {f"{n}.scale": torch.ones(shape[0]) for n in range(count)}
    path = tmp_path / "model-int8.safetensors"
    save_file(state, path)
    del state
    file = quantized.MappedFile.open(path)
    folder = quantized.QuantizedFolder(
        folder=tmp_path, config=ModelConfig(), precision=Precision.INT8, file=file
    )
    parts = QuantizedParts(folder, CPU)
    layers = [parts.linear("0")]  # what a first call brings along does not count
    mapped, before = [], resident("RssAnon")
    for number in range(1, count):
        layers.append(parts.linear(str(number)))
        mapped.append(resident("RssFile"))
    size = shape[0] * shape[1]
    assert max(mapped) - min(mapped) < 2 * size
    assert resident("RssAnon") - before < (count + 1) * size


def resident(kind: str) -> int:
    """Return bytes of this process's memory: RssFile of mapped files, RssAnon of its own."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    pytest.skip("this system does not tell")


@dataclass
class Watched:
    """A source whose numbers are counted while anybody holds them."""

    source: TensorSource
    held: int = 0
    most_held: int = 0
    reads: int = 0

    @property
    def specs(self) -> Mapping[str, Spec]:
        return self.source.specs

    def read(self, name: str) -> Tensor:
        tensor = self.source.read(name).clone()
        self.held += tensor.nbytes
        self.reads += 1
        self.most_held = max(self.most_held, self.held)
        weakref.finalize(tensor, self.release, tensor.nbytes)
        return tensor

    def release(self, size: int) -> None:
        self.held -= size


@STORED
def test_a_model_is_rounded_once_with_one_matrix_in_memory(
    precision: Precision, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    # A vocabulary that fills whole lines, as every other size here and all of the full size.
    network = random_network(with_vocabulary(GROUPED, tiny_tokenizer))
    state = StateSource({name: p.detach() for name, p in network.named_parameters()})
    watched = Watched(state)
    source = FusedSource(watched, fused_names(network.config))
    quantized.save(
        network.config,
        source,
        tiny_tokenizer,
        tmp_path,
        precision=precision,
        rounding=rounding_to(precision),
        on_tensor=str,
    )
    largest = max(spec.num_bytes() for spec in source.specs.values())
    assert watched.most_held <= largest
    embedding_again = network.config.text.vocab_size * 128 % 64 > 0
    assert watched.reads <= len(state.state) + embedding_again + 8  # the odd sizes of the vision


def test_matrices_begin_with_a_line_of_the_cache(few_bits: Path) -> None:
    opened = read_quantized(few_bits, precision_of(few_bits))
    whole = [n for n, spec in opened.file.specs.items() if spec.num_bytes() % 64 == 0]
    assert all(opened.file.starts[name] % 64 == 0 for name in whole)
    assert len(whole) > 20
    for name, spec in opened.file.specs.items():
        assert opened.file.starts[name] % spec.dtype.itemsize == 0


def test_the_library_reads_the_file_too(few_bits: Path) -> None:
    opened = read_quantized(few_bits, precision_of(few_bits))
    for name, tensor in load_file(opened.file.path).items():
        assert torch.equal(opened.file.read(name), tensor)


def test_the_steps_count_every_tensor_of_the_file_once(folder: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    convert_to_few_bits(
        folder,
        tmp_path / "new",
        precision=Precision.INT8,
        rounding=rounding_to(Precision.INT8),
        progress=steps.append,
    )
    opened = read_quantized(tmp_path / "new", Precision.INT8)
    assert [step.done for step in steps] == list(range(1, len(opened.file.specs) + 1))
    assert {step.tensor for step in steps} == set(opened.file.specs)
    assert {step.total for step in steps} == {len(steps)}


def test_a_rounding_of_ones_own_is_used(folder: Path, tmp_path: Path) -> None:
    seen = []

    def rounding(name: str, weight_NK: Tensor) -> Quantized:
        seen.append(name)
        return Int8(torch.ones_like(weight_NK, dtype=torch.int8), torch.ones(len(weight_NK)))

    convert_to_few_bits(
        folder, tmp_path / "ones", precision=Precision.INT8, rounding=rounding, progress=quiet
    )
    opened = read_quantized(tmp_path / "ones", Precision.INT8)
    assert set(seen) == matrices(opened.config)
    for name in seen:
        matrix = opened.read(name)
        assert isinstance(matrix, Int8) and (matrix.rounded_NK == 1).all()


# What an engine is built of


@pytest.mark.parametrize("precision", Precision)
def test_the_parts_of_a_checkpoint_are_those_of_its_network(
    precision: Precision, folder: Path, network: Network
) -> None:
    parts, tokenizer = open_parts(folder, precision, CPU)
    assert isinstance(parts, FloatParts) and parts.config == network.config
    assert tokenizer.vocabulary.size == network.config.text.vocab_size
    dtype = precision.activations(CPU)
    norm = network.get_parameter("decoder.norm.weight").detach()
    assert torch.equal(parts.tensor("decoder.norm.weight"), norm.to(dtype))

    weight_NK, bias_N = (
        torch.cat([network.get_parameter(f"vision.blocks.0.{n}.{end}").detach()
                   for n in ("query", "key", "value")])
        for end in ("weight", "bias")
    )  # fmt: skip
    x_MK = torch.randn(3, weight_NK.shape[1]).to(dtype)
    expected_MN = pack(weight_NK, bias_N, precision)(x_MK)
    torch.testing.assert_close(parts.linear("vision.blocks.0.qkv")(x_MK), expected_MN)
    rows_ND = parts.table("decoder.embedding").rows(torch.tensor([5]))
    assert rows_ND.shape == (1, 128) and rows_ND.dtype is dtype


@pytest.mark.parametrize("kernels", ["native", "none"])
def test_the_parts_of_a_folder_of_few_bits_are_those_made_when_loading(
    few_bits: Path, folder: Path, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "none":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip("the native kernels are not built")
    stored, _ = open_parts(few_bits, precision_of(few_bits), CPU)
    made, _ = open_parts(folder, precision_of(few_bits), CPU)
    assert isinstance(stored, QuantizedParts)
    x_MK = torch.randn(3, 128)
    for name in ("decoder.blocks.1.qkv", "decoder.blocks.0.expand", "resampler.query"):
        assert torch.equal(stored.linear(name)(x_MK), made.linear(name)(x_MK))
    tables = [parts.table("decoder.embedding") for parts in (stored, made)]
    ids_N = torch.tensor([7, 0, 7])
    assert torch.equal(tables[0].rows(ids_N), tables[1].rows(ids_N))
    assert torch.equal(tables[0].logits(x_MK), tables[1].logits(x_MK))
    name = "vision.patches.weight"
    assert torch.equal(stored.tensor(name), made.tensor(name))


def test_layers_are_packed_for_the_rows_they_get(folder: Path) -> None:
    parts, _ = open_parts(folder, Precision.FP32, CPU)
    for name in ("decoder.blocks.0.output", "resampler.output"):
        assert isinstance(parts.linear(name), PackedLinear | FloatLinear)


# What is refused


@STORED
def test_a_folder_of_few_bits_is_refused_as_anything_else(
    precision: Precision, folder: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    write(folder, few, precision)
    other = next(p for p in quantized.STORED if p is not precision)
    with pytest.raises(WeightsError, match=f"holds {precision} weights.*Use dtype {precision}"):
        open_parts(few, other, CPU)
    with pytest.raises(WeightsError, match=f"holds {precision} weights.*Use dtype {precision}"):
        load_pretrained(few, dtype=torch.float32, device=CPU)
    with pytest.raises(WeightsError, match=f"holds {precision} weights"):
        convert(few, tmp_path / "back", to=Format.HUGGINGFACE, progress=quiet)
    with pytest.raises(WeightsError, match=f"holds {precision} weights"):
        write(few, tmp_path / "again", precision)
    with pytest.raises(WeightsError, match="no weights in few bits"):
        read_quantized(folder, precision)


@pytest.mark.parametrize("precision", [p for p in Precision if p not in quantized.STORED])
def test_only_int8_and_int4_have_files(precision: Precision, folder: Path, tmp_path: Path) -> None:
    checkpoint = huggingface.open_tensors(folder)
    config = huggingface.read_config(folder)
    with pytest.raises(WeightsError, match="int8 or int4, not"):
        quantized.save(
            config,
            fuse(config, HUGGINGFACE, checkpoint),
            Tokenizer.from_folder(folder),
            tmp_path / "new",
            precision=precision,
            rounding=rounding_to(Precision.INT8),
            on_tensor=str,
        )
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(folder: Path, few_bits: Path) -> None:
    with pytest.raises(WeightsError, match="not an empty folder"):
        write(folder, few_bits, Precision.INT8)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"format": 2, "precision": "int8"}, "reads format 1"),
        ("int8", "reads format 1"),
        ({"format": 1, "precision": "int2"}, "must be one of int8, int4"),
        ({"format": 1}, "must be one of int8, int4"),
        ({"format": 1, "precision": ["int8"]}, "must be one of int8, int4"),
    ],
)
def test_a_table_of_another_release_is_refused(table: object, message: str, few_bits: Path) -> None:
    content = json.loads((few_bits / "config.json").read_text())
    content[quantized.KEY] = table
    (few_bits / "config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=message):
        open_parts(few_bits, Precision.INT8, CPU)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "\udcff"])
def test_a_folder_whose_config_is_broken_is_no_folder_of_few_bits(
    text: str, few_bits: Path
) -> None:
    (few_bits / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert stored_precision(few_bits) is None
    with pytest.raises(WeightsError, match=r"config\.json"):
        open_parts(few_bits, Precision.INT8, CPU)


def change(few_bits: Path, change: Mapping[str, Tensor | None]) -> None:
    """Write other tensors in place of some; None takes one away."""
    path = weight_file(few_bits, precision_of(few_bits))
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, tensor in change.items():
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor
    save_file(state, path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decoder.norm.bias": None}, r"1 tensors are missing \['decoder.norm.bias'\]"),
        ({"decoder.secret": torch.zeros(2)}, r"1 are not of this model \['decoder.secret'\]"),
        ({"decoder.norm.bias": torch.zeros(5)}, r"1 differ \['decoder.norm.bias torch.float32 \(5"),
        ({"decoder.norm.bias": torch.zeros(128).half()}, "1 differ .*float16"),
        ({EMBEDDING: torch.zeros(3, 128)}, "1 differ"),
        ({"resampler.query.scale": torch.full((128,), torch.nan)}, "resampler.query.scale.*no num"),
    ],
)
def test_a_file_of_another_model_is_refused(
    wrong: Mapping[str, Tensor | None], message: str, few_bits: Path
) -> None:
    if precision_of(few_bits) is Precision.INT4 and "resampler.query.scale" in wrong:
        wrong = {"resampler.query.scale": torch.full((128, 1), torch.inf).half()}
    change(few_bits, wrong)
    with pytest.raises(WeightsError, match=message):
        open_parts(few_bits, precision_of(few_bits), CPU)


@pytest.mark.parametrize("damage", ["short", "empty", "gone", "long header", "other"])
def test_a_damaged_file_is_refused(damage: str, few_bits: Path) -> None:
    path = weight_file(few_bits, precision_of(few_bits))
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "short": content[:-1],
                "empty": b"",
                "long header": b"\xff" * 8 + content[8:],
                "other": os.urandom(100),
            }[damage]
        )
    with pytest.raises(WeightsError, match=r"cannot read .*model-int"):
        open_parts(few_bits, precision_of(few_bits), CPU)


def test_the_tokenizer_of_another_model_is_refused(
    few_bits: Path, real_tokenizer: Tokenizer
) -> None:
    real_tokenizer.save(few_bits)
    with pytest.raises(WeightsError, match="Do the tokenizer's files belong"):
        open_parts(few_bits, precision_of(few_bits), CPU)


def test_a_system_that_takes_no_advice_reads_all_the_same(
    few_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(mmap, "MADV_DONTNEED", raising=False)
    parts, _ = open_parts(few_bits, precision_of(few_bits), CPU)
    assert parts.linear("resampler.query")(torch.ones(1, 128)).shape == (1, 128)


def test_opening_a_model_does_not_load_the_compiler_of_torch(few_bits: Path) -> None:
    """It takes 100 MB and a second."""
    script = (
        "import sys; from pathlib import Path; import kosmos2.weights.quantized as q;"
        "folder = Path(sys.argv[1]); q.read_quantized(folder, q.stored_precision(folder));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, few_bits], check=False).returncode == 0
