"""The released file's names and shapes, written down a second time; what else a file may hold."""

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_glip import TINY, checkpoint_of, glip_folder, tiny_glip

from kosmos2.errors import ConfigError, WeightsError
from kosmos2.grit.glip.checkpoint import IGNORED, load, read, read_sizes, skeleton
from kosmos2.grit.glip.sizes import Sizes, TextSizes, VisionSizes

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, inner: int, outer: int) -> Shapes:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def conv(name: str, inner: int, outer: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (outer, inner, kernel, kernel), f"{name}.bias": (outer,)}


def bert_layer(name: str) -> Shapes:
    shapes: Shapes = {}
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        shapes |= linear(f"{name}.attention.{part}", 768, 768)
    shapes |= norm(f"{name}.attention.output.LayerNorm", 768)
    shapes |= linear(f"{name}.intermediate.dense", 768, 3072)
    shapes |= linear(f"{name}.output.dense", 3072, 768) | norm(f"{name}.output.LayerNorm", 768)
    return shapes


def text_names() -> Shapes:
    name = "language_backbone.body.model.embeddings"
    shapes: Shapes = {
        f"{name}.word_embeddings.weight": (30522, 768),
        f"{name}.position_embeddings.weight": (512, 768),
        f"{name}.token_type_embeddings.weight": (2, 768),
        **norm(f"{name}.LayerNorm", 768),
    }
    for layer in range(12):
        shapes |= bert_layer(f"language_backbone.body.model.encoder.layer.{layer}")
    return shapes


def swin_names() -> Shapes:
    shapes = conv("backbone.body.patch_embed.proj", 3, 96, 4)
    shapes |= norm("backbone.body.patch_embed.norm", 96)
    for stage, (depth, heads) in enumerate(((2, 3), (2, 6), (6, 12), (2, 24))):
        width = 96 << stage
        for n in range(depth):
            block = f"backbone.body.layers.{stage}.blocks.{n}"
            shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            shapes[f"{block}.attn.relative_position_bias_table"] = (169, heads)
            shapes |= linear(f"{block}.attn.qkv", width, 3 * width)
            shapes |= linear(f"{block}.attn.proj", width, width)
            shapes |= linear(f"{block}.mlp.fc1", width, 4 * width)
            shapes |= linear(f"{block}.mlp.fc2", 4 * width, width)
        if stage < 3:
            down = f"backbone.body.layers.{stage}.downsample"
            shapes |= norm(f"{down}.norm", 4 * width)
            shapes[f"{down}.reduction.weight"] = (2 * width, 4 * width)
        if stage > 0:
            shapes |= norm(f"backbone.body.norm{stage}", width)
    return shapes


def pyramid_names() -> Shapes:
    shapes: Shapes = {}
    for number, width in ((2, 192), (3, 384), (4, 768)):
        shapes |= conv(f"backbone.fpn.fpn_inner{number}", width, 256, 1)
        shapes |= conv(f"backbone.fpn.fpn_layer{number}", 256, 256, 3)
    for top in ("p6", "p7"):
        shapes |= conv(f"backbone.fpn.top_blocks.{top}", 256, 256, 3)
    return shapes


def head_names() -> Shapes:
    shapes: Shapes = {}
    for n in range(6):
        fuse = f"rpn.head.dyhead_tower.{3 * n}.b_attn"
        shapes |= norm(f"{fuse}.layer_norm_v", 256) | norm(f"{fuse}.layer_norm_l", 768)
        shapes |= {f"{fuse}.gamma_v": (256,), f"{fuse}.gamma_l": (768,)}
        for side, width in (("v", 256), ("l", 768)):
            shapes |= linear(f"{fuse}.attn.{side}_proj", width, 2048)
            shapes |= linear(f"{fuse}.attn.values_{side}_proj", width, 2048)
            shapes |= linear(f"{fuse}.attn.out_{side}_proj", 2048, width)
        shapes |= bert_layer(f"rpn.head.dyhead_tower.{3 * n + 1}")
        round_ = f"rpn.head.dyhead_tower.{3 * n + 2}"
        for which in range(3):
            shapes |= conv(f"{round_}.DyConv.{which}.conv", 256, 256, 3)
            shapes |= norm(f"{round_}.DyConv.{which}.bn", 256)
        shapes |= conv(f"{round_}.AttnConv.1", 256, 1, 1) | conv(f"{round_}.offset", 256, 27, 3)
        shapes |= linear(f"{round_}.relu.fc.0", 256, 64) | linear(f"{round_}.relu.fc.2", 64, 1024)
    shapes |= conv("rpn.head.bbox_pred", 256, 4, 1) | conv("rpn.head.centerness", 256, 1, 1)
    shapes |= linear("rpn.head.dot_product_projection_text", 768, 256)
    shapes |= {"rpn.head.log_scale": (1,), "rpn.head.bias0": (1,), "rpn.head.bias_lang": (768,)}
    return shapes | {f"rpn.head.scales.{level}.scale": (1,) for level in range(5)}


def test_the_full_network_has_the_names_and_shapes_of_the_released_one() -> None:
    network = skeleton(Sizes())
    expected = text_names() | swin_names() | pyramid_names() | head_names()
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == expected
    assert {name for name, _ in network.named_parameters()} == set(expected)


