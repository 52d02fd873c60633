"""From a batch to its losses: the network and the head of the patches as one module.

Whatever is done to it from outside (several ranks, recomputed blocks, low-rank layers), the
names of its parameters stay: `network.*` and `patch_head.*`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kosmos2 import images
from kosmos2.data.collate import NO_SAMPLE, PADDING_LESSON, Batch
from kosmos2.data.patches import UNKNOWN
from kosmos2.model.config import ModelConfig
from kosmos2.model.decoder import PADDING_ID
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
        features_IPE = self.features(batch)
        shown = len(batch.pixels_ICYX)
        patches_2 = self.patch_head(features_IPE[:shown], batch.noun_IP, batch.sides_IP4)
        logits_LV = self.network.logits(self.hidden(batch, features_IPE))
        return self.loss(logits_LV, batch.target_L, patches_2, totals_3)

    def features(self, batch: Batch) -> Tensor:
        """Return features_IPE of the batch's pictures."""
        if not len(batch.pixels_ICYX):
            vision = self.network.config.vision
            return self.network.vision.positions.new_zeros(0, vision.num_positions, vision.width)
        features_IPE: Tensor = self.network.vision(images.normalise(batch.pixels_ICYX))
        return features_IPE

    def hidden(self, batch: Batch, features_IPE: Tensor) -> Tensor:
        """Return hidden_LD, from which the targets are predicted."""
        if not len(batch.target_L):  # the tower alone
            return features_IPE.new_zeros(0, self.network.config.text.width)
        return self.decoded(batch, self.embeds(batch, features_IPE))

    def embeds(self, batch: Batch, features_IPE: Tensor) -> Tensor:
        """Return embeds_BTD, with the pictures' latents in their places."""
        network = self.network
        if not len(batch.pixels_ICYX):
            return network.embed(batch.ids_BT)
        return network.embed(batch.ids_BT, batch.image_mask_BT, network.resampler(features_IPE))

    def decoded(self, batch: Batch, embeds_BTD: Tensor) -> Tensor:
        """Return hidden_LD of the positions that targets are predicted from."""
        mask_BTT = batch.attention_mask()
        hidden_BTD = self.network.decode(embeds_BTD, batch.positions_BT, mask_BTT)
        return hidden_BTD.flatten(0, 1)[batch.source_L]


class EvenLearner(Learner):
    """One of several ranks: uses every part for every batch, for all ranks meet in each part.

    What a batch has not comes in as a blank picture whose share of the loss is 0.
    """

    def features(self, batch: Batch) -> Tensor:
        """Return features_IPE of the batch's pictures, or of a blank one."""
        if len(batch.pixels_ICYX):
            return super().features(batch)
        pixels_ICYX = batch.pixels_ICYX.new_zeros(1, *batch.pixels_ICYX.shape[1:])
        features_IPE: Tensor = self.network.vision(images.normalise(pixels_ICYX))
        return features_IPE

    def hidden(self, batch: Batch, features_IPE: Tensor) -> Tensor:
        """Return hidden_LD, also of no targets."""
        return self.decoded(batch, self.embeds(batch, features_IPE))

    def embeds(self, batch: Batch, features_IPE: Tensor) -> Tensor:
        """Return embeds_BTD; the latents of a blank picture add nothing."""
        if len(batch.pixels_ICYX):
            return super().embeds(batch, features_IPE)
        latents_NQD = self.network.resampler(features_IPE)
        embeds_BTD = self.network.embed(batch.ids_BT)
        nothing: Tensor = 0 * latents_NQD.sum()
        return embeds_BTD + nothing


def blank(config: ModelConfig, length: int) -> Batch:
    """Return a batch of one row that teaches nothing, for a rank that has fewer than another."""
    side, patches = config.vision.image_size, config.vision.patches_per_side**2
    return Batch(
        pixels_ICYX=torch.zeros(0, 3, side, side, dtype=torch.uint8),
        ids_BT=torch.full((1, length), PADDING_ID),
        image_mask_BT=torch.zeros(1, length, dtype=torch.bool),
        # It may look at itself, so that no softmax is empty; it counts as padding all the same.
        lesson_BT=torch.full((1, length), PADDING_LESSON),
        sample_BT=torch.full((1, length), NO_SAMPLE),
        positions_BT=torch.full((1, length), PADDING_ID),
        source_L=torch.zeros(0, dtype=torch.long),
        target_L=torch.zeros(0, dtype=torch.long),
        noun_IP=torch.full((0, patches), UNKNOWN),
        sides_IP4=torch.full((0, patches, 4), UNKNOWN),
    )
