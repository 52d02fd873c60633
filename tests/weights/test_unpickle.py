"""Hostile and broken pickles: nothing that a file names is ever run.

Every hostile object is first shown to do its harm with an ordinary unpickler.
"""

import contextlib
import functools
import io
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq_cases import container, original_state
from model_cases import random_network
from test_fairseq import WIDE

from kosmos2.errors import WeightsError
from kosmos2.weights import fairseq
from kosmos2.weights.unpickle import Inert, read_container


class Call:
    """Pickles as a call of a function with arguments, and as a state set afterwards."""

    def __init__(
        self, function: Callable[..., object], *args: object, state: object = None
    ) -> None:
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def nested(path: Path) -> bytes:
    return pickle.dumps(Call(eval, f"open({str(path)!r}, 'w')"))


HARM: dict[str, Callable[[Path], Call]] = {
    "os.system": lambda path: Call(os.system, f"touch {path}"),
    "eval": lambda path: Call(eval, f"open({str(path)!r}, 'w')"),
    "exec": lambda path: Call(exec, f"open({str(path)!r}, 'w')"),
    "open": lambda path: Call(open, str(path), "w"),
    "method": lambda path: Call(Path.touch, path),
    "subprocess": lambda path: Call(subprocess.call, ["touch", str(path)]),
    "partial": lambda path: Call(functools.partial(os.system, f"touch {path}")),
    "setstate": lambda path: Call(dict, state=Call(eval, f"open({str(path)!r}, 'w')")),
    "torch.save": lambda path: Call(torch.save, {}, str(path)),
    "torch.from_file": lambda path: Call(torch.from_file, str(path), True, 4),
    "storage": lambda path: Call(torch.storage._load_from_bytes, saved(nested(path))),
    "pickle.loads": lambda path: Call(pickle.loads, nested(path)),
}


