"""Learn the pieces of a small vocabulary from texts."""

import json
import string
from collections.abc import Iterable
from typing import Any

import tokenizers
from tokenizers import models, trainers

from kosmos2.errors import VocabularyError
from kosmos2.vocab.files import word_rules
from kosmos2.vocab.pieces import BLANK, PieceTable

ALPHABET = (BLANK, *string.ascii_letters, *string.digits, *string.punctuation)
"""Always pieces, so that any English text can be written."""


def train_pieces(texts: Iterable[str], *, num_pieces: int) -> PieceTable:
    """Return at most `num_pieces` unigram pieces, the most frequent first."""
    if num_pieces < len(ALPHABET):
        raise VocabularyError(
            f"a tokenizer needs at least {len(ALPHABET)} pieces for letters, digits and "
            f"punctuation, got num_pieces={num_pieces}"
        )
    normalizer: dict[str, Any] = {"type": "NFKC"}
    backend = tokenizers.Tokenizer(models.Unigram())
    trainer = trainers.UnigramTrainer(
        vocab_size=num_pieces + 1,
        special_tokens=["<unk>"],
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=list(ALPHABET),
    )
    document = json.loads(backend.to_str())
    document.update(normalizer=normalizer, pre_tokenizer=word_rules())
    backend = tokenizers.Tokenizer.from_str(json.dumps(document))
    backend.train_from_iterator(texts, trainer)
    vocab = json.loads(backend.to_str())["model"]["vocab"]
    pieces = sorted(
        ((name, round(score, 6)) for name, score in vocab if name != "<unk>"),
        key=lambda piece: (-piece[1], piece[0]),
    )
    return PieceTable(pieces=tuple(pieces), normalizer=normalizer, pre_tokenizer=word_rules())
