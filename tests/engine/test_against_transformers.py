"""Token-for-token equality with transformers' generate on tiny random models."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from engine_cases import CONFIG, NUM_LATENTS, VOCABULARY, engine_of, network, prompt
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration
from transformers.models.kosmos2.configuration_kosmos2 import (
    Kosmos2TextConfig,
    Kosmos2VisionConfig,
)

from kosmos2.engine import Engine, Request, Rules, StopReason, compat
from kosmos2.engine.build import from_network
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.vocab.special import Vocabulary
from kosmos2.weights.mapping import HUGGINGFACE

EOS, PAD = VOCABULARY.eos, VOCABULARY.pad


def as_transformers(ours: Network) -> Kosmos2ForConditionalGeneration:
    """Return transformers' model with the same weights."""
    config = ours.config
    text = Kosmos2TextConfig(
        vocab_size=config.text.vocab_size,
        max_position_embeddings=config.text.max_positions,
        embed_dim=config.text.width,
        layers=config.text.num_layers,
        ffn_dim=config.text.feedforward_width,
        attention_heads=config.text.num_heads,
    )
    vision = Kosmos2VisionConfig(
        hidden_size=config.vision.width,
        intermediate_size=config.vision.feedforward_width,
        num_hidden_layers=config.vision.num_layers,
        num_attention_heads=config.vision.num_heads,
        image_size=config.vision.image_size,
        patch_size=config.vision.patch_size,
    )
    theirs = Kosmos2ForConditionalGeneration(
        Kosmos2Config(
            text_config=text.to_dict(),
            vision_config=vision.to_dict(),
            latent_query_num=config.num_latents,
        )
    )
    state = {HUGGINGFACE.theirs(name): value for name, value in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (set(missing), unexpected) <= ({HUGGINGFACE.tied}, [])
    theirs.tie_weights()
    return theirs.eval().to(ours.decoder.embedding.weight.dtype)


@cache
def single(seed: int) -> Network:
    """Return the model in float32: transformers' mask overflows in float64."""
    return deepcopy(network(seed)).float()


@cache
def theirs(seed: int) -> Kosmos2ForConditionalGeneration:
    return as_transformers(single(seed))


def generate(seed: int, request: Request, **settings: float) -> list[int]:
    """Return the new tokens of transformers, an end of text included."""
    ids_BT = torch.tensor([request.ids])
    inputs = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
    if request.latents:
        inputs["image_embeds"] = torch.stack(request.latents).float()
        inputs["image_embeds_position_mask"] = torch.tensor([request.image_mask])
    with torch.no_grad():
        ids = theirs(seed).text_model.generate(
            **inputs,
            **{
                "do_sample": False,
                "no_repeat_ngram_size": 3,
                "max_new_tokens": request.max_new_tokens,
                **settings,
            },
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    new: list[int] = ids[0, ids_BT.shape[1] :].tolist()
    return new


def ours(seed: int, request: Request) -> list[int]:
    answer = engine_of(single(seed)).generate([request])[0]
    return [*answer.ids, *[EOS] * (answer.stop is StopReason.EOS)]


@pytest.mark.parametrize("num_images", [0, 1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_greedy_text_is_the_same(seed: int, num_images: int) -> None:
    request = prompt(seed, num_images, 3, rules=compat("transformers"), max_new_tokens=24)
    assert ours(seed, request) == generate(seed, request)


def test_the_same_picture_gives_the_same_text() -> None:
    pixels_NCYX = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(5))
    engine = engine_of(single(0))
    request = replace(
        prompt(0, 1, 3, rules=compat("transformers")),
        latents=tuple(engine.encode_images(pixels_NCYX)),
    )
    ids_BT = torch.tensor([request.ids])
    with torch.no_grad():
        expected = theirs(0).generate(
            pixel_values=pixels_NCYX,
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            image_embeds_position_mask=torch.tensor([request.image_mask]),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            no_repeat_ngram_size=3,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    assert [*request.ids, *ours(0, request)] == expected[0].tolist()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ngrams_of_any_size_are_the_same(size: int) -> None:
    rules = replace(compat("transformers"), ngram_size=size)
    request = prompt(1, 1, 3, rules=rules, max_new_tokens=24)
    assert ours(1, request) == generate(1, request, no_repeat_ngram_size=size)


def test_texts_longer_than_the_table_of_positions_are_the_same() -> None:
    length = 3 * CONFIG.text.max_positions
    request = prompt(1, 1, 3, rules=compat("transformers"), max_new_tokens=length)
    text = ours(1, request)
    assert len(text) > 2 * CONFIG.text.max_positions
    assert text == generate(1, request)


def test_a_left_padded_row_has_the_text_that_transformers_gives_it_alone() -> None:
    # In a padded batch transformers 5 itself does not: with a cache it counts padding as text.
    short, long = (prompt(3, *sizes, rules=compat("transformers")) for sizes in ((0, 2), (2, 6)))
    padded = engine_of(single(3)).generate([short, long])[0]
    assert [*padded.ids, *[EOS] * (padded.stop is StopReason.EOS)] == generate(3, short)


# --- the golden vectors of the specification (transformers 5.23, weights by formula)


def test_the_golden_greedy_tokens_are_reproduced() -> None:
    vocabulary = Vocabulary(num_pieces=65, bins=4)
    model = Network(
        ModelConfig(
            text=TextConfig(
                vocab_size=97, width=32, feedforward_width=64, num_layers=2, num_heads=4
            ),
            vision=VisionConfig(
                width=24,
                feedforward_width=48,
                num_layers=2,
                num_heads=3,
                image_size=28,
                patch_size=14,
            ),
            num_latents=NUM_LATENTS,
        )
    ).eval()
    _fill_by_formula(model)
    pixels_NCYX = torch.sin(0.05 * torch.arange(2 * 3 * 28 * 28)).view(2, 3, 28, 28)
    engine = Engine(from_network(model), vocabulary)
    latents_NQD = engine.encode_images(pixels_NCYX)
    rows = [(0, 5, 4, 5, 6, 7, 20, 33, 41, 9), (0, 5, 4, 5, 6, 7, 50, 61, 72, 88)]
    requests = [
        Request(
            ids=row,
            image_mask=tuple(2 <= at <= 4 for at in range(10)),
            latents=(latents_NQD[index],),
            max_new_tokens=6,
            rules=Rules(no_repeat=compat("transformers").no_repeat),
        )
        for index, row in enumerate(rows)
    ]
    assert [list(answer.ids) for answer in engine.generate(requests)] == [
        [96, 82, 75, 29, 6, 6],
        [93, 61, 45, 91, 91, 91],
    ]


def _fill_by_formula(model: Network) -> None:
    parameters = dict(model.named_parameters())
    order = sorted(parameters, key=HUGGINGFACE.theirs)
    with torch.no_grad():
        for index, name in enumerate(order):
            parameter = parameters[name]
            flat = torch.arange(parameter.numel(), dtype=torch.float64)
            wave = torch.sin(0.1 * index + 0.7 * flat).view(parameter.shape)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * wave)
            else:
                parameter.copy_((0.1 if parameter.dim() == 1 else 0.2) * wave)