def saved(pickled: bytes) -> bytes:
    """A whole legacy file of torch around a pickle."""
    file = io.BytesIO()
    torch.save(Call(pickle.loads, pickled), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


PLACES: dict[str, Callable[[Any], Any]] = {
    "the file": lambda evil: evil,
    "the model": container,
    "a tensor": lambda evil: container({"gpt_model.decoder.embed_tokens.weight": evil}),
    "a key": lambda evil: container({evil: torch.ones(1)}),
    "the settings": lambda evil: container({"a": torch.ones(1)}, cfg={"model": {"heads": evil}}),
    "the heads": lambda evil: container(
        {"a": torch.ones(1)}, cfg={"model": {"decoder_attention_heads": evil}}
    ),
    "the history": lambda evil: container({"a": torch.ones(1)}, optimizer_history=[evil]),
}


@pytest.fixture
def harm_file(tmp_path: Path) -> Path:
    return tmp_path / "harm"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("harm", HARM)
def test_no_function_that_a_file_names_is_called(
    harm: str, place: str, zipped: bool, harm_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "evil.pt"
    evil = PLACES[place](HARM[harm](harm_file))
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    with contextlib.suppress(Exception):  # a key that cannot be hashed fails after the harm
        torch.load(path, weights_only=False)
    assert harm_file.exists(), "this pickle is harmless, the test says nothing"
    harm_file.unlink()

    with pytest.raises(WeightsError):
        fairseq.load(path, dtype=torch.float32, device=torch.device("cpu"))
    assert not harm_file.exists()


def test_a_call_of_the_result_of_a_call_is_not_made(harm_file: Path, tmp_path: Path) -> None:
    # getattr(os, "system")("touch ...") in opcodes: the pickle module does not write this.
    program = (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(Vos\ntRVsystem\ntR(V"
        + f"touch {harm_file}".encode()
        + b"\ntR."
    )
    pickle.loads(program)
    assert harm_file.exists()
    harm_file.unlink()
    write_zip(tmp_path / "evil.pt", program)
    assert isinstance(read_container(tmp_path / "evil.pt"), Inert)
    assert not harm_file.exists()


def write_zip(path: Path, program: bytes, **records: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", program)
        for name, data in records.items():
            archive.writestr(f"x/data/{name.removeprefix('r')}", data)


@pytest.mark.parametrize("harm", ["os.system", "eval", "storage"])
def test_hostile_settings_do_not_keep_the_weights_from_loading(
    harm: str, harm_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "evil.pt"
    network = random_network(WIDE)
    evil = HARM[harm](harm_file)
    state = original_state(network, torch.float32)
    torch.save(container(state, cfg={"common": [evil]}, extra_state=evil), path)

    ours = fairseq.load(path, dtype=torch.float32, device=torch.device("cpu"))

    assert not harm_file.exists()
    for parameter, expected in zip(ours.parameters(), network.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_what_is_not_trusted_is_kept_as_name_arguments_state_and_items(tmp_path: Path) -> None:
    path = tmp_path / "inert.pt"
    torch.save([Call(os.system, "true", state={"a": 1}), Path("x")], path)
    first, second = read_container(path)  # type: ignore[misc]
    assert (first.name, first.args, first.state) == ("system", ("true",), {"a": 1})
    assert isinstance(second, Inert)
    assert "inert" in repr(second)


def test_tensors_are_those_that_torch_reads(tmp_path: Path) -> None:
    base = torch.arange(24.0).view(4, 6)
    tensors = {
        "row": base[1],
        "column": base[:, 2],
        "transposed": base.T,
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5),
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "truth": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(base),
        "expanded": torch.ones(1).expand(3, 2),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save(OrderedDict(tensors), path, _use_new_zipfile_serialization=zipped)
        read = read_container(path)
        assert isinstance(read, OrderedDict)
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name], tensor), name


def tensor_program(
    numel: int, offset: int, size: int, stride: int, *, kind: str = "Float"
) -> bytes:
    """The opcodes of one vector: a view into storage "0"."""
    return (
        f"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n{kind}Storage\nV0\nVcpu\nI{numel}\n"
        f"tQI{offset}\n(I{size}\nt(I{stride}\ntI00\nNtR."
    ).encode()


def test_the_program_of_a_sound_vector_gives_the_vector(tmp_path: Path) -> None:
    numbers = torch.arange(6.0)
    write_zip(tmp_path / "x.pt", tensor_program(6, 1, 2, 3), r0=numbers.numpy().tobytes())
    assert torch.equal(read_container(tmp_path / "x.pt"), torch.tensor([1.0, 4.0]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor_program(6, 0, 7, 1), "reaches outside its 6 numbers"),
        (tensor_program(6, 5, 2, 1), "reaches outside"),
        (tensor_program(6, 0, 2, 6), "reaches outside"),
        (tensor_program(6, -1, 2, 1), "at -1"),
        (tensor_program(6, 0, 2, -1), "strides"),
        (tensor_program(6, 0, 10**15, 1), "reaches outside"),
        (tensor_program(7, 0, 1, 1), "7 numbers of torch.float32 do not fit into 24 bytes"),
        (tensor_program(-1, 0, 1, 1), "-1 numbers"),
        (tensor_program(6, 0, 1, 1, kind="Evil"), "no tensor storage"),
        (b"Vx\nQ.", "no tensor storage"),
        (b"((Vmodule\nNNNtQ.", "no tensor storage"),
        (b"garbage", "cannot read"),
        (b"", "cannot read"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    program: bytes, message: str, tmp_path: Path
) -> None:
    write_zip(tmp_path / "x.pt", program, r0=bytes(24), r1=bytes(1000))
    with pytest.raises(WeightsError, match=message):
        read_container(tmp_path / "x.pt")


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = tmp_path / "whole.pt"
        torch.save({"a": torch.arange(50.0)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for length in range(0, len(whole), 37):
            (tmp_path / "cut.pt").write_bytes(whole[:length])
            with pytest.raises(WeightsError):
                read_container(tmp_path / "cut.pt")


def test_torchscript_and_compressed_records_are_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_container(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", tensor_program(6, 0, 1, 1))
        archive.writestr("x/data/0", bytes(24))
    with pytest.raises(WeightsError, match="compressed"):
        read_container(tmp_path / "packed.pt")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read .*none\.pt"):
        read_container(tmp_path / "none.pt")
