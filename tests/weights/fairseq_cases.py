"""Files as fairseq writes them, made without fairseq: its modules are faked and removed again."""

import argparse
import enum
import sys
import types
import typing
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kosmos2.model import Network
from kosmos2.weights.mapping import EMBEDDING, ORIGINAL

MODULES = (
    "fairseq",
    "fairseq.dataclass",
    "fairseq.dataclass.constants",
    "omegaconf",
    "omegaconf.base",
    "omegaconf.dictconfig",
    "omegaconf.nodes",
)


@contextmanager
def fake_modules() -> Iterator[types.SimpleNamespace]:
    """Makes classes importable under fairseq's and omegaconf's names; then they are gone."""
    modules = {name: types.ModuleType(name) for name in MODULES}
    assert not set(modules) & set(sys.modules)

    class ContainerMetadata:
        def __init__(self) -> None:
            self.ref_type = typing.Any
            self.object_type = dict
            self.flags = {"struct": True}

    class AnyNode:
        def __init__(self, value: object, parent: object) -> None:
            self._val = value
            self._parent = parent
            self._metadata = ContainerMetadata()

    class DictConfig:
        def __init__(self, content: dict[str, object], parent: object = None) -> None:
            self._metadata = ContainerMetadata()
            self._parent = parent
            self._content = {
                key: DictConfig(value, self) if isinstance(value, dict) else AnyNode(value, self)
                for key, value in content.items()
            }

        def __getstate__(self) -> dict[str, object]:
            return {**self.__dict__, "_flags_cache": None}

        def __setstate__(self, state: dict[str, object]) -> None:
            raise AssertionError("code of the file was run")

    class DdpBackend(enum.Enum):
        C10D = "c10d"

    homes = {
        "omegaconf.base": ContainerMetadata,
        "omegaconf.nodes": AnyNode,
        "omegaconf.dictconfig": DictConfig,
        "fairseq.dataclass.constants": DdpBackend,
    }
    for module, cls in homes.items():
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(modules[module], cls.__name__, cls)
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(DictConfig=DictConfig, DdpBackend=DdpBackend)
    finally:
        for name in MODULES:
            del sys.modules[name]


def original_state(network: Network, dtype: torch.dtype) -> OrderedDict[str, torch.Tensor]:
    """The state dict under the original's names, with what the released file holds besides."""
    state = OrderedDict(
        (ORIGINAL.theirs(name), parameter.detach().to(dtype))
        for name, parameter in network.named_parameters()
    )
    state[ORIGINAL.tied] = state[ORIGINAL.theirs(EMBEDDING)]
    state["gpt_model.decoder.embed_positions._float_tensor"] = torch.zeros(1, dtype=dtype)
    state["gpt_model.decoder.self_attn_sope.scale"] = torch.ones(32, dtype=dtype)
    return state


def container(state: object, **entries: object) -> dict[str, Any]:
    """What fairseq's trainer saves around a state dict."""
    return {
        "args": None,
        "cfg": None,
        "model": state,
        "criterion": OrderedDict(),
        "optimizer_history": [{"criterion_name": "UniLoss", "num_updates": 60000}],
        "task_state": {},
        "extra_state": {"metrics": defaultdict(list, train=[1.5]), "seen": {1, 2}},
        **entries,
    }


def write_like_fairseq(path: Path, state: object, *, heads: int, zipped: bool) -> None:
    """Writes a trainer's file with settings of every kind that fairseq pickles."""
    with fake_modules() as fake:
        settings = {
            "common": {"fp16": True, "ddp_backend": fake.DdpBackend.C10D},
            "model": {"_name": "unigptmodel_xl", "decoder_attention_heads": heads},
        }
        args = argparse.Namespace(arch="unigptmodel_xl", ddp_backend=fake.DdpBackend.C10D)
        torch.save(
            container(state, cfg=fake.DictConfig(settings), args=args),
            path,
            _use_new_zipfile_serialization=zipped,
        )
