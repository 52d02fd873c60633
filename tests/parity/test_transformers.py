"""Our network and transformers' one: the same numbers from the same files, both ways."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_cases import (
    TINY,
    image_mask_at,
    random_ids,
    random_network,
    random_pixels,
    with_vocabulary,
)
from transformers import AutoProcessor, Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos2 import images
from kosmos2.model import (
    ModelConfig,
    Network,
    TextConfig,
    VisionConfig,
    masked_loss,
)
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import ImageSlot, Tokenizer
from kosmos2.weights import huggingface
from kosmos2.weights.mapping import HUGGINGFACE
from kosmos2.weights.tensors import StateSource, assemble

CPU = torch.device("cpu")
OTHER = ModelConfig(
    text=TextConfig(
        vocab_size=61,
        width=24,
        feedforward_width=40,
        num_layers=3,
        num_heads=2,
        max_positions=40,
        norm_eps=1e-3,
        scale_embedding=False,
    ),
    vision=VisionConfig(
        width=16,
        feedforward_width=20,
        num_layers=1,
        num_heads=4,
        image_size=32,
        patch_size=8,
        norm_eps=1e-4,
    ),
    num_latents=1,
)
CONFIGS = pytest.mark.parametrize("config", [TINY, OTHER], ids=["tiny", "other"])


@pytest.fixture
def double() -> Iterator[None]:
    """Makes double the default type: transformers builds its masks in it, and overflows else."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def as_transformers(network: Network) -> Any:
    """The same network in transformers, its weights handed over in memory."""
    config = Kosmos2Config(**huggingface.format_config(network.config, torch.float32))
    theirs = Kosmos2ForConditionalGeneration(config).eval()
    state = {HUGGINGFACE.theirs(ours): tensor for ours, tensor in network.state_dict().items()}
    state[HUGGINGFACE.tied] = network.decoder.embedding.weight.detach()
    theirs.load_state_dict(state, strict=True)
    return theirs.to(network.decoder.embedding.weight.dtype)


def prompt(config: ModelConfig, *, batch: int = 2, length: int = 11) -> tuple[Any, Any]:
    """Ids and the mask of one image from position 2 on, in every row."""
    mask_T = image_mask_at(length, 2, num_latents=config.num_latents)
    return random_ids(config, batch, length), mask_T.expand(batch, -1)


@CONFIGS
@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_every_activation_equals_that_of_transformers_in_double_precision(
    config: ModelConfig,
) -> None:
    check_activations(config)


@CONFIGS
@torch.no_grad()
def test_every_activation_equals_that_of_transformers_in_single_precision(
    config: ModelConfig,
) -> None:
    check_activations(config)


def check_activations(config: ModelConfig) -> None:
    ours = random_network(config)
    theirs = as_transformers(ours)
    pixels_NCYX = random_pixels(config, 2)
    ids_BT, image_mask_BT = prompt(config)

    output = ours(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT)
    expected = theirs(
        pixel_values=pixels_NCYX,
        input_ids=ids_BT,
        image_embeds_position_mask=image_mask_BT.long(),
        attention_mask=torch.ones_like(ids_BT),
        output_hidden_states=True,
    )

    hidden_NPE = expected.vision_model_output.last_hidden_state
    torch.testing.assert_close(ours.vision.hidden(pixels_NCYX), hidden_NPE)
    unit_NPE = F.normalize(theirs.vision_model.model.post_layernorm(hidden_NPE), dim=-1)
    torch.testing.assert_close(ours.vision(pixels_NCYX), unit_NPE)
    torch.testing.assert_close(output.latents_NQD, expected.image_embeds)
    assert len(output.hidden_states) == len(expected.hidden_states) == config.text.num_layers + 1
    for hidden_BTD, expected_BTD in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(hidden_BTD, expected_BTD)
    torch.testing.assert_close(output.logits_BTV, expected.logits)


