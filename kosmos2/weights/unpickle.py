"""Read a pickled torch file of any origin without running anything that it names.

A pickle is a program: it may call every importable function. This reader resolves no name at all.
The handful of names that torch itself writes are mapped to functions of this file; every other
class or function becomes `Inert`, which keeps what it was given and does nothing. So settings
pickled by fairseq or omegaconf can be looked at, and a hostile file can do no more than fail.

Both of torch's containers are read: the zip of 1.6 and later, whose tensors are mapped from the
file, and the stream of pickles before it. The tar of torch 0.1 and TorchScript are refused.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from kosmos2.errors import WeightsError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_TYPES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class Inert:
    """What stands for an object of a class that is not trusted: its name and what it was given."""

    module = ""
    name = ""

    def __init__(self, *args: object) -> None:
        self.args = args
        self.state: object = None
        self.items: list[object] = []

    def __call__(self, *args: object) -> Inert:
        return Inert(self, *args)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def append(self, value: object) -> None:
        self.items.append(value)

    def __repr__(self) -> str:
        return f"<inert {self.module}.{self.name}>"


def read_container(path: Path) -> object:
    """Return the object that torch saved in this file, tensors on the CPU, the rest inert."""
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(path, file)
            file.seek(0)
            return _read_legacy(file)
    except WeightsError:
        raise
    except MemoryError as error:
        raise WeightsError(f"{path} asks for more memory than there is") from error
    except Exception as error:  # a broken or hostile pickle fails in any way it likes
        raise WeightsError(
            f"cannot read {path}: {error!r}. Is it complete, and was it written by torch.save?"
        ) from error


class _Unpickler(pickle.Unpickler):
    """Resolves the names that torch writes, and no other."""

    def __init__(self, file: IO[bytes], storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        return type("Inert", (Inert,), {"module": module, "name": name})

    def persistent_load(self, pid: tuple[object, ...]) -> Tensor:
        """Return the storage as a flat tensor."""
        match pid:
            case ("storage", torch.dtype() as dtype, key, _, int(numel)):
                return self._storage(dtype, str(key), numel)
            case ("storage", torch.dtype() as dtype, key, _, int(numel), None):
                return self._storage(dtype, str(key), numel)
            case ("storage", torch.dtype() as dtype, key, _, int(numel), (_, int(start), int(n))):
                return self._storage(dtype, str(key), numel).narrow(0, start, n)
        raise WeightsError(f"the file refers to {pid!r}, which is no tensor storage")


def _rebuild_tensor(
    flat_N: Tensor, offset: int, shape: Sequence[int], stride: Sequence[int], *_rest: object
) -> Tensor:
    """Return a view of a storage; refuses to reach outside it."""
    if min((offset, *shape, *stride)) < 0 or len(shape) != len(stride):
        raise WeightsError(f"a tensor of shape {shape} with strides {stride} at {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= flat_N.numel():
        raise WeightsError(
            f"a tensor of shape {shape} at {offset} reaches outside its {flat_N.numel()} numbers"
        )
    if math.prod(shape) == 0:
        return flat_N.new_empty(tuple(shape))
    return flat_N.as_strided(tuple(shape), tuple(stride), flat_N.storage_offset() + offset)


def _rebuild_parameter(tensor: Tensor, *_rest: object) -> Tensor:
    return tensor


KNOWN: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def _read_zip(path: Path, file: IO[bytes]) -> object:
    with zipfile.ZipFile(file) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in records or "constants.pkl" in records:
            raise WeightsError(
                f"{path} is a zip file, but not of torch.save (TorchScript is not read)"
            )
        if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
            raise WeightsError(f"{path} was written on a big-endian machine")
        bytes_N = torch.from_file(
            str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8
        )
        flats: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, numel: int) -> Tensor:
            if key not in flats:
                info = records[f"data/{key}"]
                if info.compress_type != zipfile.ZIP_STORED:
                    raise WeightsError(f"{path}: tensor data {info.filename} are compressed")
                start = _data_offset(file, info)
                flats[key] = _numbers(bytes_N[start : start + info.file_size], dtype, numel)
            return flats[key]

        data = io.BytesIO(archive.read(records["data.pkl"]))
        return _Unpickler(data, storage).load()


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a stored record begin: after its local header."""
    file.seek(info.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    return int(info.header_offset + 30 + name_length + extra_length)


def _numbers(bytes_N: Tensor, dtype: torch.dtype, numel: int) -> Tensor:
    """Return the first numbers in these bytes, in place where they are aligned."""
    size = numel * dtype.itemsize
    if numel < 0 or size > bytes_N.numel():
        raise WeightsError(f"{numel} numbers of {dtype} do not fit into {bytes_N.numel()} bytes")
    bytes_N = bytes_N[:size]
    if bytes_N.storage_offset() % dtype.itemsize:
        bytes_N = bytes_N.clone()
    return bytes_N.view(dtype)


def _read_legacy(file: IO[bytes]) -> object:
    """Read the magic number, the version, the system, the object, the keys, then the numbers."""
    flats: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, numel: int) -> Tensor:
        if key not in flats:
            flats[key] = torch.empty(numel, dtype=dtype)
        return flats[key]

    if _Unpickler(file, storage).load() != LEGACY_MAGIC:
        raise WeightsError("neither a zip file nor a stream that begins with torch's magic number")
    for _header in ("protocol version", "system"):
        _Unpickler(file, storage).load()
    container: object = _Unpickler(file, storage).load()

    for key in _Unpickler(file, storage).load():
        flat_N = flats[str(key)]
        (numel,) = struct.unpack("<q", file.read(8))
        data = file.read(numel * flat_N.dtype.itemsize) if numel == flat_N.numel() else b""
        if len(data) != flat_N.nbytes:
            raise WeightsError(f"storage {key} should have {flat_N.numel()} numbers, has {numel}")
        if data:
            flat_N.copy_(torch.frombuffer(bytearray(data), dtype=flat_N.dtype))
    return container
