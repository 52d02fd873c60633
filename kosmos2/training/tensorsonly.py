"""Read a distributed checkpoint as tensors alone: PyTorch's own reader runs what is pickled."""

from __future__ import annotations

import io
import pickle

from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

_METADATA = "torch.distributed.checkpoint.metadata"
_NAMES = {
    _METADATA: {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float32", "float64", "float16", "bfloat16", "int64", "uint8"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        """Return one of the few names that describe tensors; refuses any other."""
        if name not in _NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs")
        return super().find_class(module, name)


class Reader(FileSystemReader):
    """Reads what describes the tensors without running anything that it names."""

    def read_metadata(self, rank: int | None = None) -> Metadata:
        """Return which tensors there are, and where."""
        assert rank is None  # all ranks write one description
        with self.fs.create_stream(self._get_metadata_path(), "rb") as file:
            metadata = _Unpickler(io.BytesIO(file.read())).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError("it describes no checkpoint")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class TensorsOnly(DefaultLoadPlanner):
    """Refuses objects, which PyTorch's planner would unpickle."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Refuse."""
        raise pickle.UnpicklingError(f"{read_item.dest_index.fqn} is an object, no tensor")
