"""Training a tokenizer: repeatable, complete, and no worse than sentencepiece."""

import hashlib
import io
import os
import string
import subprocess
import sys
from itertools import permutations

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.errors import VocabularyError
from kosmos2.vocab.build import ALPHABET, train_pieces
from kosmos2.vocab.tokenizer import Tokenizer, train_tokenizer

COLOURS = ("red", "green", "blue", "yellow", "purple")
NOUNS = ("dog", "cat", "giraffe", "elephant", "snowman", "umbrella", "bicycle")
TEXTS = [
    f"A {colour} {noun} stands behind the {other}, and it's {first}."
    for colour, first in permutations(COLOURS, 2)
    for noun, other in permutations(NOUNS, 2)
]

DIGEST_PROGRAM = """
import hashlib
from kosmos2.vocab.build import train_pieces
texts = {texts!r}
print(hashlib.sha256(repr(train_pieces(texts, num_pieces=200)).encode()).hexdigest())
"""


def test_equal_texts_give_an_equal_tokenizer_in_every_process() -> None:
    here = hashlib.sha256(repr(train_pieces(TEXTS[:100], num_pieces=200)).encode()).hexdigest()
    for seed in ("1", "2"):
        program = DIGEST_PROGRAM.format(texts=TEXTS[:100])
        there = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_the_order_of_the_texts_does_not_matter() -> None:
    assert train_pieces(TEXTS[::-1], num_pieces=200) == train_pieces(TEXTS, num_pieces=200)


@pytest.mark.parametrize("num_pieces", [len(ALPHABET), 100, 105, 110])
def test_there_are_as_many_pieces_as_asked_for_where_the_texts_suffice(num_pieces: int) -> None:
    pieces = train_pieces(TEXTS, num_pieces=num_pieces).pieces
    assert len(pieces) == len(dict(pieces)) == num_pieces


def test_few_texts_give_few_pieces() -> None:
    assert len(train_pieces(["a red dog"], num_pieces=5000).pieces) == len(ALPHABET)


def test_frequent_words_become_one_piece() -> None:
    tokenizer = train_tokenizer(TEXTS, num_pieces=200, bins=4)
    for word in (*COLOURS, *NOUNS, "stands"):
        assert len(tokenizer.encode_text(word)) == 1


def test_pieces_come_by_falling_score() -> None:
    scores = [score for _, score in train_pieces(TEXTS, num_pieces=200).pieces]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) < 0


def test_no_piece_mixes_letters_digits_and_signs() -> None:
    texts = ["The cat.", "The cat.", "17a 17a!", "snake_case snake_case"] * 20
    for piece, _ in train_pieces(texts, num_pieces=300).pieces:
        kinds = {
            "letter" if character.isalpha() else "digit" if character.isdigit() else character
            for character in piece.removeprefix("▁")
        }
        assert len(kinds) <= 1


TRAINED_ON_ONE_WORD = train_tokenizer(["dog"], num_pieces=120, bins=2)


@given(st.text(string.ascii_letters + string.digits + string.punctuation + " \n\t"))
def test_any_english_text_survives_any_tokenizer(text: str) -> None:
    ids = TRAINED_ON_ONE_WORD.encode_text(text)
    assert TRAINED_ON_ONE_WORD.vocabulary.unk not in ids
    assert TRAINED_ON_ONE_WORD.decode(ids) == " ".join(text.split())


def test_characters_of_the_texts_join_the_alphabet() -> None:
    tokenizer = train_tokenizer(["a café in Köln"], num_pieces=120, bins=2)
    assert tokenizer.decode(tokenizer.encode_text("éö")) == "éö"


def test_very_long_words_train_without_underflow() -> None:
    assert train_pieces(["ab" * 5000, "x" * 300, "https://" + "q1" * 400], num_pieces=150).pieces


def test_no_texts_give_the_alphabet() -> None:
    assert sorted(piece for piece, _ in train_pieces([], num_pieces=200).pieces) == sorted(ALPHABET)


def test_fewer_pieces_than_characters_are_refused() -> None:
    with pytest.raises(VocabularyError, match=f"at least {len(ALPHABET)}|each of the"):
        train_pieces(["a dog"], num_pieces=50)


def test_texts_take_no_more_pieces_than_with_sentencepiece() -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        # The same room for pieces longer than a letter; three of theirs are control tokens.
        vocab_size=3 + 100 - len(unused_letters()),
        hard_vocab_limit=False,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ours = train_tokenizer(TEXTS, num_pieces=100, bins=2)
    assert total(ours) <= sum(len(theirs.encode(text)) for text in TEXTS)


def unused_letters() -> set[str]:
    return set(ALPHABET) - set("▁".join(TEXTS))


def total(tokenizer: Tokenizer) -> int:
    return sum(len(tokenizer.encode_text(text)) for text in TEXTS)
