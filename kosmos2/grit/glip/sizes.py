"""The sizes of the network; the defaults are those of GLIP-T (configs/pretrain/glip_Swin_T_*)."""

from __future__ import annotations

from dataclasses import dataclass

from kosmos2.errors import ConfigError

LEVELS = 5
"""Feature maps that are looked at, P3 to P7."""
GROUPS = 16
"""Of every group norm (MODEL.GROUP_NORM.NUM_GROUPS)."""
FUSION_HEADS = 8
"""rpn/vldyhead.py, VLFuse.init_configs."""
TEXT_HEAD_WIDTH = 64
"""Of BERT; its head counts are not to be seen in shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """BERT base, uncased."""

    vocab_size: int = 30522
    positions: int = 512
    width: int = 768
    feedforward_width: int = 3072
    num_layers: int = 12

    def __post_init__(self) -> None:
        if self.width % TEXT_HEAD_WIDTH:
            raise ConfigError(
                f"the text's width ({self.width}) must be a multiple of {TEXT_HEAD_WIDTH}, the "
                "width of a head in BERT"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionSizes:
    """Swin-T."""

    width: int = 96
    """Of the first stage; doubles with each one after it."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7

    def __post_init__(self) -> None:
        if len(self.depths) != 4 or len(self.num_heads) != 4:
            raise ConfigError(
                f"a Swin of four stages is needed, got depths {self.depths} and heads "
                f"{self.num_heads}"
            )
        if any(width % heads for width, heads in zip(self.widths, self.num_heads, strict=True)):
            raise ConfigError(
                f"the widths of Swin's stages ({self.widths}) must be divisible by its heads "
                f"({self.num_heads})"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * 2**stage for stage in range(4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    text: TextSizes = TextSizes()
    vision: VisionSizes = VisionSizes()
    channels: int = 256
    """Of the pyramid's maps and of the head."""
    fusion_width: int = 2048
    num_blocks: int = 6
    """Fusions, each with a layer of BERT and one of DyHead behind it."""

    def __post_init__(self) -> None:
        if self.channels % GROUPS or self.fusion_width % FUSION_HEADS:
            raise ConfigError(
                f"channels ({self.channels}) must be a multiple of {GROUPS} and fusion_width "
                f"({self.fusion_width}) of {FUSION_HEADS}"
            )
