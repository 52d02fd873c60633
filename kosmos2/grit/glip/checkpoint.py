"""The released file: {"model": {"module.backbone.body...": tensor}, "optimizer": ..., ...}.

Nothing in it is run: the reader resolves no names (`kosmos2.weights.unpickle`). All tensors of the
model are either the network's or listed below with a reason; what is missing, left over or of
another shape is an error that names it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from kosmos2.errors import WeightsError
from kosmos2.grit.glip.boxes import anchors
from kosmos2.grit.glip.network import Glip
from kosmos2.grit.glip.sizes import Sizes, TextSizes, VisionSizes
from kosmos2.weights.tensors import check_state
from kosmos2.weights.unpickle import read_container

IGNORED = {
    r"rpn\.head\.cls_logits\.(weight|bias)": "scores of classes, which nothing reads",
    r"rpn\.anchor_generator\.cell_anchors\.\d": "computed here, and compared",
    r"backbone\.body\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index": "computed here",
    r"language_backbone\.body\.model\.embeddings\.position_ids": "0, 1, 2, ...: old transformers",
    r"language_backbone\.body\.model\.pooler\.dense\.(weight|bias)": "of whole sentences, not read",
    r"rpn\.resizer\.(fc|layer_norm)\.(weight|bias)": "of another loss (contrastive alignment)",
}
"""Tensors that a checkpoint may have besides those of the network."""

_TEXT = "language_backbone.body.model"
_SHOWN = 5
"""Names in an error message."""


def load(path: Path) -> Glip:
    """Return the network of a checkpoint, on the CPU, in fp32, in evaluation mode."""
    state = read(path)
    network = skeleton(read_sizes(state, path))
    _match(state, network, path)
    for name in network.state_dict():
        if not state[name].is_floating_point():
            raise WeightsError(f"{path}: {name} holds {state[name].dtype}, no fractions")
    network.load_state_dict(
        {name: state[name].float() for name in network.state_dict()}, assign=True
    )
    return network.eval().requires_grad_(False)


def skeleton(sizes: Sizes) -> Glip:
    """Return the network without numbers."""
    with torch.device("meta"):
        return Glip(sizes)


def read(path: Path) -> dict[str, Tensor]:
    """Return the model's tensors, without the prefix of training on several GPUs."""
    container = read_container(path)
    if isinstance(container, dict) and isinstance(container.get("model"), dict):
        container = container["model"]
    state = check_state(container, path)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def read_sizes(state: Mapping[str, Tensor], path: Path) -> Sizes:
    """Return the sizes that the tensors show."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in state:
            raise WeightsError(f"{path} has no {name}: is it a checkpoint of GLIP-T?")
        if state[name].dim() != dimensions:
            raise WeightsError(f"{path}: {name} has shape {tuple(state[name].shape)}")
        return tuple(state[name].shape)

    def count(pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in state)

    vocab_size, text_width = shape(f"{_TEXT}.embeddings.word_embeddings.weight", 2)
    positions, _ = shape(f"{_TEXT}.embeddings.position_embeddings.weight", 2)
    layer = f"{_TEXT}.encoder.layer"
    table = "backbone.body.layers.{}.blocks.0.attn.relative_position_bias_table"
    tables = [shape(table.format(stage), 2) for stage in range(4)]
    return Sizes(
        text=TextSizes(
            vocab_size=vocab_size,
            positions=positions,
            width=text_width,
            feedforward_width=shape(f"{layer}.0.intermediate.dense.bias", 1)[0],
            num_layers=count(re.escape(layer) + r"\.\d+\.attention\.self\.query\.bias"),
        ),
        vision=VisionSizes(
            width=shape("backbone.body.patch_embed.norm.bias", 1)[0],
            depths=tuple(
                count(rf"backbone\.body\.layers\.{stage}\.blocks\.\d+\.norm1\.bias")
                for stage in range(4)
            ),
            num_heads=tuple(heads for _, heads in tables),
            window=(math.isqrt(tables[0][0]) + 1) // 2,
        ),
        channels=shape("rpn.head.bbox_pred.weight", 4)[1],
        fusion_width=shape("rpn.head.dyhead_tower.0.b_attn.attn.v_proj.bias", 1)[0],
        num_blocks=count(r"rpn\.head\.dyhead_tower\.\d+\.offset\.bias"),
    )


def _match(state: Mapping[str, Tensor], network: Glip, path: Path) -> None:
    """Raise unless the checkpoint has all of the network and nothing that is not known."""
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = [name for name in ours if name not in state]
    unknown = [
        name
        for name in state
        if name not in ours and not any(re.fullmatch(each, name) for each in IGNORED)
    ]
    wrong = [
        f"{name} {tuple(state[name].shape)} and not {shape}"
        for name, shape in ours.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    for trouble, names in (("lacks", missing), ("has unknown", unknown), ("has", wrong)):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise WeightsError(
                f"{path} {trouble} {', '.join(names[:_SHOWN])}{more}: it is no GLIP-T as its "
                "configs/pretrain/glip_Swin_T_* describe it. GLIP-T (A) and GLIP-L are other nets."
            )
    for name, tensor in state.items():
        if "cell_anchors" in name:
            level = int(name[-1])
            if level > 4 or not torch.equal(tensor.float(), anchors(level, 1, 1)):
                raise WeightsError(f"{path}: {name} is {tensor.tolist()}, which GLIP-T's is not")
