"""Learn the pieces of a small vocabulary from texts: unigram language model, Kudo 2018.

Written out, because the trainer of the `tokenizers` library gives other scores in every process
and counts a substring once per distinct word, so that a frequent word alone never becomes a piece.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from kosmos2.errors import VocabularyError
from kosmos2.vocab.files import word_rules
from kosmos2.vocab.pieces import BLANK, PieceTable, Segmenter

ALPHABET = (BLANK, *string.ascii_letters, *string.digits, *string.punctuation)
"""Always pieces, so that any English text can be written."""

_LONGEST_PIECE = 16
_LONGEST_RUN = 30
"""Longer ones are learned from in parts: their probability would underflow."""
_SHRINK = 0.75
_ROUNDS_PER_SHRINK = 2
_LEAST_EXPECTED = 0.5
_SEEDS_PER_PIECE = 10
_BEHIND_THE_RAREST = 1.0
"""How much less probable than the rarest learned piece a letter is that the texts never need."""

_RUN = re.compile(f"{BLANK}?(?:[^\\W\\d_]+|\\d+|[^\\w{BLANK}]+|_+)|{BLANK}")

Scores = dict[str, float]
Words = Mapping[str, int]


def train_pieces(texts: Iterable[str], *, num_pieces: int) -> PieceTable:
    """Return at most `num_pieces` pieces, the most frequent first."""
    rules = PieceTable(pieces=(), normalizer=_normalizer(), pre_tokenizer=word_rules())
    words = _count_words(texts, Segmenter(rules))
    letters = set(ALPHABET).union(*words)
    if num_pieces < len(letters):
        raise VocabularyError(
            f"a tokenizer needs a piece for each of the {len(letters)} characters of the alphabet "
            f"and the texts, got num_pieces={num_pieces}"
        )
    scores = _seeds(words, limit=_SEEDS_PER_PIECE * num_pieces)
    while True:
        for _ in range(_ROUNDS_PER_SHRINK):
            scores = _maximise(_expected_counts(words, scores))
        if len(scores.keys() - letters) <= num_pieces - len(letters):
            break
        size = max(num_pieces - len(letters), int(_SHRINK * len(scores.keys() - letters)))
        scores = _prune(words, scores, size)
    return replace(rules, pieces=_with_letters(scores, letters))


def _normalizer() -> dict[str, Any]:
    """Return NFKC without what cannot be seen: close to sentencepiece's, without its tables."""
    invisible = r"[[\p{Cc}\p{Cf}]&&[^\s]]"
    return {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": invisible}, "content": ""},
        ],
    }


def _count_words(texts: Iterable[str], segmenter: Segmenter) -> Words:
    """Return runs of one kind with their counts, in one fixed order, so that sums come out equal.

    No piece mixes letters, digits and signs, as in sentencepiece: a phrase that ends before a full
    stop has to end between two pieces.
    """
    counts = Counter(
        run[start : start + _LONGEST_RUN]
        for text in texts
        for word in segmenter.words(text)
        for run in _RUN.findall(word)
        for start in range(0, len(run), _LONGEST_RUN)
    )
    return dict(sorted(counts.items()))


