"""The whole network: pictures and token ids in; scores, shifts and centredness of anchors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.grit.glip.bert import Bert, Layer, limited
from kosmos2.grit.glip.dyhead import DyHead
from kosmos2.grit.glip.fusion import Fusion
from kosmos2.grit.glip.pyramid import Pyramid
from kosmos2.grit.glip.sizes import LEVELS, Sizes
from kosmos2.grit.glip.swin import Swin


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network says of one level; its cells are read row by row."""

    logits_BVT: Tensor
    """How much each cell shows what each token means."""
    shifts_BV4: Tensor
    """From a cell's anchor to its box; see `boxes.decode`."""
    centred_BV: Tensor
    """Logit of how central the cell lies in its box."""
    size: tuple[int, int]
    """Rows and columns of cells."""


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class Head(nn.Module):
    """rpn/vldyhead.py, VLDyHead with USE_DOT_PRODUCT_TOKEN_LOSS and USE_FUSED_FEATURES.

    Its `cls_logits`, the scores of classes, are in the checkpoint and take no part in anything.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        channels, text_width = sizes.channels, sizes.text.width
        self.dyhead_tower = nn.ModuleList()
        for _ in range(sizes.num_blocks):
            self.dyhead_tower.append(Fusion(channels, text_width, sizes.fusion_width))
            self.dyhead_tower.append(Layer(sizes.text))
            self.dyhead_tower.append(DyHead(channels))
        self.bbox_pred = nn.Conv2d(channels, 4, 1)
        self.centerness = nn.Conv2d(channels, 1, 1)
        self.scales = nn.ModuleList(Scale() for _ in range(LEVELS))
        self.dot_product_projection_text = nn.Linear(text_width, channels)
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.bias_lang = nn.Parameter(torch.zeros(text_width))
        self.bias0 = nn.Parameter(torch.zeros(1))

    def forward(self, levels: list[Tensor], text_BTL: Tensor, seen_BT: Tensor) -> list[Seen]:
        """Return what is seen on each level."""
        tower = list(self.dyhead_tower)
        for fusion, layer, dyhead in zip(tower[::3], tower[1::3], tower[2::3], strict=True):
            levels, text_BTL = fusion(levels, text_BTL, seen_BT)
            text_BTL = layer(text_BTL, seen_BT)
            levels = dyhead(levels)

        text_BTL = F.normalize(text_BTL, dim=-1)
        tokens_BTC = self.dot_product_projection_text(text_BTL / 2)
        bias_BT = text_BTL @ self.bias_lang + self.bias0
        return [
            self._level(number, level, tokens_BTC, bias_BT) for number, level in enumerate(levels)
        ]

    def _level(self, number: int, level_BCYX: Tensor, tokens_BTC: Tensor, bias_BT: Tensor) -> Seen:
        cells_BVC = level_BCYX.flatten(2).transpose(1, 2)
        logits_BVT = cells_BVC @ tokens_BTC.transpose(1, 2) / self.log_scale.exp()
        scale = self.scales[number].get_parameter("scale")
        return Seen(
            limited(logits_BVT + bias_BT[:, None]).float(),
            (self.bbox_pred(level_BCYX) * scale).flatten(2).transpose(1, 2).float(),
            self.centerness(level_BCYX).flatten(1).float(),
            (level_BCYX.shape[2], level_BCYX.shape[3]),
        )


class Glip(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                "body": Swin(sizes.vision),
                "fpn": Pyramid(sizes.vision.widths[1:], sizes.channels),
            }
        )
        self.language_backbone = nn.ModuleDict({"body": nn.ModuleDict({"model": Bert(sizes.text)})})
        self.rpn = nn.ModuleDict({"head": Head(sizes)})

    def forward(self, pixels_BCYX: Tensor, ids_BT: Tensor, seen_BT: Tensor) -> Sequence[Seen]:
        """Return what is seen on five levels, the finest first.

        Pixels are normalised and in the order blue, green, red; sides are multiples of 32.
        """
        text_BTL = self.get_submodule("language_backbone.body.model")(ids_BT, seen_BT)
        levels = self.backbone["fpn"](self.backbone["body"](pixels_BCYX))
        seen: list[Seen] = self.rpn["head"](levels, text_BTL, seen_BT)
        return seen
