"""Choosing for many rows at once, against the plainest way to choose for one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_choice import FIRST, SIZE, VOCABULARY, Case, Shape, request, slow_choice, slow_scores
from transformers.generation.logits_process import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from kosmos2.engine import Greedy, NoRepeat, Request, Rules, Sampling
from kosmos2.engine.chooser import Chooser
from kosmos2.engine.constraint import Allowed, Gate
from kosmos2.vocab.special import Vocabulary

CPU = torch.device("cpu")
WORDS = range(4, VOCABULARY.mask)


def chosen(cases: Sequence[Case]) -> list[tuple[int, float, float]]:
    """Return id, logprob and mass of each case, all chosen at once."""
    chooser, slots = Chooser(VOCABULARY, CPU), range(len(cases))
    for slot, case in enumerate(cases):
        chooser.put(slot, case.request)
        chooser.push(slot, case.pushed)
    logits_RV = torch.stack([case.logits_V for case in cases])
    before_RV = logits_RV.clone()
    answer = chooser.choose(logits_RV, slots, [case.allowed for case in cases]).host()
    torch.testing.assert_close(logits_RV, before_RV, rtol=0, atol=0, equal_nan=True)
    return list(zip(*answer, strict=True))


# --- cases of every kind

rules = st.builds(
    Rules,
    no_repeat=st.sampled_from(NoRepeat),
    ngram_size=st.integers(0, 3),
    repetition_penalty=st.sampled_from([1.0, 1.0, 0.7, 1.8]),
)
samplings = st.one_of(
    st.just(Greedy()),
    st.builds(
        Sampling,
        seed=st.integers(0, 2**64 - 1),
        temperature=st.sampled_from([0.3, 1.0, 2.5]),
        top_k=st.sampled_from([0, 1, 4, 12, SIZE, 999]),
        top_p=st.sampled_from([1.0, 0.35, 0.85]),
        min_p=st.sampled_from([0.0, 0.13]),
    ),
)
ranges = st.sets(st.integers(0, SIZE - 1), min_size=1, max_size=SIZE).map(
    lambda ids: tuple(range(id, id + 1) for id in sorted(ids))
)
gates = st.lists(st.integers(0, SIZE - 1), min_size=2, max_size=2, unique=True).map(
    lambda ids: Gate(*ids)
)
forms = st.one_of(st.none(), ranges, st.just((range(FIRST, SIZE),)), gates)
few_words = st.one_of(st.integers(4, 6), st.integers(0, SIZE - 1))


@st.composite
def cases(
    draw: st.DrawFn,
    samplings: st.SearchStrategy[Greedy | Sampling] = samplings,
    forms: st.SearchStrategy[Allowed] = forms,
) -> Case:
    ids = draw(st.lists(few_words, min_size=1, max_size=12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits_V = 3 * torch.randn(SIZE, generator=generator)
    if draw(st.booleans()):
        logits_V[4:7] += 5
    asked = request(
        ids, rules=draw(rules), sampling=draw(samplings), constraint=Shape(draw(st.booleans()))
    )
    mask = tuple(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    object.__setattr__(asked, "image_mask", mask)  # a picture is nothing to the chooser
    if draw(st.booleans()):
        object.__setattr__(asked, "constraint", None)
    pushed = draw(st.lists(few_words, max_size=8))
    return Case(asked, pushed, draw(forms), logits_V)


@given(st.lists(cases(), min_size=1, max_size=6))
@settings(max_examples=150)
def test_every_row_is_chosen_for_as_in_the_plainest_way(batch: list[Case]) -> None:
    for (id, logprob, mass), case in zip(chosen(batch), batch, strict=True):
        expected_id, expected_logprob, expected_mass = slow_choice(case)
        assert id == expected_id
        assert logprob == pytest.approx(expected_logprob, abs=1e-5)
        assert mass == pytest.approx(expected_mass, abs=1e-5, nan_ok=True)


@given(st.lists(cases(st.just(Greedy()), st.one_of(ranges, gates)), min_size=1, max_size=6))
def test_so_it_is_where_every_row_has_few_tokens_to_choose_from(batch: list[Case]) -> None:
    # The chooser looks at no other scores then.
    for (id, _, _), case in zip(chosen(batch), batch, strict=True):
        assert id == slow_choice(case)[0]


@given(st.lists(cases(), min_size=2, max_size=6), st.randoms())
def test_a_row_has_the_same_bits_alone_and_among_any_mates(
    batch: list[Case], random: object
) -> None:
    shuffled = list(batch)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    together = chosen(shuffled)
    for case, answer in zip(shuffled, together, strict=True):
        assert str(chosen([case])[0]) == str(answer)


def test_a_row_has_the_same_bits_with_the_vocabulary_of_the_released_model() -> None:
    vocabulary = Vocabulary(num_pieces=63_997)
    locations = (range(vocabulary.first_location, vocabulary.size),)
    boxes = Shape(free_text=False)
    kinds: list[tuple[Request, Allowed]] = [
        (request([0, 4, 5]), None),
        (request([0, 4], sampling=Sampling(seed=1, top_p=0.9)), None),
        (request([0, 4], sampling=Sampling(seed=2, top_k=50), constraint=boxes), locations),
        (request([0, 4], sampling=Sampling(seed=3, temperature=4.0, top_p=0.99)), None),
        (request([0, 4], constraint=boxes), locations),
    ]
    chooser = Chooser(vocabulary, CPU)
    for slot, (asked, _) in enumerate(kinds):
        chooser.put(slot, asked)
    generator = torch.Generator().manual_seed(0)
    logits_RV = 3 * torch.randn(len(kinds), vocabulary.size, generator=generator)
    allowed = [each for _, each in kinds]
    together = list(zip(*chooser.choose(logits_RV, range(5), allowed).host(), strict=True))
    for row, form in enumerate(allowed):
        alone = chooser.choose(logits_RV[row : row + 1], [row], [form]).host()
        assert str(tuple(each[0] for each in alone)) == str(together[row])


@given(st.lists(cases(), min_size=1, max_size=5))
def test_scores_for_beams_are_log_probabilities_after_the_rules(batch: list[Case]) -> None:
    chooser = Chooser(VOCABULARY, CPU)
    for slot, case in enumerate(batch):
        chooser.put(slot, case.request)
        chooser.push(slot, case.pushed)
    logits_RV = torch.stack([case.logits_V for case in batch])
    scores_RV = chooser.scores(logits_RV, range(len(batch)), [case.allowed for case in batch])
    for scores_V, case in zip(scores_RV, batch, strict=True):
        if isinstance(case.allowed, Gate):
            id, logprob, _ = slow_choice(case)
            expected = [logprob if other == id else -math.inf for other in range(SIZE)]
        else:
            expected = slow_scores(case, case.logits_V.log_softmax(-1).tolist())
        assert scores_V.tolist() == pytest.approx(expected, abs=1e-5)


@given(cases(), st.integers(1, 3), st.sampled_from([1.0, 1.6]))
def test_scores_are_those_of_transformers_processors(case: Case, size: int, penalty: float) -> None:
    theirs = LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(penalty), NoRepeatNGramLogitsProcessor(size)]
    )
    tokens = [*case.request.ids, *case.pushed]
    logprobs_RV = case.logits_V.log_softmax(-1)[None]
    asked = request(
        case.request.ids,
        rules=Rules(no_repeat=NoRepeat.TRANSFORMERS, ngram_size=size, repetition_penalty=penalty),
    )
    chooser = Chooser(VOCABULARY, CPU)
    chooser.put(0, asked)
    chooser.push(0, case.pushed)
    ours_RV = chooser.scores(case.logits_V[None], [0], [None])
    torch.testing.assert_close(ours_RV, theirs(torch.tensor([tokens]), logprobs_RV.clone()))


# --- rows come, go and move


# Under these rules the scores tell the whole history: its tokens, and what ends it.
TELLING = Rules(no_repeat=NoRepeat.TRANSFORMERS, ngram_size=2, repetition_penalty=1.5)
tokens = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12)


def assert_histories(chooser: Chooser, rows: dict[int, list[int]]) -> None:
    """Check that the row at each slot has this prompt and these tokens after it."""
    logits_V = torch.linspace(-4, 4, SIZE)
    logits_RV = logits_V.expand(len(rows), -1)
    scores_RV = chooser.scores(logits_RV, list(rows), [None] * len(rows))
    for scores_V, history in zip(scores_RV, rows.values(), strict=True):
        case = Case(request(history, rules=TELLING), [], None, logits_V)
        expected = slow_scores(case, logits_V.log_softmax(-1).tolist())
        assert scores_V.tolist() == pytest.approx(expected, abs=1e-5)


@given(st.data())
def test_a_row_that_was_moved_or_copied_goes_on_as_if_it_had_always_been_there(
    data: st.DataObject,
) -> None:
    chooser, rows = Chooser(VOCABULARY, CPU), dict[int, list[int]]()
    for _ in range(data.draw(st.integers(1, 15))):
        action = data.draw(st.sampled_from(["put", "push", "move", "reorder"]))
        if action == "put" or not rows:
            slot, ids = data.draw(st.integers(0, 20)), data.draw(tokens)
            chooser.put(slot, request(ids, rules=TELLING))
            rows[slot] = ids
            continue
        held = st.sampled_from(sorted(rows))
        if action == "push":
            slot, ids = data.draw(held), data.draw(tokens) * data.draw(st.sampled_from([1, 40]))
            chooser.push(slot, ids)
            rows[slot] = rows[slot] + ids
        elif action == "move":
            source, target = data.draw(held), data.draw(st.integers(0, 20))
            chooser.move(source, target)
            rows[target] = rows[source]
        else:
            targets = data.draw(st.permutations(sorted(rows)))
            sources = data.draw(st.lists(held, min_size=len(rows), max_size=len(rows)))
            chooser.reorder(sources, targets)
            rows |= dict(zip(targets, [rows[source] for source in sources], strict=True))
    assert_histories(chooser, rows)


@given(st.lists(tokens, min_size=2, max_size=5))
def test_nothing_is_left_at_a_slot_of_the_row_that_was_there(histories: list[list[int]]) -> None:
    chooser = Chooser(VOCABULARY, CPU)
    for round_of in (histories[::-1], histories):
        for slot, ids in enumerate(round_of):
            chooser.put(slot, request(ids, rules=TELLING))
    assert_histories(chooser, dict(enumerate(histories)))


def test_a_copy_draws_and_ends_by_itself() -> None:
    # The original's rules depend on the number of new tokens, and so do draws.
    logits_RV = torch.zeros(2, SIZE)
    logits_RV[:, 5] = 4.0
    chooser = Chooser(VOCABULARY, CPU)
    chooser.put(0, request([0, 4, 5, 4], rules=Rules(no_repeat=NoRepeat.ORIGINAL, ngram_size=2)))
    chooser.move(0, 1)
    chooser.push(0, [4])
    assert chooser.choose(logits_RV, [0, 1], [None, None]).ids_R.tolist() == [0, 5]


def test_a_slot_without_a_row_may_be_moved() -> None:
    chooser = Chooser(VOCABULARY, CPU)
    chooser.put(0, request([0, 4]))
    chooser.move(3, 0)
    chooser.put(0, request([0, 5]))
    assert chooser.choose(torch.zeros(1, SIZE), [0], [None]).ids_R.tolist() == [0]


# --- edges


def one(logits: dict[int, float], allowed: Allowed = None, **settings: object) -> int:
    """Return what is chosen where all tokens score 0 but some."""
    logits_V = torch.zeros(SIZE)
    for id, score in logits.items():
        logits_V[id] = score
    return chosen([Case(request([0, 4, 5, 6, 4, 5], **settings), [], allowed, logits_V)])[0][0]


def test_of_equals_the_lowest_id_is_chosen() -> None:
    assert one({}) == 0
    assert one({7: 3.0, 9: 3.0, 8: 3.0}) == 7
    assert one({7: 3.0, 9: 3.0}, (range(8, 12),)) == 9


def test_rules_choose_among_what_is_allowed_only_where_text_is_free() -> None:
    likes_6 = {6: 5.0, 7: 4.0}
    assert one(likes_6) == 7
    assert one(likes_6, (WORDS,), constraint=Shape(free_text=True)) == 7
    assert one(likes_6, (WORDS,), constraint=Shape(free_text=False)) == 6


def test_rules_never_leave_nothing() -> None:
    free = Shape(free_text=True)
    pad = VOCABULARY.pad
    assert one({}, (range(6, 7),), constraint=free) == 6
    assert one({}, (range(pad, pad + 1), range(6, 7)), constraint=free) == pad
    everything = request(
        list(range(SIZE)), rules=Rules(no_repeat=NoRepeat.TRANSFORMERS, ngram_size=1)
    )
    logits_V = torch.zeros(SIZE)
    logits_V[5] = 1.0
    assert chosen([Case(everything, [], None, logits_V)])[0][0] == 5


@pytest.mark.parametrize("sampling", [Greedy(), Sampling(seed=0, top_p=0.5)])
@pytest.mark.parametrize("score", [-math.inf, math.nan])
def test_what_is_chosen_is_allowed_even_where_the_network_has_no_score_for_it(
    score: float, sampling: Greedy | Sampling
) -> None:
    scores = dict.fromkeys(range(8, 12), score)
    shape = Shape(free_text=False)
    assert one(scores, (range(8, 12),), constraint=shape, sampling=sampling) in range(8, 12)


def test_a_row_without_scores_writes_its_own_first_token_among_mates_with_lower_ones() -> None:
    asked = request([0], constraint=Shape(free_text=False))
    low, high = (range(6, 7),), (range(20, 22),)
    nothing_V = torch.full((SIZE,), -math.inf)
    batch = [Case(asked, [], low, torch.zeros(SIZE)), Case(asked, [], high, nothing_V)]
    assert [id for id, _, _ in chosen(batch)] == [6, 20]


def test_the_penalty_finds_its_tokens_among_few() -> None:
    settings = {"rules": Rules(repetition_penalty=2.0), "constraint": Shape(free_text=True)}
    assert one({4: 3.0, 7: 2.0, 8: 1.0}, (range(4, 9),), **settings) == 7
    assert one({4: 3.0, 8: 1.0}, (range(4, 9),), **settings) == 4


def test_padding_is_chosen_under_the_rules_of_transformers_alone() -> None:
    for mode in NoRepeat:
        id = one({VOCABULARY.pad: 9.0, 8: 4.0}, rules=Rules(no_repeat=mode))
        assert id == (VOCABULARY.pad if mode is NoRepeat.TRANSFORMERS else 8)


def test_the_penalty_counts_image_slots_only_in_the_references() -> None:
    for mode in NoRepeat:
        asked = request([0, 4, 9], rules=Rules(no_repeat=mode, repetition_penalty=10.0))
        object.__setattr__(asked, "image_mask", (False, True, False))
        logits_V = torch.zeros(SIZE)
        logits_V[[4, 9, 7]] = torch.tensor([3.0, 4.0, 2.0])
        words_alone = mode in (NoRepeat.WORDS, NoRepeat.OFF)
        assert chosen([Case(asked, [], None, logits_V)])[0][0] == (4 if words_alone else 7)


def test_the_same_seed_draws_anew_at_every_step() -> None:
    asked, logits_V = request([0], sampling=Sampling(seed=5)), torch.zeros(SIZE)
    ids = [chosen([Case(asked, [8] * step, None, logits_V)])[0][0] for step in range(12)]
    assert len(set(ids)) > 3
    assert ids == [chosen([Case(asked, [9] * step, None, logits_V)])[0][0] for step in range(12)]


def test_many_forms_do_not_fill_the_memory() -> None:
    chooser = Chooser(VOCABULARY, CPU)
    chooser.put(0, request([0], constraint=Shape(free_text=False)))
    for number in range(600):
        ids = [id for id in range(10) if number + 1 >> id & 1]
        allowed = tuple(range(FIRST - id - 1, FIRST - id) for id in reversed(ids))
        chosen_id = chooser.choose(torch.arange(SIZE)[None].float(), [0], [allowed]).ids_R
        assert chosen_id.tolist() == [FIRST - 1 - ids[0]]
    assert chooser._planner._mask.cache_info().currsize <= 256


def test_a_choice_never_asks_the_device_for_a_value() -> None:
    # Tensors of the device "meta" have no values: whoever asks for one fails.
    meta = torch.device("meta")
    chooser = Chooser(VOCABULARY, meta)
    drawn = Sampling(seed=1, temperature=0.5, top_k=3, top_p=0.5, min_p=0.1)
    penalty = Rules(repetition_penalty=1.5)
    kinds: list[tuple[Request, Allowed]] = [
        (request([0, 4, 5, 4, 5]), None),
        (request([0, 4, 5, 4], sampling=drawn, rules=penalty), None),
        (request([0, 4], constraint=Shape(free_text=True)), (range(4, 6),)),
        (request([0, 4], constraint=Shape(free_text=False)), (range(4, 9),)),
        (request([0, 4], constraint=Shape(free_text=False)), Gate(4, 5)),
    ]
    for slot, (asked, _) in enumerate(kinds):
        chooser.put(slot, asked)
        chooser.push(slot, [4, 5])
    chooser.reorder([0, 1], [1, 0])
    logits_RV = torch.empty(len(kinds), SIZE, device=meta)
    answer = chooser.choose(logits_RV, range(len(kinds)), [allowed for _, allowed in kinds])
    assert answer.ids_R.shape == answer.logprobs_R.shape == answer.masses_R.shape == (5,)
    assert chooser.scores(logits_RV, range(5), [allowed for _, allowed in kinds]).is_meta
