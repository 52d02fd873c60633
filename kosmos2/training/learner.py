"""From a batch to its losses: the network and the head of the patches as one module.

Whatever is done to it from outside (several ranks, recomputed blocks, low-rank layers), the
names of its parameters stay: `network.*` and `patch_head.*`.
"""

from __future__ import annotations

from torch import Tensor, nn

from kosmos2 import images
from kosmos2.data.collate import Batch
from kosmos2.model.network import Network
from kosmos2.training.loss import Losses, PatchHead, TargetLoss


class Learner(nn.Module):
    """What one process trains; it leaves out what a batch does not need."""

    def __init__(self, network: Network, patch_head: PatchHead, loss: TargetLoss) -> None:
        super().__init__()
        self.network = network
        self.patch_head = patch_head
        self.loss = loss

    def forward(self, batch: Batch, totals_3: Tensor) -> Losses:
        """Return the losses of a batch on this device, as shares of the step's totals."""
        network = self.network
        features_NPE = network.vision(images.normalise(batch.pixels_ICYX))
        patches_2 = self.patch_head(features_NPE, batch.noun_IP, batch.sides_IP4)
        hidden_LD = self.hidden(batch, features_NPE)
        return self.loss(network.logits(hidden_LD), batch.target_L, patches_2, totals_3)

    def hidden(self, batch: Batch, features_NPE: Tensor) -> Tensor:
        """Return hidden_LD, from which the targets are predicted."""
        if not len(batch.target_L):  # the tower alone
            return features_NPE.new_zeros(0, self.network.config.text.width)
        return self._decoded(batch, features_NPE)

    def _decoded(self, batch: Batch, features_NPE: Tensor) -> Tensor:
        network = self.network
        latents_NQD = network.resampler(features_NPE)
        embeds_BTD = network.embed(batch.ids_BT, batch.image_mask_BT, latents_NQD)
        hidden_BTD: Tensor = network.decode(embeds_BTD, batch.positions_BT, batch.attention_mask())
        return hidden_BTD.flatten(0, 1)[batch.source_L]
