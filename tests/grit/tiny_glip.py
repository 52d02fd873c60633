"""A GLIP of a few thousand random numbers, and its checkpoint as the reference would save it."""

from pathlib import Path

import torch
from tiny_detectors import bert_tokenizer
from torch import nn

from kosmos2.grit.glip.boxes import anchors
from kosmos2.grit.glip.network import Glip
from kosmos2.grit.glip.sizes import Sizes, TextSizes, VisionSizes

TINY = Sizes(
    text=TextSizes(vocab_size=1200, positions=64, width=128, feedforward_width=48, num_layers=2),
    vision=VisionSizes(width=8, depths=(2, 2, 3, 2), num_heads=(1, 2, 2, 4), window=4),
    channels=32,
    fusion_width=48,
    num_blocks=2,
)


def shaken(module: nn.Module, seed: int = 0, size: float = 0.3) -> nn.Module:
    """Return the module with random numbers everywhere, norms and biases too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return module.eval()


def tiny_glip(seed: int = 0) -> Glip:
    """Return a network that tells words and places apart."""
    torch.manual_seed(seed)
    network = Glip(TINY)
    shaken(network, seed, 0.1)
    with torch.no_grad():
        network.get_parameter("rpn.head.dot_product_projection_text.weight").mul_(20)
        network.get_parameter("rpn.head.bbox_pred.weight").mul_(10)
    return network


def checkpoint_of(network: Glip) -> dict[str, torch.Tensor]:
    """Return the model's tensors under the names of training, with all that is ignored."""
    state = dict(network.state_dict())
    state["rpn.head.cls_logits.weight"] = torch.randn(80, TINY.channels, 1, 1)
    state["rpn.head.cls_logits.bias"] = torch.randn(80)
    state["language_backbone.body.model.embeddings.position_ids"] = torch.arange(64)[None]
    state["backbone.body.layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(16, 16)
    for level in range(5):
        state[f"rpn.anchor_generator.cell_anchors.{level}"] = anchors(level, 1, 1)
    return {f"module.{name}": tensor for name, tensor in state.items()}


def glip_folder(path: Path, network: Glip) -> Path:
    """Write a checkpoint with an optimizer's things, and the tokenizer beside it."""
    bert_tokenizer().save_pretrained(path)
    things = {"optimizer": {"state": {0: torch.zeros(3)}}, "scheduler": {}, "iteration": 7}
    torch.save({"model": checkpoint_of(network), **things}, path / "glip_tiny.pth")
    return path
