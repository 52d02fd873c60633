"""The whole network: vision tower, resampler, decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kosmos2.errors import RequestError
from kosmos2.model.config import ModelConfig
from kosmos2.model.decoder import Decoder, causal_mask, positions_of
from kosmos2.model.resampler import Resampler
from kosmos2.model.vision import VisionTower


@dataclass(frozen=True, slots=True)
class Output:
    """What one pass returns."""

    logits_BTV: Tensor
    hidden_states: tuple[Tensor, ...]
    """hidden_BTD: the input of the first block, then after every block; the last is normed."""
    latents_NQD: Tensor | None

    @property
    def hidden_BTD(self) -> Tensor:
        return self.hidden_states[-1]


class Network(nn.Module):
    """Kosmos-2 of any size."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision)
        self.resampler = Resampler(config)
        self.decoder = Decoder(config.text)

    def encode_images(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD of N pictures, each resampled alone."""
        latents_NQD: Tensor = self.resampler(self.vision(pixels_NCYX))
        return latents_NQD

    def embed(
        self, ids_BT: Tensor, image_mask_BT: Tensor | None = None, latents_NQD: Tensor | None = None
    ) -> Tensor:
        """Return embeds_BTD, unscaled: latents, image after image, where image_mask_BT is True."""
        embeds_BTD: Tensor = self.decoder.embedding(ids_BT)
        if latents_NQD is None or image_mask_BT is None:
            if latents_NQD is not None or (image_mask_BT is not None and image_mask_BT.any()):
                raise RequestError("images need both their latents and the mask of their positions")
            return embeds_BTD
        slots, vectors = int(image_mask_BT.sum()), latents_NQD.shape[0] * latents_NQD.shape[1]
        if slots != vectors:
            raise RequestError(
                f"the prompt has {slots} image positions, the images bring {vectors} vectors "
                f"({latents_NQD.shape[0]} images of {latents_NQD.shape[1]})"
            )
        latents_ND = latents_NQD.flatten(0, 1).to(embeds_BTD.dtype)
        return embeds_BTD.masked_scatter(image_mask_BT[..., None], latents_ND)

    def decode(
        self,
        embeds_BTD: Tensor,
        positions_BT: Tensor,
        mask_BTT: Tensor | None = None,
    ) -> Tensor:
        """Return hidden_BTD after the last norm; see `Decoder.forward` for the mask."""
        hidden: list[Tensor] = self.decoder(embeds_BTD, positions_BT, mask_BTT)
        return hidden[-1]

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Return logits_BTV."""
        return self.decoder.logits(hidden_BTD)

    def forward(
        self,
        ids_BT: Tensor | None = None,
        *,
        embeds_BTD: Tensor | None = None,
        pixels_NCYX: Tensor | None = None,
        latents_NQD: Tensor | None = None,
        image_mask_BT: Tensor | None = None,
        keep_BT: Tensor | None = None,
    ) -> Output:
        """Return logits and hidden states of whole sequences.

        Either ids_BT or embeds_BTD (unscaled, as `embed` returns them; never written to). Pictures
        come as pixels or as latents. keep_BT is False at padding, left or right.
        """
        if (ids_BT is None) == (embeds_BTD is None):
            raise RequestError("pass either ids_BT or embeds_BTD")
        if pixels_NCYX is not None:
            latents_NQD = self.encode_images(pixels_NCYX)
        if embeds_BTD is None:
            assert ids_BT is not None
            embeds_BTD = self.embed(ids_BT, image_mask_BT, latents_NQD)
        if keep_BT is None:
            keep_BT = torch.ones(embeds_BTD.shape[:2], dtype=torch.bool, device=embeds_BTD.device)

        hidden = self.decoder(embeds_BTD, positions_of(keep_BT), causal_mask(keep_BT))
        return Output(self.logits(hidden[-1]), tuple(hidden), latents_NQD)


def masked_loss(logits_BTV: Tensor, ids_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """Return the mean next-token cross-entropy in nats over targets, weighted.

    weight_BT belongs to the tokens of ids_BT as targets (weight 0: not learned); the first token
    of a row is never a target. As the original's criterion: sum over targets / sum of weights.
    """
    losses_BT = F.cross_entropy(
        logits_BTV[:, :-1].float().flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none"
    ).view(ids_BT.shape[0], -1)
    targets_BT = weight_BT[:, 1:].float()
    return (losses_BT * targets_BT).sum() / targets_BT.sum().clamp(min=1e-9)
