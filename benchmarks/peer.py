"""The peer: transformers' Kosmos-2 at its best honest setting (sdpa, cache, inference mode)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Kosmos2Config, Kosmos2ForConditionalGeneration

from benchmarks import weights
from benchmarks.prompts import Prompts
from kosmos2.model import ModelConfig
from kosmos2.weights import huggingface

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class PeerRows:
    """Rows in the middle of their answers."""

    cache: DynamicCache
    next_B1: Tensor


class Peer:
    """transformers' model behind the calls that the tables make."""

    def __init__(self, model: Kosmos2ForConditionalGeneration, precision: str) -> None:
        self.model = model
        self._text: Any = model.config.text_config
        self.precision = precision
        self.name = f"transformers {precision}"

    @torch.inference_mode()
    def encode(self, pixels_NCYX: Tensor) -> Tensor:
        """Return latents_NQD."""
        hidden = self.model.vision_model(pixels_NCYX.to(self.model.dtype))[0]
        features = self.model.vision_model.model.post_layernorm(hidden)
        features = nn.functional.normalize(features, dim=-1)
        latents_NQD: Tensor = self.model.image_to_text_projection(features)[0]
        return latents_NQD

    @torch.inference_mode()
    def prefill(self, prompts: Prompts, latents_NQD: Tensor) -> PeerRows:
        """Read the prompts; return the rows with their first new tokens."""
        cache = self._new_cache()
        logits = self.model.text_model(
            input_ids=prompts.ids_BT,
            image_embeds=latents_NQD,
            image_embeds_position_mask=prompts.image_mask_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return PeerRows(cache, logits[:, -1].argmax(dim=-1, keepdim=True))

    @torch.inference_mode()
    def filled(self, rows: int, past: int) -> PeerRows:
        """Return rows with a random past, to time steps far into a text."""
        text = self._text
        heads, layers = text.attention_heads, text.layers
        cache = self._new_cache()
        for layer in range(layers):
            shape = (rows, heads, past, text.embed_dim // heads)
            key, value = torch.randn(shape), torch.randn(shape)
            cache.update(key.to(self.model.dtype), value.to(self.model.dtype), layer)
        return PeerRows(cache, torch.arange(100, 100 + rows)[:, None])

    @torch.inference_mode()
    def step(self, rows: PeerRows) -> None:
        """Read the newest tokens, choose the next ones greedily."""
        logits = self.model.text_model(
            input_ids=rows.next_B1, past_key_values=rows.cache, use_cache=True
        ).logits
        rows.next_B1 = logits[:, -1].argmax(dim=-1, keepdim=True)

    def rewind(self, rows: PeerRows, past: int) -> None:
        """Forget the tokens behind the first `past` of each row."""
        rows.cache.crop(past - rows.cache.get_seq_length())

    def caption(self, pixels_NCYX: Tensor, prompts: Prompts, count: int) -> list[list[int]]:
        """Return the new tokens of each picture, by transformers' own `generate`."""
        return self._generate(prompts, count, {"pixel_values": pixels_NCYX.to(self.model.dtype)})

    def answer(self, prompts: Prompts, latents_QD: Tensor, count: int) -> list[list[int]]:
        """Return the new tokens of several prompts about one picture, as one batch."""
        latents_NQD = latents_QD.repeat(len(prompts.ids_BT), 1, 1)
        return self._generate(prompts, count, {"image_embeds": latents_NQD})

    @torch.inference_mode()
    def _generate(self, prompts: Prompts, count: int, image: dict[str, Tensor]) -> list[list[int]]:
        ids = self.model.generate(
            **image,
            input_ids=prompts.ids_BT,
            attention_mask=torch.ones_like(prompts.ids_BT),
            image_embeds_position_mask=prompts.image_mask_BT,
            max_new_tokens=count,
            do_sample=False,
            use_cache=True,
        )
        new: list[list[int]] = ids[:, prompts.ids_BT.shape[1] :].tolist()
        return new

    @torch.inference_mode()
    def score(self, prompts: Prompts, latents_NQD: Tensor) -> Tensor:
        """Return float32 logits_BTV of whole texts."""
        logits_BTV: Tensor = self.model.text_model(
            input_ids=prompts.ids_BT,
            image_embeds=latents_NQD,
            image_embeds_position_mask=prompts.image_mask_BT,
            use_cache=False,
        ).logits
        return logits_BTV.float()

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._text)


def build(config: ModelConfig) -> Peer:
    """Return the peer in float32 with random weights."""
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(_config(config))
    model = model.to_empty(device="cpu")
    model.tie_weights()
    weights.fill(model.named_parameters())
    return _ready(model, "fp32")


def cast(peer: Peer, config: ModelConfig, precision: str) -> Peer:
    """Return a peer of another precision with the same weights, rounded."""
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(_config(config))
    dtype = DTYPES[precision]
    state = {name: tensor.to(dtype) for name, tensor in peer.model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return _ready(model, precision)


def load(folder: Path, precision: str) -> Peer:
    """Return the peer from a model folder, as its users load it."""
    model = Kosmos2ForConditionalGeneration.from_pretrained(
        folder, dtype=DTYPES[precision], attn_implementation="sdpa"
    )
    return _endless(model, precision)


def _config(config: ModelConfig) -> Kosmos2Config:
    settings = Kosmos2Config(**huggingface.format_config(config, torch.float32))
    settings._attn_implementation = "sdpa"
    return settings


def _ready(model: Kosmos2ForConditionalGeneration, precision: str) -> Peer:
    """Compute the buffers that no state dict holds."""
    embeddings = model.vision_model.model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions).expand(1, -1)
    places = model.text_model.model.embed_positions
    table = places.get_embedding(
        places.num_positions + places.offset, places.embedding_dim, places.padding_idx
    )
    places.weights = table.to(DTYPES[precision])
    return _endless(model, precision)


def _endless(model: Kosmos2ForConditionalGeneration, precision: str) -> Peer:
    """Let no text end before its length."""
    generation = model.text_model.generation_config
    generation.eos_token_id, generation.pad_token_id = None, 1
    model.eval()  # type: ignore[no-untyped-call]
    return Peer(model, precision)
