"""Two slow beam searches that keep nothing: every text is read anew at every step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from engine_cases import VOCABULARY, network, next_logits

from kosmos2.engine import Beam, CaptionConstraint, Generation, NoRepeat, Request, StopReason
from kosmos2.engine.constraint import Gate

EOS, PAD = VOCABULARY.eos, VOCABULARY.pad


def caption_form(**settings: Any) -> CaptionConstraint:
    return CaptionConstraint(
        caption_ids=(10, 11, 12, 13), vocabulary=VOCABULARY, max_boxes=2, **settings
    )


def all_of(answer: Generation) -> list[Generation]:
    return [answer, *answer.others]


def texts_of(answer: Generation) -> list[tuple[list[int], float]]:
    """Return ids, an ending end of text included, and scores, the best first."""
    return [
        ([*each.ids, *[EOS] * (each.stop is StopReason.EOS)], each.score or 0.0)
        for each in all_of(answer)
    ]


def assert_texts(ours: Generation, expected: Sequence[tuple[list[int], float]]) -> None:
    texts = texts_of(ours)
    assert [ids for ids, _ in texts] == [ids for ids, _ in expected]
    scores = [score for _, score in texts]
    assert scores == pytest.approx([score for _, score in expected], rel=1e-5, abs=1e-5)


# --- as transformers searches


@dataclass(frozen=True)
class Text:
    """New tokens, the sum of their scores, and how many were chosen, not forced."""

    ids: tuple[int, ...] = ()
    total: float = 0.0
    choices: int = 0
    state: Any = None
    ended: bool = False


def slow_search(seed: int, request: Request) -> list[tuple[list[int], float]]:
    """Return the best texts and their scores as transformers finds them, forms respected.

    With the rule about words, or none.
    """
    beam = request.sampling
    assert isinstance(beam, Beam)
    form = request.constraint
    live = [forced(request, Text(state=form.start(request.ids) if form else None))]
    ended: list[tuple[float, Text]] = []
    while live:
        offered = [
            after(request, text, id, score)
            for text in live
            for id, score in best_offers(seed, request, text, 2 * beam.width)
        ]
        offered.sort(key=lambda text: -text.total)
        for text in [text for text in offered[: beam.width] if text.ended]:
            ended.append((text.total / text.choices**beam.length_penalty, text))
        ended = sorted(ended, key=lambda each: -each[0])[: beam.width]
        live = [text for text in offered if not text.ended][: beam.width]
        if live and len(ended) == beam.width:
            hope = live[0].total / live[0].choices ** beam.length_penalty
            if hope <= ended[-1][0]:
                break
    return [(list(text.ids), score) for score, text in ended[: beam.num_best]]


def best_offers(seed: int, request: Request, text: Text, most: int) -> list[tuple[int, float]]:
    logprobs_V = next_logits(network(seed), request, text.ids).log_softmax(-1)
    allowed = open_to(request, text)
    if isinstance(allowed, Gate):
        yes = float(logprobs_V[allowed.yes].exp())
        return [(allowed.yes, math.log(yes))] if yes >= 0.5 else [(allowed.no, math.log1p(-yes))]
    scores = logprobs_V.tolist()
    rest = range(len(scores)) if allowed is None else itertools.chain(*allowed)
    free = set(rest) - banned(request, text)
    return sorted(((id, scores[id]) for id in free), key=lambda each: -each[1])[:most]


def banned(request: Request, text: Text) -> set[int | None]:
    if request.rules.no_repeat is NoRepeat.OFF:
        return {PAD}
    assert request.rules.no_repeat is NoRepeat.WORDS
    prompt = zip(request.ids, request.image_mask, strict=True)
    tokens = [None if in_image else id for id, in_image in prompt]
    words = [id if id and VOCABULARY.is_piece(id) else None for id in (*tokens, *text.ids)]
    return {PAD, *(set() if None in words[-2:] else followers(words, 3))}


def followers(tokens: Sequence[int | None], size: int) -> set[int | None]:
    grams = list(zip(*(tokens[at:] for at in range(size)), strict=False))
    return {gram[-1] for gram in grams if gram[:-1] == tuple(tokens[-size + 1 :])}


def open_to(request: Request, text: Text) -> Any:
    if request.constraint is None:
        return None
    return request.constraint.allowed(text.state, max(request.max_new_tokens - len(text.ids), 1))


def after(request: Request, text: Text, id: int, score: float) -> Text:
    text = replace(text, total=text.total + score, choices=text.choices + 1)
    if id == EOS:
        return replace(text, ids=(*text.ids, id), ended=True)
    return forced(request, written(request, text, id))


def written(request: Request, text: Text, id: int) -> Text:
    state = request.constraint.advance(text.state, id) if request.constraint else None
    text = replace(text, ids=(*text.ids, id), state=state)
    done = len(text.ids) == request.max_new_tokens or open_to(request, text) == ()
    return replace(text, ended=done)


def forced(request: Request, text: Text) -> Text:
    while request.constraint and not text.ended:
        allowed = open_to(request, text)
        ids = [] if isinstance(allowed, Gate) else list(itertools.chain(*allowed))
        if len(ids) != 1 or VOCABULARY.cell_of(ids[0]) is not None:
            break
        text = written(request, text, ids[0])
    return text


# --- as the original searches, from the description of its algorithm


def slow_original(seed: int, request: Request, max_len: int) -> list[tuple[list[int], float]]:
    """Return the texts, without their end, and scores of the original's search.

    Step s chooses token s + 1 of a buffer of start, prompt and answer; step max_len is forced to be
    an end of text; the first new token knows no n-gram rule, and its end of text no end. A score is
    the mean over all tokens but the start; `width` ended texts end the search.
    """
    beam = request.sampling
    assert isinstance(beam, Beam)
    first_step = len(request.ids) - 1
    live = [(prompt_logprob(seed, request), list(request.ids))]
    ended: list[tuple[float, list[int]]] = []
    for step in range(first_step, max_len + 1):
        offered = []
        for total, tokens in live:
            scores_V = next_logits(network(seed), request, tokens[first_step + 1 :]).log_softmax(-1)
            scores_V[PAD] = -math.inf
            if step >= max_len:
                scores_V[:EOS] = scores_V[EOS + 1 :] = -math.inf
            elif step > first_step:
                scores_V[list(followers(tokens, 3))] = -math.inf
            offered += [(total + s, [*tokens, id]) for id, s in enumerate(scores_V.tolist())]
        offered = sorted(offered, key=lambda each: -each[0])[: 2 * beam.width]
        ends = [tokens[-1] == EOS and step > first_step and s > -math.inf for s, tokens in offered]
        for is_end, (total, tokens) in list(zip(ends, offered, strict=True))[: beam.width]:
            if is_end and len(ended) < beam.width:
                ended.append((total / (step + 1) ** beam.length_penalty, tokens))
        live = [each for is_end, each in zip(ends, offered, strict=True) if not is_end][
            : beam.width
        ]
        if len(ended) == beam.width:
            break
    ended.sort(key=lambda each: -each[0])
    return [(tokens[first_step + 1 : -1], score) for score, tokens in ended[: beam.num_best]]


def prompt_logprob(seed: int, request: Request) -> float:
    model = network(seed)
    latents_NQD = torch.stack(request.latents) if request.latents else None
    mask_BT = torch.tensor([request.image_mask]) if request.latents else None
    with torch.inference_mode():
        logits_BTV = model(
            torch.tensor([request.ids]), latents_NQD=latents_NQD, image_mask_BT=mask_BT
        ).logits_BTV
    logprobs_TV = logits_BTV[0].log_softmax(-1)
    return sum(float(logprobs_TV[at, id]) for at, id in enumerate(request.ids[1:]))
