"""The released model's names and shapes, without its weights: everything is on the meta device."""

import pytest
import torch
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos2.model import ModelConfig, Network
from kosmos2.weights.mapping import HUGGINGFACE, ORIGINAL, Shape
from kosmos2.weights.tensors import parameter_shapes


@pytest.fixture(scope="module")
def shapes() -> dict[str, Shape]:
    with torch.device("meta"):
        return parameter_shapes(Network(ModelConfig()))


def num_numbers(shapes: dict[str, Shape], prefix: str) -> int:
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if prefix in name)


def test_the_full_size_has_885_tensors_and_1664485376_parameters(shapes: dict[str, Shape]) -> None:
    assert len(shapes) == 885
    assert num_numbers(shapes, "") == 1_664_485_376
    assert num_numbers(shapes, "vision.") == 303_179_776
    assert num_numbers(shapes, "resampler.") == 19_015_680
    assert num_numbers(shapes, "decoder.") == 1_342_289_920
    assert num_numbers(shapes, "decoder.blocks.0.") == 50_378_752


def test_every_name_and_shape_is_that_of_transformers(shapes: dict[str, Shape]) -> None:
    with torch.device("meta"):
        theirs = Kosmos2ForConditionalGeneration(Kosmos2Config())
    expected = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert expected.pop(HUGGINGFACE.tied) == expected["text_model.model.embed_tokens.weight"]
    assert {HUGGINGFACE.theirs(name): shape for name, shape in shapes.items()} == expected


def test_the_defaults_of_our_sizes_are_those_of_transformers() -> None:
    ours, theirs = ModelConfig(), Kosmos2Config()
    text, vision = theirs.text_config, theirs.vision_config
    assert ours.num_latents == theirs.latent_query_num
    assert (ours.text.width, ours.text.feedforward_width) == (text.embed_dim, text.ffn_dim)
    assert (ours.text.num_layers, ours.text.num_heads) == (text.layers, text.attention_heads)
    assert (ours.text.vocab_size, ours.text.norm_eps) == (text.vocab_size, text.layer_norm_eps)
    assert ours.text.max_positions == text.max_position_embeddings
    assert ours.text.dropout == text.dropout
    assert ours.text.attention_dropout == text.attention_dropout
    assert ours.text.activation_dropout == text.activation_dropout
    assert ours.text.scale_embedding == text.scale_embedding
    assert (ours.vision.width, ours.vision.num_layers) == (
        vision.hidden_size,
        vision.num_hidden_layers,
    )
    assert ours.vision.feedforward_width == vision.intermediate_size
    assert ours.vision.num_heads == vision.num_attention_heads
    assert (ours.vision.image_size, ours.vision.patch_size) == (224, 14)
    assert ours.vision.norm_eps == vision.layer_norm_eps
    assert ours.vision.attention_dropout == vision.attention_dropout


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        ("decoder.embedding.weight", "gpt_model.decoder.embed_tokens.weight", (65037, 2048)),
        ("decoder.norm.bias", "gpt_model.decoder.layer_norm.bias", (2048,)),
        (
            "decoder.blocks.23.mixed_norm.weight",
            "gpt_model.decoder.layers.23.self_attn.inner_attn_ln.weight",
            (2048,),
        ),
        (
            "decoder.blocks.7.attention_norm.bias",
            "gpt_model.decoder.layers.7.self_attn_layer_norm.bias",
            (2048,),
        ),
        (
            "decoder.blocks.0.feedforward_norm.weight",
            "gpt_model.decoder.layers.0.final_layer_norm.weight",
            (2048,),
        ),
        (
            "decoder.blocks.11.expanded_norm.weight",
            "gpt_model.decoder.layers.11.ffn.ffn_layernorm.weight",
            (8192,),
        ),
        (
            "decoder.blocks.1.contract.weight",
            "gpt_model.decoder.layers.1.ffn.fc2.weight",
            (2048, 8192),
        ),
        ("resampler.input.weight", "img_connector.dense.weight", (2048, 1024)),
        ("resampler.latents", "img_connector.latent_query", (64, 2048)),
        ("resampler.output.bias", "img_connector.x_attn.out_proj.bias", (2048,)),
        ("vision.class_embedding", "img_model.visual.class_embedding", (1024,)),
        ("vision.positions", "img_model.visual.positional_embedding", (257, 1024)),
        ("vision.patches.weight", "img_model.visual.conv1.weight", (1024, 3, 14, 14)),
        ("vision.input_norm.bias", "img_model.visual.ln_pre.bias", (1024,)),
        ("vision.output_norm.weight", "img_model.visual.ln_post.weight", (1024,)),
        (
            "vision.blocks.5.value.weight",
            "img_model.visual.transformer.resblocks.5.ts_attn.v_proj.weight",
            (1024, 1024),
        ),
        (
            "vision.blocks.9.attention_norm.weight",
            "img_model.visual.transformer.resblocks.9.ln_1.weight",
            (1024,),
        ),
        (
            "vision.blocks.23.expand.weight",
            "img_model.visual.transformer.resblocks.23.mlp.c_fc.weight",
            (4096, 1024),
        ),
        (
            "vision.blocks.2.contract.bias",
            "img_model.visual.transformer.resblocks.2.mlp.c_proj.bias",
            (1024,),
        ),
    ],
)
def test_the_originals_names_are_those_of_the_released_file(
    ours: str, theirs: str, shape: Shape, shapes: dict[str, Shape]
) -> None:
    assert ORIGINAL.theirs(ours) == theirs
    assert shapes[ours] == shape