@CONFIGS
@torch.no_grad()
def test_transformers_loads_what_we_save(
    config: ModelConfig, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    ours = random_network(with_vocabulary(config, tiny_tokenizer))
    huggingface.save(ours, tiny_tokenizer, tmp_path, dtype=torch.float32)

    theirs, report = Kosmos2ForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )

    assert not any(report.values())
    ids_BT, image_mask_BT = prompt(config)
    pixels_NCYX = random_pixels(config, 2)
    torch.testing.assert_close(
        ours(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT).logits_BTV,
        theirs(
            pixel_values=pixels_NCYX,
            input_ids=ids_BT,
            image_embeds_position_mask=image_mask_BT.long(),
        ).logits,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
@torch.no_grad()
def test_we_load_what_transformers_saves(
    dtype: torch.dtype, max_shard_size: str, tmp_path: Path
) -> None:
    theirs = as_transformers(random_network(TINY)).to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)

    ours = huggingface.load(tmp_path, dtype=torch.float32, device=CPU)

    assert ours.config == TINY
    assert not ours.training
    theirs = theirs.float()
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(HUGGINGFACE.theirs(name)))


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_right_padding_changes_no_real_position() -> None:
    ours = random_network(TINY)
    ids_BT, image_mask_BT = prompt(TINY)
    pixels_NCYX = random_pixels(TINY, 2)
    ids_BT[1, 8:] = 1
    keep_BT = ids_BT != 1

    logits_BTV = ours(
        ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT, keep_BT=keep_BT
    ).logits_BTV
    expected_BTV = as_transformers(ours)(
        pixel_values=pixels_NCYX,
        input_ids=ids_BT,
        image_embeds_position_mask=image_mask_BT.long(),
        attention_mask=keep_BT.long(),
    ).logits
    torch.testing.assert_close(logits_BTV[keep_BT], expected_BTV[keep_BT])

    alone_TV = ours(
        ids_BT[1:, :8], pixels_NCYX=pixels_NCYX[1:], image_mask_BT=image_mask_BT[1:, :8]
    ).logits_BTV[0]
    torch.testing.assert_close(logits_BTV[1, :8], alone_TV)


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_left_padding_changes_no_real_position() -> None:
    ours = random_network(TINY)
    ids_BT, image_mask_BT = prompt(TINY, batch=1)
    pixels_NCYX = random_pixels(TINY, 1)
    alone = ours(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT).logits_BTV

    padded_BT = F.pad(ids_BT, (4, 0), value=1)
    padded_mask_BT = F.pad(image_mask_BT, (4, 0))
    keep_BT = padded_BT != 1
    logits_BTV = ours(
        padded_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=padded_mask_BT, keep_BT=keep_BT
    ).logits_BTV
    torch.testing.assert_close(logits_BTV[:, 4:], alone)

    expected_BTV = as_transformers(ours)(
        pixel_values=pixels_NCYX,
        input_ids=padded_BT,
        image_embeds_position_mask=padded_mask_BT.long(),
        attention_mask=keep_BT.long(),
    ).logits
    torch.testing.assert_close(logits_BTV[:, 4:], expected_BTV[:, 4:])


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_transformers_miscounts_positions_after_left_padding_and_we_do_not() -> None:
    # transformers 4.57 to 5.23: a cached step's position counts the padding.
    ours = random_network(TINY)
    theirs = as_transformers(ours).text_model
    ids_BT = random_ids(TINY, 1, 7)
    padded_BT = F.pad(ids_BT, (4, 0), value=1)
    keep_BT = padded_BT != 1
    alone_V = ours(ids_BT).logits_BTV[0, -1]

    prefill = theirs(
        input_ids=padded_BT[:, :-1], attention_mask=keep_BT[:, :-1].long(), use_cache=True
    )
    step = theirs(
        input_ids=padded_BT[:, -1:],
        attention_mask=keep_BT.long(),
        past_key_values=prefill.past_key_values,
        use_cache=True,
    )
    assert (step.logits[0, -1] - alone_V).abs().max() > 0.01

    ours_V = ours(padded_BT, keep_BT=keep_BT).logits_BTV[0, -1]
    torch.testing.assert_close(ours_V, alone_V)


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_several_images_anywhere_in_a_sequence() -> None:
    ours = random_network(TINY)
    pixels_NCYX = random_pixels(TINY, 3)
    ids_BT = random_ids(TINY, 2, 14)
    image_mask_BT = torch.stack(
        [image_mask_at(14, 1, 8, num_latents=3), image_mask_at(14, 11, num_latents=3)]
    )

    output = ours(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT)
    expected = as_transformers(ours)(
        pixel_values=pixels_NCYX,
        input_ids=ids_BT,
        image_embeds_position_mask=image_mask_BT.long(),
        attention_mask=torch.ones_like(ids_BT),
    )
    torch.testing.assert_close(output.logits_BTV, expected.logits)


