"""Tiny random models, prompts and a slow, uncached reference for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from kosmos2.engine import Engine, Limits, Request
from kosmos2.engine.build import from_network
from kosmos2.model import ModelConfig, Network, TextConfig, VisionConfig
from kosmos2.vocab.special import Tag, Vocabulary

VOCABULARY = Vocabulary(num_pieces=40, bins=4)
OBJECT, OBJECT_END = VOCABULARY.tag(Tag.OBJECT), VOCABULARY.tag(Tag.OBJECT_END)
PHRASE, PHRASE_END = VOCABULARY.tag(Tag.PHRASE), VOCABULARY.tag(Tag.PHRASE_END)
DELIMITER = VOCABULARY.tag(Tag.DELIMITER)
NUM_LATENTS = 3

CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=VOCABULARY.size,
        width=32,
        feedforward_width=48,
        num_layers=2,
        num_heads=4,
        max_positions=16,
    ),
    vision=VisionConfig(
        width=24, feedforward_width=32, num_layers=1, num_heads=3, image_size=28, patch_size=14
    ),
    num_latents=NUM_LATENTS,
)


def fill(network: Network, seed: int, *, weight: float = 1.0) -> None:
    """Give every parameter random values; heavy weights make a text that rarely loops."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * values)
            elif name.endswith("bias"):
                parameter.copy_(0.05 * values)
            else:
                parameter.copy_((0.1 if "embedding" in name else weight) * values)


@cache
def network(seed: int) -> Network:
    tiny = Network(CONFIG).eval().double()
    fill(tiny, seed)
    return tiny


@cache
def latents(seed: int, num_images: int) -> tuple[Tensor, ...]:
    if not num_images:
        return ()
    generator = torch.Generator().manual_seed(100 + seed)
    pixels = torch.randn(num_images, 3, 28, 28, generator=generator).double()
    with torch.inference_mode():
        return tuple(network(seed).encode_images(pixels))


def prompt(seed: int, num_images: int, num_words: int, **settings: object) -> Request:
    """Return a request: start, words between the images, words."""
    generator = torch.Generator().manual_seed(200 + seed + 7 * num_images + num_words)
    ids, mask = [VOCABULARY.bos], [False]
    for _ in range(num_images):
        ids += [VOCABULARY.tag(Tag.IMAGE), *VOCABULARY.placeholders(NUM_LATENTS)]
        ids += [VOCABULARY.tag(Tag.IMAGE_END), 9]
        mask += [False, *[True] * NUM_LATENTS, False, False]
    words = torch.randint(4, VOCABULARY.mask, (num_words,), generator=generator).tolist()
    return Request(
        ids=(*ids, *words),
        image_mask=(*mask, *[False] * num_words),
        latents=latents(seed, num_images),
        **{"max_new_tokens": 12, **settings},  # type: ignore[arg-type]
    )


def next_logits(model: Network, request: Request, generated: Sequence[int]) -> Tensor:
    """Return logits_V after the whole text, read at once: no cache, no padding, no batch."""
    ids_BT = torch.tensor([[*request.ids, *generated]])
    mask_BT = torch.tensor([[*request.image_mask, *[False] * len(generated)]])
    latents_NQD = None
    if request.latents:
        latents_NQD = torch.stack(request.latents).to(model.decoder.embedding.weight)
    with torch.inference_mode():
        output = model(
            ids_BT,
            latents_NQD=latents_NQD,
            image_mask_BT=None if latents_NQD is None else mask_BT,
        )
    return output.logits_BTV[0, -1].float()


def slow_greedy(
    model: Network, request: Request, banned: Callable[[Sequence[int]], set[int]]
) -> list[int]:
    """Return the greedy text with `banned` of all tokens so far, an ending end of text included."""
    generated: list[int] = []
    while len(generated) < request.max_new_tokens:
        scores_V = next_logits(model, request, generated).clone()
        scores_V[[VOCABULARY.pad, *banned([*request.ids, *generated])]] = -torch.inf
        generated.append(int(scores_V.argmax()))
        if generated[-1] == VOCABULARY.eos:
            break
    return generated


def engine_of(model: Network, limits: Limits | None = None) -> Engine:
    return Engine(from_network(model), VOCABULARY, limits or Limits())


def scripted(script: Sequence[int], otherwise: int) -> Engine:
    """Return an engine that wants the tokens of a script, `otherwise` where one is forbidden."""
    rest = list(script)

    def logits(hidden_MD: Tensor) -> Tensor:
        logits_MV = torch.zeros(len(hidden_MD), VOCABULARY.size)
        logits_MV[:, otherwise] = 5.0
        logits_MV[:, rest.pop(0)] = 9.0
        return logits_MV

    engine = engine_of(network(0))
    engine.runner.logits = logits  # type: ignore[method-assign]
    return engine


def is_grounded(ids: Sequence[int], caption: Sequence[int], max_boxes: int) -> bool:
    """Tell whether ids are the caption, with phrases that each have a group of ordered boxes."""
    rest, words = list(ids), []
    while rest:
        id = rest.pop(0)
        if id != PHRASE:
            words.append(id)
            continue
        end = rest.index(PHRASE_END)
        words += rest[:end]
        close = rest.index(OBJECT_END)
        if end == 0 or not is_group(rest[end + 1 : close + 1], max_boxes):
            return False
        rest = rest[close + 1 :]
    return words == list(caption)


def is_group(ids: Sequence[int], max_boxes: int) -> bool:
    """Tell whether ids are one object group of ordered boxes."""
    if len(ids) % 3 != 1 or (ids[0], ids[-1]) != (OBJECT, OBJECT_END):
        return False
    inside = [*ids[1:-1], DELIMITER]
    boxes = [inside[at : at + 3] for at in range(0, len(inside), 3)]
    return 1 <= len(boxes) <= max_boxes and all(_is_box(*box) for box in boxes)


def _is_box(first: int, second: int, delimiter: int) -> bool:
    cells = [VOCABULARY.cell_of(first), VOCABULARY.cell_of(second)]
    if None in cells or delimiter != DELIMITER:
        return False
    corners = [divmod(cell, VOCABULARY.bins) for cell in cells if cell is not None]
    return all(low[0] <= high[0] and low[1] <= high[1] for low, high in pairwise(corners))
