"""The network: images and token ids in, logits out. No files, no strings, no sampling.

Dimension letters, the same in every file of this package and of `engine`:

    B  batch            T  text positions      S  cached positions   V  vocabulary
    D  decoder width    H  attention heads     K  width of one head  F  feed-forward width
    P  image patches    E  vision width        Q  resampler queries  M  attended memory
    Y  image rows       X  image columns       C  colour channels    N  images in the batch

Image patches P count the class token: P = 1 + (Y / patch) * (X / patch).
"""

from kosmos2.model.config import ModelConfig, TextConfig, VisionConfig
from kosmos2.model.decoder import causal_mask, positions_of
from kosmos2.model.network import Network, Output, masked_loss

__all__ = [
    "ModelConfig",
    "Network",
    "Output",
    "TextConfig",
    "VisionConfig",
    "causal_mask",
    "masked_loss",
    "positions_of",
]