@torch.no_grad()
def test_the_loss_over_every_token_is_that_of_transformers() -> None:
    ours = random_network(TINY)
    ids_BT, image_mask_BT = prompt(TINY)
    pixels_NCYX = random_pixels(TINY, 2)
    logits_BTV = ours(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT).logits_BTV
    expected = as_transformers(ours)(
        pixel_values=pixels_NCYX,
        input_ids=ids_BT,
        image_embeds_position_mask=image_mask_BT.long(),
        labels=ids_BT,
    ).loss
    torch.testing.assert_close(masked_loss(logits_BTV, ids_BT, torch.ones(2, 11)), expected)


@pytest.mark.usefixtures("double")
@torch.no_grad()
def test_positions_beyond_the_table_equal_the_grown_table_of_transformers() -> None:
    ours = random_network(TINY)
    ids_BT = random_ids(TINY, 1, TINY.text.max_positions + 20)
    expected_BTV = as_transformers(ours).text_model(input_ids=ids_BT).logits
    torch.testing.assert_close(ours(ids_BT).logits_BTV, expected_BTV)


@pytest.mark.usefixtures("double")
def test_gradients_equal_those_of_transformers() -> None:
    ours = random_network(TINY)
    theirs = as_transformers(ours)
    ids_BT, image_mask_BT = prompt(TINY)
    pixels_NCYX = random_pixels(TINY, 2)

    output = ours(ids_BT, pixels_NCYX=pixels_NCYX, image_mask_BT=image_mask_BT)
    output.logits_BTV.square().mean().backward()
    expected = theirs(
        pixel_values=pixels_NCYX,
        input_ids=ids_BT,
        image_embeds_position_mask=image_mask_BT.long(),
    )
    expected.logits.square().mean().backward()

    for name, parameter in ours.named_parameters():
        expected_grad = theirs.get_parameter(HUGGINGFACE.theirs(name)).grad
        torch.testing.assert_close(parameter.grad, expected_grad, msg=lambda m, n=name: f"{n}: {m}")


def test_the_processor_of_transformers_reads_our_folder_alike(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    network = random_network(with_vocabulary(TINY, tiny_tokenizer))
    huggingface.save(network, tiny_tokenizer, tmp_path, dtype=torch.float32)
    picture = images.load(stripes(width=70, height=40))

    processor = AutoProcessor.from_pretrained(tmp_path)
    batch = processor(
        images=picture, text="<grounding>a red dog", num_image_tokens=3, return_tensors="pt"
    )

    encoded = tiny_tokenizer.encode([ImageSlot(), Tag.GROUNDING, "a red dog"], num_latents=3)
    assert batch["input_ids"].tolist() == [list(encoded.ids)]
    assert batch["image_embeds_position_mask"].bool().tolist() == [list(encoded.image_mask)]
    size = network.config.vision.image_size
    torch.testing.assert_close(batch["pixel_values"][0], images.preprocess(picture, size))
    assert len(processor.tokenizer) == tiny_tokenizer.vocabulary.size


def stripes(*, width: int, height: int) -> Any:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 6, columns * 3, rows + columns], axis=-1).astype(np.uint8)


def test_a_state_dict_in_memory_fills_a_network() -> None:
    theirs = as_transformers(random_network(TINY))
    source = StateSource({name: tensor.detach() for name, tensor in theirs.state_dict().items()})
    ours = assemble(TINY, HUGGINGFACE, source, dtype=torch.float32, device=CPU)
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, theirs.get_parameter(HUGGINGFACE.theirs(name)))
