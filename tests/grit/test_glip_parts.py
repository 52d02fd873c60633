"""Each part of GLIP against loops written from the papers and the reference's kernels."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_glip import TINY, shaken
from torch import Tensor
from transformers import BertConfig, BertModel, SwinBackbone, SwinConfig

from kosmos2.grit.glip.bert import Bert, Layer, limited
from kosmos2.grit.glip.dyhead import Bend, DeformableConv, DyHead, DynamicRelu
from kosmos2.grit.glip.fusion import BiAttention, Fusion, FusionBlock
from kosmos2.grit.glip.network import Head
from kosmos2.grit.glip.pyramid import Pyramid
from kosmos2.grit.glip.sizes import FUSION_HEADS, VisionSizes
from kosmos2.grit.glip.swin import Block, Swin, unwindows, windows

CHANNELS = 32


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def hard(x: float) -> float:
    return min(max(x + 3, 0), 6) / 6


def between(map_YX: np.ndarray, y: float, x: float) -> float:
    """Return what lies between four cells; there are zeros around the map."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < map_YX.shape[0] and 0 <= column < map_YX.shape[1]:
                near = (1 - abs(y - row)) * (1 - abs(x - column))
                total += near * float(map_YX[row, column])
    return total


def deformed(
    conv: DeformableConv, x_CYX: np.ndarray, offset: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """Convolve by the kernel's own arithmetic: flat offsets, counted by the output's size."""
    channels, height, width = x_CYX.shape
    rows, columns = ((side + 2 - 3) // conv.stride + 1 for side in (height, width))
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    offset, mask = offset.ravel(), mask.ravel()
    out = np.zeros((len(weight), rows, columns))
    for row in range(rows):
        for column in range(columns):
            seen = np.zeros((channels, 3, 3))
            for tap in range(9):
                y = offset[((2 * tap) * rows + row) * columns + column]
                x = offset[((2 * tap + 1) * rows + row) * columns + column]
                share = mask[(tap * rows + row) * columns + column]
                y, x = y + row * conv.stride - 1 + tap // 3, x + column * conv.stride - 1 + tap % 3
                seen[:, tap // 3, tap % 3] = [share * between(each, y, x) for each in x_CYX]
            out[:, row, column] = (weight * seen).sum((1, 2, 3)) + bias
    return out


@pytest.mark.parametrize(
    ("stride", "size", "bend_size"),
    [(1, (5, 7), (5, 7)), (2, (5, 8), (3, 4)), (1, (3, 4), (5, 7)), (1, (1, 1), (1, 2))],
)
@torch.no_grad()
def test_deformable_convolution_is_that_of_loops_over_taps(
    stride: int, size: tuple[int, int], bend_size: tuple[int, int]
) -> None:
    conv = shaken(DeformableConv(4, stride).double())
    assert isinstance(conv, DeformableConv)
    x = torch.randn(2, 4, *size, dtype=torch.double)
    offset = torch.randn(2, 18, *bend_size, dtype=torch.double) * 2
    share = torch.rand(2, 9, *bend_size, dtype=torch.double)
    found = conv(x, Bend(offset, share))
    for each in range(2):
        expected = deformed(conv, x[each].numpy(), offset[each].numpy(), share[each].numpy())
        np.testing.assert_allclose(found[each].numpy(), expected, atol=1e-10)


@torch.no_grad()
def test_deformable_convolution_without_offsets_is_a_convolution() -> None:
    conv, x = DeformableConv(8, 2).double(), torch.randn(1, 8, 9, 6, dtype=torch.double)
    bend = Bend(torch.zeros(1, 18, 5, 3), torch.ones(1, 9, 5, 3))
    torch.testing.assert_close(
        conv(x, bend), F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    )


@torch.no_grad()
def test_the_rectifier_takes_the_larger_of_two_lines_for_each_channel() -> None:
    relu = shaken(DynamicRelu(8).double(), size=1)
    assert isinstance(relu, DynamicRelu)
    x = torch.randn(2, 8, 3, 5, dtype=torch.double)
    found = relu(x)
    first, _, last = relu.fc
    for each in range(2):
        mean = [float(x[each, c].sum()) / 15 for c in range(8)]
        inner = np.maximum(first.weight.numpy() @ mean + first.bias.numpy(), 0)
        lines = [hard(value) for value in last.weight.numpy() @ inner + last.bias.numpy()]
        for c in range(8):
            a1, b1 = (lines[c] - 0.5) * 2 + 1, lines[8 + c] - 0.5
            a2, b2 = (lines[16 + c] - 0.5) * 2, lines[24 + c] - 0.5
            for value, got in zip(x[each, c].flatten(), found[each, c].flatten(), strict=True):
                assert float(got) == pytest.approx(
                    max(float(value) * a1 + b1, float(value) * a2 + b2)
                )


def normed(x_CYX: np.ndarray, norm: torch.nn.GroupNorm) -> np.ndarray:
    out = np.empty_like(x_CYX)
    per = len(x_CYX) // norm.num_groups
    for group in range(norm.num_groups):
        part = x_CYX[group * per : (group + 1) * per]
        scaled = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        for n in range(per):
            c = group * per + n
            out[c] = scaled[n] * float(norm.weight[c]) + float(norm.bias[c])
    return out


def enlarged(x_CYX: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge so that the corners' centres meet."""
    rows, columns = x_CYX.shape[1:]
    out = np.empty((len(x_CYX), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            down = y * (rows - 1) / (size[0] - 1) if size[0] > 1 else 0
            right = x * (columns - 1) / (size[1] - 1) if size[1] > 1 else 0
            out[:, y, x] = [between(channel, down, right) for channel in x_CYX]
    return out


@torch.no_grad()
def test_a_round_of_dyhead_is_that_of_loops_over_levels() -> None:
    head = shaken(DyHead(CHANNELS).double(), size=0.2)
    assert isinstance(head, DyHead)
    levels = [
        torch.randn(1, CHANNELS, *size, dtype=torch.double) for size in ((5, 6), (3, 3), (2, 2))
    ]
    found = head(levels)
    attention = head.AttnConv[1]
    for number, level in enumerate(levels):
        bent = head.offset(level)[0].numpy()
        offset, mask = bent[:18], 1 / (1 + np.exp(-bent[18:]))
        parts = []
        for which, other in ((0, number + 1), (1, number), (2, number - 1)):
            if not 0 <= other < len(levels):
                continue
            layer = head.DyConv[which]
            part = deformed(layer.conv, levels[other][0].numpy(), offset, mask)
            part = normed(part, layer.bn)
            if which == 0:
                part = enlarged(part, tuple(level.shape[2:]))
            mean = part.mean((1, 2))
            weight = float((attention.weight[0, :, 0, 0].numpy() * mean).sum() + attention.bias[0])
            parts.append(part * hard(max(weight, 0)))
        expected = head.relu(torch.tensor(sum(parts) / len(parts))[None])
        torch.testing.assert_close(found[number], expected)


@torch.no_grad()
def test_bi_attention_is_that_of_loops_over_cells_and_tokens() -> None:
    attention = shaken(BiAttention(16, 24, 32).double())
    assert isinstance(attention, BiAttention)
    cells, text = torch.randn(1, 5, 16).double(), torch.randn(1, 4, 24).double()
    seen = torch.tensor([[True, True, True, False]])
    found_cells, found_text = attention(cells, text, seen)
    query, key = attention.v_proj(cells)[0], attention.l_proj(text)[0]
    cell_values, text_values = attention.values_v_proj(cells)[0], attention.values_l_proj(text)[0]
    width = 32 // FUSION_HEADS
    gained_cells, gained_text = torch.zeros(5, 32).double(), torch.zeros(4, 32).double()
    for head in range(FUSION_HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = [
            [float(query[v, part] @ key[t, part]) / math.sqrt(width) for t in range(4)]
            for v in range(5)
        ]
        for v in range(5):
            total = sum(math.exp(scores[v][t]) for t in range(3))
            for t in range(3):
                share = math.exp(scores[v][t]) / total
                gained_cells[v, part] += share * text_values[t, part]
        for t in range(4):
            total = sum(math.exp(scores[v][t]) for v in range(5))
            for v in range(5):
                share = math.exp(scores[v][t]) / total
                gained_text[t, part] += share * cell_values[v, part]
    # Scores and softmax are computed in fp32, as under autocast.
    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found_cells[0], attention.out_v_proj(gained_cells), **near)
    torch.testing.assert_close(found_text[0], attention.out_l_proj(gained_text), **near)


@torch.no_grad()
def test_a_fusion_adds_to_the_norms_of_its_inputs_and_keeps_levels_apart() -> None:
    fusion = shaken(Fusion(16, 24, 32).double())
    assert isinstance(fusion, Fusion) and isinstance(fusion.b_attn, FusionBlock)
    levels = [torch.randn(2, 16, *size).double() for size in ((2, 3), (1, 2))]
    text, seen = torch.randn(2, 3, 24).double(), torch.ones(2, 3, dtype=torch.bool)
    found, found_text = fusion(levels, text, seen)
    cells = torch.stack(
        [level[:, :, y, x] for level in levels for y in range(level.shape[2])
         for x in range(level.shape[3])], dim=1,
    )  # fmt: skip
    block = fusion.b_attn
    cells, text = block.layer_norm_v(cells), block.layer_norm_l(text)
    gained_cells, gained_text = block.attn(cells, text, seen)
    cells = cells + block.gamma_v * gained_cells
    torch.testing.assert_close(found_text, text + block.gamma_l * gained_text)
    at = 0
    for level in found:
        for y in range(level.shape[2]):
            for x in range(level.shape[3]):
                torch.testing.assert_close(level[:, :, y, x], cells[:, at])
                at += 1


def test_limits_hold_numbers() -> None:
    assert limited(torch.tensor([-1e6, -3.0, 1e6])).tolist() == [-50_000.0, -3.0, 50_000.0]


@torch.no_grad()
def test_huge_scores_are_held_where_the_reference_holds_them() -> None:
    """Two cells of 60,000 and 70,000 are alike for a token; for cells, so are two tokens."""
    attention = BiAttention(FUSION_HEADS, FUSION_HEADS, FUSION_HEADS)
    for layer in attention.children():
        layer.weight.copy_(torch.eye(FUSION_HEADS))  # type: ignore[union-attr, operator]
        layer.bias.zero_()  # type: ignore[union-attr, operator]
    cells = torch.tensor([[60_000.0] * FUSION_HEADS, [70_000.0] * FUSION_HEADS])[None]
    text = torch.ones(1, 1, FUSION_HEADS)
    _, found = attention(cells, text, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(found, torch.full_like(found, 65_000.0))


def bert_of_transformers(network: Bert) -> BertModel:
    theirs = BertModel(
        BertConfig(
            vocab_size=1200, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=48, max_position_embeddings=64,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    theirs.load_state_dict(network.state_dict(), strict=True)
    return theirs


@torch.no_grad()
def test_bert_is_that_of_transformers_under_the_same_names() -> None:
    ours = shaken(Bert(TINY.text), size=0.1)
    assert isinstance(ours, Bert)
    ids, seen = torch.randint(0, 1200, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    seen[1, 5:] = False
    expected = bert_of_transformers(ours)(input_ids=ids, attention_mask=seen.long())
    found = ours(ids, seen)
    torch.testing.assert_close(found[seen], expected.last_hidden_state[seen], rtol=1e-4, atol=1e-4)
    assert isinstance(ours.encoder.layer[0], Layer)


SWIN_NAMES = {
    "patch_embed.proj": "swin.embeddings.patch_embeddings.projection",
    "patch_embed.norm": "swin.embeddings.norm",
    "layers.": "swin.encoder.layers.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.proj": "attention.o_proj",
    "attn.relative_position_bias_table": (
        "attention.relative_position_bias.relative_position_bias_table"
    ),
}


def swin_of_transformers(network: Swin, sizes: VisionSizes) -> SwinBackbone:
    """Return theirs with our numbers; query, key and value are one matrix of ours."""
    theirs = SwinBackbone(
        SwinConfig(
            image_size=64, patch_size=4, embed_dim=sizes.width, depths=list(sizes.depths),
            num_heads=list(sizes.num_heads), window_size=sizes.window,
            out_features=["stage2", "stage3", "stage4"],
        )
    ).eval()  # fmt: skip
    state = {n: t for n, t in theirs.state_dict().items() if n.startswith("swin.layernorm.")}
    state |= {n: t for n, t in theirs.state_dict().items() if n.endswith("position_index")}
    for name, tensor in network.state_dict().items():
        if match := re.fullmatch(r"norm(\d)\.(\w+)", name):
            state[f"hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}"] = tensor
            continue
        for mine, other in SWIN_NAMES.items():
            name = name.replace(mine, other)
        if ".attn.qkv." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("attn.qkv", f"attention.{part}_proj")] = third
        else:
            state[name] = tensor
    theirs.load_state_dict(state, strict=True)
    return theirs


@pytest.mark.parametrize("size", [(160, 192), (192, 160)])
@torch.no_grad()
def test_swin_is_that_of_transformers(size: tuple[int, int]) -> None:
    ours = shaken(Swin(TINY.vision), size=0.1)
    assert isinstance(ours, Swin)
    pixels = torch.randn(2, 3, *size)
    expected = swin_of_transformers(ours, TINY.vision)(pixels).feature_maps
    found = ours(pixels)
    assert len(found) == len(expected) == 3
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shift", [0, 2])
@torch.no_grad()
def test_attention_in_windows_is_that_of_loops_over_cells(shift: int) -> None:
    """A map of 6 x 5 in windows of 4, so with padding, which is looked at as zeros are."""
    block = shaken(Block(6, 2, 4, shift).double())
    assert isinstance(block, Block)
    x = torch.randn(1, 6, 5, 6).double()
    height, width, window = 8, 8, 4
    padded = torch.zeros(height, width, 6).double()
    padded[:6, :5] = block.norm1(x)[0]
    qkv = block.attn.qkv(padded).reshape(height, width, 3, 2, 3)
    table = block.attn.relative_position_bias_table

    def region(at: int) -> int:
        """Return the window of a row or column; of windows that begin `shift` in, for both ends."""
        return (at - shift) // window

    expected = torch.zeros(6, 5, 6).double()
    for y in range(6):
        for xx in range(5):
            mates = [
                (v, u) for v in range(height) for u in range(width)
                if region(v) == region(y) and region(u) == region(xx)
            ]  # fmt: skip
            mixed = []
            for head in range(2):
                scores = [
                    float(qkv[y, xx, 0, head] @ qkv[v, u, 1, head]) / math.sqrt(3)
                    + float(table[(y - v + 3) * 7 + xx - u + 3, head])
                    for v, u in mates
                ]
                exps = [math.exp(score) for score in scores]
                mixed.append(
                    sum(
                        (e / sum(exps) * qkv[v, u, 2, head])
                        for e, (v, u) in zip(exps, mates, strict=True)
                    )
                )
            joined: Tensor = torch.cat([torch.as_tensor(part) for part in mixed])
            inner = x[0, y, xx] + block.attn.proj(joined)
            expected[y, xx] = inner + block.mlp(block.norm2(inner))
    torch.testing.assert_close(block(x)[0], expected)


def test_windows_are_cut_row_by_row_and_put_together_again() -> None:
    x = torch.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    cut = windows(x, 2)
    assert cut[0, 1, :, 0].tolist() == [2, 3, 8, 9]
    assert torch.equal(unwindows(cut, 4, 6), x)


@torch.no_grad()
def test_the_pyramid_hands_down_what_coarse_maps_know() -> None:
    pyramid = shaken(Pyramid((4, 6, 8), 16).double())
    assert isinstance(pyramid, Pyramid)
    maps = [
        torch.randn(1, width, *size).double()
        for width, size in ((4, (8, 12)), (6, (4, 6)), (8, (2, 3)))
    ]
    found = pyramid(maps)
    inner = [pyramid.get_submodule(f"fpn_inner{n + 2}")(each) for n, each in enumerate(maps)]
    for n in (1, 0):
        for y in range(inner[n].shape[2]):
            for x in range(inner[n].shape[3]):
                inner[n][:, :, y, x] += inner[n + 1][:, :, y // 2, x // 2]
    for n in range(3):
        torch.testing.assert_close(found[n], pyramid.get_submodule(f"fpn_layer{n + 2}")(inner[n]))
    torch.testing.assert_close(found[3], pyramid.top_blocks.p6(found[2]))
    torch.testing.assert_close(found[4], pyramid.top_blocks.p7(found[3].clamp(min=0)))
    assert [tuple(each.shape[2:]) for each in found] == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


@torch.no_grad()
def test_the_head_fuses_reads_and_looks_in_turn_and_scores_by_dot_products() -> None:
    head = shaken(Head(TINY).double(), size=0.1)
    assert isinstance(head, Head)
    head.bias0 += 0.7
    levels = [
        torch.randn(1, TINY.channels, *size).double()
        for size in ((4, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    ]
    text, seen = torch.randn(1, 3, 128).double(), torch.tensor([[True, True, False]])
    found = head(levels, text, seen)

    for n in range(TINY.num_blocks):
        levels, text = head.dyhead_tower[3 * n](levels, text, seen)
        text = head.dyhead_tower[3 * n + 1](text, seen)
        levels = head.dyhead_tower[3 * n + 2](levels)
    words = [word / math.sqrt(float(word @ word)) for word in text[0]]
    project = head.dot_product_projection_text
    temperature = math.exp(float(head.log_scale))
    for n, level in enumerate(levels):
        assert found[n].size == tuple(level.shape[2:])
        scale = float(head.scales[n].get_parameter("scale"))
        for cell, place in enumerate(level[0].flatten(1).T):
            for token, word in enumerate(words):
                bias = float(word @ head.bias_lang) + float(head.bias0)
                logit = float(place @ (project.weight @ word / 2 + project.bias)) / temperature
                got = float(found[n].logits_BVT[0, cell, token])
                assert got == pytest.approx(logit + bias, rel=1e-3, abs=1e-3)
            shift = scale * (head.bbox_pred.weight[:, :, 0, 0] @ place + head.bbox_pred.bias)
            centred = head.centerness.weight[0, :, 0, 0] @ place + head.centerness.bias[0]
            torch.testing.assert_close(found[n].shifts_BV4[0, cell], shift.float())
            torch.testing.assert_close(found[n].centred_BV[0, cell], centred.float())


@torch.no_grad()
def test_logits_are_held_at_50_000() -> None:
    head = Head(TINY)
    head.bias0 += 1e6
    levels = [torch.randn(1, TINY.channels, 1, 1) for _ in range(5)]
    found = head(levels, torch.randn(1, 2, 128), torch.ones(1, 2, dtype=torch.bool))
    assert all((level.logits_BVT == 50_000).all() for level in found)
