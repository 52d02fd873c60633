"""The rules through the engine: n-grams, and the original from the description of its algorithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from engine_cases import (
    OBJECT,
    OBJECT_END,
    VOCABULARY,
    engine_of,
    network,
    next_logits,
    prompt,
    scripted,
)

from kosmos2.engine import (
    Generation,
    NoRepeat,
    Request,
    Rules,
    StopReason,
    compat,
    original_max_new_tokens,
)
from kosmos2.errors import RequestError
from kosmos2.model import Network

EOS, PAD = VOCABULARY.eos, VOCABULARY.pad
SEEDS = range(4)


def answer(seed: int, request: Request) -> Generation:
    return engine_of(network(seed)).generate([request])[0]


# --- the original, from the description of its algorithm


def slow_original(model: Network, request: Request, max_len: int) -> list[int]:
    """Return what the original generates, its closing end of text included.

    The buffer holds start, prompt and answer; step s chooses token s + 1; step max_len is forced
    to be an end of text; the first new token knows no n-gram rule, and its end of text no end.
    """
    tokens = list(request.ids)
    first_step = len(tokens) - 1
    for step in range(first_step, max_len + 1):
        scores_V = next_logits(model, request, tokens[len(request.ids) :]).log_softmax(-1)
        scores_V[PAD] = -math.inf
        if step >= max_len:
            scores_V[:EOS] = -math.inf
            scores_V[EOS + 1 :] = -math.inf
        elif step > first_step:
            scores_V[list(_banned(tokens, 3))] = -math.inf
        tokens.append(int(scores_V.argmax()))
        if tokens[-1] == EOS and step > first_step:
            break
    return tokens[len(request.ids) :]


def _banned(tokens: Sequence[int], size: int) -> set[int]:
    followers: dict[tuple[int, ...], set[int]] = {}
    for gram in zip(*(tokens[shift:] for shift in range(size)), strict=False):
        followers.setdefault(gram[:-1], set()).add(gram[-1])
    return followers.get(tuple(tokens[len(tokens) - size + 1 :]), set())


@pytest.mark.parametrize("num_images", [0, 1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_compat_original_equals_the_original_s_algorithm(seed: int, num_images: int) -> None:
    max_len = 40
    request = prompt(seed, num_images, 3, rules=compat("original"))
    request = replace(request, max_new_tokens=original_max_new_tokens(max_len, len(request.ids)))

    ours = answer(seed, request)

    assert [*ours.ids, EOS] == slow_original(network(seed), request, max_len)


def test_the_original_s_length_counts_the_prompt_but_neither_start_nor_end() -> None:
    assert original_max_new_tokens(500, 71) == 430
    with pytest.raises(RequestError, match="Use at least 600"):
        original_max_new_tokens(500, 600)


def test_only_the_original_goes_on_after_an_end_of_text_as_first_token() -> None:
    script = [EOS, 7, 8, EOS]
    ends = {}
    for mode in NoRepeat:
        request = prompt(0, 0, 2, rules=Rules(no_repeat=mode))
        ends[mode] = scripted(script, otherwise=30).generate([request])[0]
    assert {mode: end.ids for mode, end in ends.items()} == {
        NoRepeat.WORDS: (),
        NoRepeat.ORIGINAL: (EOS, 7, 8),
        NoRepeat.TRANSFORMERS: (),
        NoRepeat.OFF: (),
    }
    assert {end.stop for end in ends.values()} == {StopReason.EOS}


# --- the n-gram rule


def scripted_ids(script: Sequence[int], request: Request, otherwise: int = 30) -> tuple[int, ...]:
    request = replace(request, max_new_tokens=len(script))
    return scripted(script, otherwise).generate([request])[0].ids


def test_words_do_not_repeat_but_boxes_may() -> None:
    first, second = VOCABULARY.location(0), VOCABULARY.location(5)
    box = [OBJECT, first, second, OBJECT_END]
    script = [10, 11, 12, *box, *box, 10, 11, 12, *box]
    expected = {
        NoRepeat.WORDS: (10, 11, 12, *box, *box, 10, 11, 30, *box),
        NoRepeat.ORIGINAL: (10, 11, 12, *box, OBJECT, first, 30, OBJECT_END, 10, 11, 30, *box[:2]),
        NoRepeat.OFF: tuple(script),
    }
    for mode, ids in expected.items():
        got = scripted_ids(script, prompt(0, 0, 0, rules=Rules(no_repeat=mode)))
        assert got[: len(ids)] == ids


def test_words_around_a_tag_are_no_ngram() -> None:
    script = [10, OBJECT, 11, 12, 10, OBJECT, 11, 12]
    assert scripted_ids(script, prompt(0, 0, 0)) == tuple(script)


@pytest.mark.parametrize(
    ("mode", "third"), [("words", 6), ("original", 30), ("transformers", 30), ("off", 6)]
)
def test_image_slots_count_as_words_only_in_the_references(mode: str, third: int) -> None:
    # As in both references, where the slots hold the ids of the first words.
    request = prompt(0, 1, 0, rules=Rules(no_repeat=NoRepeat(mode)))
    assert request.ids[2:5] == (4, 5, 6)
    assert scripted_ids([4, 5, 6], request) == (4, 5, third)


@pytest.mark.parametrize(
    ("mode", "first"), [("words", 30), ("original", 12), ("transformers", 30), ("off", 12)]
)
def test_the_first_new_token_is_free_only_in_the_original(mode: str, first: int) -> None:
    request = replace(
        prompt(0, 0, 5, rules=Rules(no_repeat=NoRepeat(mode))), ids=(0, 10, 11, 12, 10, 11)
    )
    assert scripted_ids([12], request) == (first,)


@pytest.mark.parametrize(("mode", "first"), [("words", 30), ("transformers", PAD)])
def test_padding_is_never_chosen_except_where_transformers_would(mode: str, first: int) -> None:
    request = prompt(0, 0, 2, rules=Rules(no_repeat=NoRepeat(mode)))
    assert scripted_ids([PAD], request) == (first,)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_three_words_come_twice_by_default(seed: int) -> None:
    ids = answer(seed, prompt(seed, 0, 3, max_new_tokens=60)).ids
    words = [
        gram
        for gram in zip(ids, ids[1:], ids[2:], strict=False)
        if all(VOCABULARY.is_piece(id) for id in gram)
    ]
    assert len(words) == len(set(words))