def _seeds(words: Words, *, limit: int) -> Scores:
    """Return every character, and the substrings that occur twice and cover most of the texts."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start, stop in _spans(len(word)):
            counts[word[start:stop]] += count
    long = [(piece, count) for piece, count in counts.items() if len(piece) > 1 < count]
    long.sort(key=lambda seed: (-seed[1] * len(seed[0]), seed[0]))
    letters = sorted((piece, count) for piece, count in counts.items() if len(piece) == 1)
    seeds = dict([*letters, *long[:limit]])
    total = math.log(sum(seeds.values())) if seeds else 0.0
    return {piece: math.log(count) - total for piece, count in seeds.items()}


def _spans(length: int) -> Iterator[tuple[int, int]]:
    for start in range(length):
        for stop in range(start + 1, min(start + _LONGEST_PIECE, length) + 1):
            yield start, stop


def _expected_counts(words: Words, scores: Scores) -> Scores:
    """Return how often each piece is expected, over all ways to cut the words (E step)."""
    probability = {piece: math.exp(score) for piece, score in scores.items()}
    expected = dict.fromkeys(scores, 0.0)
    for word, count in words.items():
        edges = [
            (start, stop, word[start:stop])
            for start, stop in _spans(len(word))
            if word[start:stop] in probability
        ]
        forward = [1.0] + [0.0] * len(word)
        for start, stop, piece in edges:
            forward[stop] += forward[start] * probability[piece]
        backward = [0.0] * len(word) + [1.0]
        for start, stop, piece in reversed(edges):
            backward[start] += probability[piece] * backward[stop]
        scale = count / forward[-1]
        for start, stop, piece in edges:
            expected[piece] += forward[start] * probability[piece] * backward[stop] * scale
    return expected


def _maximise(expected: Scores) -> Scores:
    """Return the scores of the pieces that still pay, sparse by the digamma rule (M step)."""
    kept = {
        piece: count
        for piece, count in expected.items()
        if count >= _LEAST_EXPECTED or len(piece) == 1
    }
    total = _digamma(sum(kept.values())) if kept else 0.0
    return {piece: _digamma(max(count, _LEAST_EXPECTED)) - total for piece, count in kept.items()}


def _prune(words: Words, scores: Scores, size: int) -> Scores:
    """Keep the characters and the `size` longer pieces whose loss would hurt most."""
    used: Counter[str] = Counter()
    for word, count in words.items():
        for piece in _best_cut(word, scores):
            used[piece] += count

    def harm(piece: str) -> float:
        if not used[piece]:
            return 0.0
        without = _best_cut(piece, {**_inside(piece, scores), piece: -math.inf})
        return used[piece] * (scores[piece] - sum(scores[part] for part in without))

    long = sorted(
        (piece for piece in scores if len(piece) > 1),
        key=lambda piece: (-harm(piece), -scores[piece], piece),
    )
    kept = set(long[:size])
    return {piece: score for piece, score in scores.items() if len(piece) == 1 or piece in kept}


def _inside(piece: str, scores: Scores) -> Scores:
    parts = {piece[start:stop] for start, stop in _spans(len(piece))}
    return {part: scores[part] for part in parts if part in scores}


def _best_cut(word: str, scores: Mapping[str, float]) -> Sequence[str]:
    """Return the most probable pieces of a word whose characters all have a score."""
    best = [0.0] + [-math.inf] * len(word)
    start_of = [0] * (len(word) + 1)
    for start, stop in _spans(len(word)):
        score = best[start] + scores.get(word[start:stop], -math.inf)
        if score > best[stop]:
            best[stop], start_of[stop] = score, start
    cuts = [len(word)]
    while cuts[-1]:
        cuts.append(start_of[cuts[-1]])
    return [word[start:stop] for start, stop in pairwise(reversed(cuts))]


def _with_letters(scores: Scores, letters: set[str]) -> tuple[tuple[str, float], ...]:
    """Return the pieces by falling score; letters without one come last, in their own order."""
    floor = min(scores.values(), default=0.0) - _BEHIND_THE_RAREST
    complete = {letter: floor for letter in letters} | scores
    # Rounded, so that the file stays small; the order of equals is the alphabet's.
    rounded = [(piece, round(score, 6)) for piece, score in complete.items()]
    return tuple(sorted(rounded, key=lambda entry: (-entry[1], entry[0])))


def _digamma(x: float) -> float:
    """Return the derivative of log gamma: the recurrence up to 7, then the asymptotic series."""
    result = 0.0
    while x < 7:
        result -= 1 / x
        x += 1
    square = 1 / (x * x)
    return result + math.log(x) - 0.5 / x - square * (1 / 12 - square * (1 / 120 - square / 252))
