"""A model of random weights, small enough to be made for a test, saved as a user's folder."""

from pathlib import Path

import torch

from kosmos2.model import Network
from kosmos2.model.config import ModelConfig, TextConfig, VisionConfig
from kosmos2.vocab.tokenizer import Tokenizer
from kosmos2.weights import huggingface


def save_tiny_model(folder: Path, tokenizer: Tokenizer) -> Path:
    """Write the model and return its folder."""
    config = ModelConfig(
        text=TextConfig(
            vocab_size=tokenizer.vocabulary.size,
            width=16,
            feedforward_width=32,
            num_layers=2,
            num_heads=2,
        ),
        vision=VisionConfig(
            width=16,
            feedforward_width=32,
            num_layers=1,
            num_heads=2,
            image_size=28,
            patch_size=14,
        ),
        num_latents=3,
    )
    network = Network(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    huggingface.save(network.eval(), tokenizer, folder, dtype=torch.float32)
    return folder