def test_the_full_network_has_the_published_number_of_parameters() -> None:
    """231 M as its card says and 232 M as Grounding DINO's paper says."""
    total = sum(math.prod(tensor.shape) for tensor in skeleton(Sizes()).state_dict().values())
    scores_of_classes = 80 * 256 + 80
    assert 231_000_000 < total + scores_of_classes < 232_000_000


def save(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def test_a_checkpoint_is_loaded_with_all_its_numbers(tmp_path: Path) -> None:
    network = tiny_glip()
    loaded = load(glip_folder(tmp_path, network) / "glip_tiny.pth")
    for (name, tensor), (other, mine) in zip(
        network.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(tensor, mine)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("kind", ["legacy", "bare", "without prefix", "half"])
def test_other_ways_to_save_the_same_numbers_are_read(tmp_path: Path, kind: str) -> None:
    state: dict[str, Any] = checkpoint_of(tiny_glip())
    if kind == "without prefix":
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if kind == "half":
        state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    path = tmp_path / "glip.pth"
    torch.save(
        state if kind == "bare" else {"model": state},
        path,
        _use_new_zipfile_serialization=kind != "legacy",
    )
    name = "rpn.head.bbox_pred.weight"
    found = load(path).get_parameter(name)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, tiny_glip().get_parameter(name), atol=1e-2, rtol=1e-2)


def test_sizes_are_read_from_shapes(tmp_path: Path) -> None:
    path = save(tmp_path / "glip.pth", {"model": checkpoint_of(tiny_glip())})
    assert read_sizes(read(path), path) == TINY
    full = {name: tensor for name, tensor in skeleton(Sizes()).state_dict().items()}
    assert read_sizes(full, path) == Sizes()


@pytest.mark.parametrize(
    "name",
    [
        "rpn.head.dyhead_tower.1.output.dense.bias",
        "backbone.body.layers.2.blocks.1.attn.qkv.weight",
        "rpn.head.bias0",
        "rpn.head.scales.4.scale",
        "rpn.head.bbox_pred.weight",
    ],
)
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(tmp_path: Path, name: str) -> None:
    state = checkpoint_of(tiny_glip())
    whole = state.pop(f"module.{name}")
    with pytest.raises(WeightsError, match=f"{name}"):
        load(save(tmp_path / "missing.pth", {"model": state}))
    state[f"module.{name}"] = torch.zeros(*whole.shape, 2)
    with pytest.raises(WeightsError, match=f"{name}"):
        load(save(tmp_path / "wrong.pth", {"model": state}))


@pytest.mark.parametrize(
    "name",
    ["rpn.head.mlm_head.bias", "rpn.tunable_linear.weight", "rpn.head.token_logits.weight",
     "rpn.head.dyhead_tower.0.b_attn.shrink_lang.fc.weight", "backbone.body.norm0.weight"],
)  # fmt: skip
def test_a_tensor_that_is_left_over_is_named(tmp_path: Path, name: str) -> None:
    state = checkpoint_of(tiny_glip()) | {f"module.{name}": torch.zeros(3)}
    with pytest.raises(WeightsError, match=name):
        load(save(tmp_path / "glip.pth", {"model": state}))


def test_every_name_that_is_ignored_has_a_reason() -> None:
    assert all(IGNORED.values())
    ours = skeleton(Sizes()).state_dict()
    assert not [n for n in ours for each in IGNORED if re.fullmatch(each, n)]


def test_anchors_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    state = checkpoint_of(tiny_glip())
    state["module.rpn.anchor_generator.cell_anchors.2"] += 1
    with pytest.raises(WeightsError, match=r"cell_anchors\.2"):
        load(save(tmp_path / "glip.pth", {"model": state}))


def test_numbers_without_fractions_are_refused(tmp_path: Path) -> None:
    state = checkpoint_of(tiny_glip())
    state["module.rpn.head.bias0"] = torch.zeros(1, dtype=torch.long)
    with pytest.raises(WeightsError, match="bias0"):
        load(save(tmp_path / "glip.pth", {"model": state}))


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["model", "optimizer"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, place: str) -> None:
    made = tmp_path / "made"
    container = {"model": checkpoint_of(tiny_glip()), "optimizer": {}}
    container[place] = {**container[place], "x": Hostile(made)}  # type: ignore[dict-item]
    path = save(tmp_path / "glip.pth", container)
    if place == "model":
        with pytest.raises(WeightsError, match="'x'"):
            load(path)
    else:
        load(path)
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "glip.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"glip\.pth"):
        load(path)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="GLIP-T"):
        load(save(tmp_path / "other.pth", {"model": {"fc.weight": torch.zeros(2, 2)}}))


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="64"):
        TextSizes(width=100)
    with pytest.raises(ConfigError, match="four stages"):
        VisionSizes(depths=(2, 2))
    with pytest.raises(ConfigError, match="divisible"):
        VisionSizes(num_heads=(5, 6, 12, 24))
    with pytest.raises(ConfigError, match="16"):
        Sizes(channels=40)
