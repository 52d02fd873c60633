"""First weights of a network that is trained from nothing.

The decoder follows the original (torchscale with sub-LN). Three choices are ours, because a small
model on a small machine must not spend its first hours on finding them:
- image vectors enter the resampler at the scale of its latents (the tower's have unit length);
- position vectors of the tower begin as waves of row and column, and every latent of the
  resampler begins by looking at its own part of the picture;
- location tokens begin as smooth functions of row and column, so that neighbouring cells have
  neighbouring logits. They are ordinary embedding rows and learn like any other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kosmos2.model.decoder import DecoderBlock
from kosmos2.model.network import Network
from kosmos2.model.vision import VisionBlock
from kosmos2.vocab.special import Vocabulary


@torch.no_grad()
def initialise(network: Network, vocabulary: Vocabulary, generator: torch.Generator) -> None:
    """Write every parameter of `network`, drawn from `generator`."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            _linear(module, generator)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    tower = network.vision.config
    mixing = _mixing(tower.patches_per_side, tower.width, generator)
    _vision(network, mixing, generator)
    _resampler(network, mixing, generator)
    _decoder(network, generator)
    _locations(network.decoder.embedding.weight, vocabulary, generator)


def _linear(layer: nn.Linear, generator: torch.Generator) -> None:
    bound = math.sqrt(3 / layer.in_features)  # variance 1 / inputs
    layer.weight.uniform_(-bound, bound, generator=generator)
    layer.bias.zero_()


def _vision(network: Network, mixing: Tensor, generator: torch.Generator) -> None:
    tower = network.vision
    fan_in = tower.patches.weight[0].numel()
    tower.patches.weight.normal_(0, fan_in**-0.5, generator=generator)
    tower.class_embedding.normal_(0, 1, generator=generator)
    tower.positions[0].zero_()
    tower.positions[1:] = _waves(tower.config.patches_per_side, mixing)
    residual = (2 * tower.config.num_layers) ** -0.5
    for block in tower.blocks:
        assert isinstance(block, VisionBlock)
        block.output.weight.mul_(residual)
        block.contract.weight.mul_(residual)


def _resampler(network: Network, mixing: Tensor, generator: torch.Generator) -> None:
    """Make latent n look at its own part of the picture: its query is the key of that place."""
    resampler, config = network.resampler, network.config
    resampler.latents.normal_(0, 1, generator=generator)
    resampler.input.weight.normal_(0, 1, generator=generator)  # unit-length rows in, unit scale out

    side = math.ceil(math.sqrt(config.num_latents))
    chosen_Q = torch.linspace(0, side**2 - 1, config.num_latents).round().long()
    places_QE = nn.functional.normalize(_waves(side, mixing)[chosen_Q], dim=-1)
    wanted_QD = resampler.key(resampler.input(places_QE))
    # Random latents are nearly orthogonal: this sends each to about its wanted query.
    resampler.query.weight.copy_(wanted_QD.T @ resampler.latents / config.text.width)


def _decoder(network: Network, generator: torch.Generator) -> None:
    decoder = network.decoder
    width = decoder.config.width
    decoder.embedding.weight.normal_(0, width**-0.5, generator=generator)
    decoder.embedding.weight[1].zero_()
    gain = math.sqrt(math.log(2 * max(decoder.config.num_layers, 2)))  # sub-LN, as in torchscale
    for block in decoder.blocks:
        assert isinstance(block, DecoderBlock)
        for layer in (block.value, block.output, block.expand, block.contract):
            layer.weight.mul_(gain / math.sqrt(3))


def _locations(embedding: Tensor, vocabulary: Vocabulary, generator: torch.Generator) -> None:
    first, cells, width = vocabulary.first_location, vocabulary.bins**2, embedding.shape[1]
    rows_PD = _waves(vocabulary.bins, _mixing(vocabulary.bins, width, generator))
    embedding[first : first + cells] = rows_PD * width**-0.5


def _mixing(side: int, width: int, generator: torch.Generator) -> Tensor:
    """Return a random matrix that spreads the waves of column and row over all dimensions."""
    return torch.randn(2 * min(side, width // 2), width, generator=generator)


def _waves(side: int, mixing: Tensor) -> Tensor:
    """Return rows_PD of unit scale for the cells of a side x side grid, row after row.

    Cosines of column and of row, low frequencies louder, so that near cells have near vectors.
    The same `mixing` gives the same vector to the same place on a grid of any side.
    """
    waves = mixing.shape[0] // 2
    order = torch.arange(waves, dtype=torch.float32)
    place = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    basis = torch.cos(math.pi * place[:, None] * order) * torch.exp(-order / (0.35 * waves))
    basis[:, 0] = 0  # a constant tells no place
    rows_PD = torch.cat([basis.repeat(side, 1), basis.repeat_interleave(side, 0)], dim=1) @ mixing
    return rows_PD / rows_PD.std()
