"""Tiny networks for the tests of `model`, `weights` and `parity`."""

from dataclasses import replace

import torch

from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.vocab.tokenizer import Tokenizer

TINY = ModelConfig(
    text=TextConfig(
        vocab_size=97, width=32, feedforward_width=64, num_layers=2, num_heads=4, max_positions=64
    ),
    vision=VisionConfig(
        width=24, feedforward_width=48, num_layers=2, num_heads=3, image_size=28, patch_size=14
    ),
    num_latents=3,
)


def with_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The same sizes with an embedding for this tokenizer."""
    text = replace(config.text, vocab_size=tokenizer.vocabulary.size)
    return replace(config, text=text)


def random_network(config: ModelConfig, *, seed: int = 0) -> Network:
    """A network whose every parameter, also every bias and norm, is far from its neutral value."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=0.2, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    return network


def assert_same(ours: Network, expected: Network) -> None:
    assert ours.config == expected.config
    assert_same_parameters(ours, expected)


def assert_same_parameters(ours: Network, expected: Network) -> None:
    for (name, parameter), other in zip(
        ours.named_parameters(), expected.parameters(), strict=True
    ):
        assert torch.equal(parameter, other), name


def random_pixels(config: ModelConfig, num_images: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    side = config.vision.image_size
    return torch.randn(num_images, 3, side, side, generator=generator)


def random_ids(config: ModelConfig, *shape: int, seed: int = 0) -> torch.Tensor:
    """Ids of words: no padding among them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, config.text.vocab_size, shape, generator=generator)


def image_mask_at(length: int, *starts: int, num_latents: int) -> torch.Tensor:
    """A row that is True where images begin, for the length of an image."""
    mask_T = torch.zeros(length, dtype=torch.bool)
    for start in starts:
        mask_T[start : start + num_latents] = True
    return mask_T
