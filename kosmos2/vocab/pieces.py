"""Plain text <-> pieces. Knows neither ids nor special tokens, so no text can be one."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from kosmos2.errors import VocabularyError

BLANK = "▁"
"""How a piece spells a space."""
_UNMATCHABLE = " "
"""The unknown piece's name inside the segmenter: no word contains a space, so no text spells it."""
_VISIBLE = re.compile(r"\S*")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceTable:
    """The learned part of a tokenizer: its pieces, and the rules that cut text into words.

    The rules are JSON values of the `tokenizers` file format.
    """

    pieces: tuple[tuple[str, float], ...]
    """Each piece with its log probability, in the order of the ids."""
    normalizer: Mapping[str, Any] | None
    pre_tokenizer: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class FoundPiece:
    """Piece number `index` (-1 if unknown), found at characters [start, stop) of a text."""

    index: int
    start: int
    stop: int


class Segmenter:
    """Finds the most probable pieces of a text."""

    def __init__(self, table: PieceTable) -> None:
        document: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": table.normalizer,
            "pre_tokenizer": table.pre_tokenizer,
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "Unigram",
                "unk_id": 0,
                "vocab": [(_UNMATCHABLE, 0.0), *table.pieces],
                "byte_fallback": False,
            },
        }
        try:
            self._backend = tokenizers.Tokenizer.from_str(json.dumps(document))
        except Exception as error:  # the library raises bare Exception
            raise VocabularyError(f"the tokenizers library refuses these rules: {error}") from error

    def find(self, text: str) -> list[FoundPiece]:
        """Return the pieces of a text, with the characters of `text` that each one covers.

        Every visible character that normalisation keeps is covered, also where it changes length.
        """
        # Unpaired surrogates are no Unicode text; the replacement has the same length.
        text = _SURROGATE.sub("\ufffd", text)
        encoding = self._backend.encode(text, add_special_tokens=False)
        starts = [start for start, _ in encoding.offsets]
        untils = [*starts, len(text)][1:]
        stops = [
            _end_of_visible(text, stop, until)
            for (_, stop), until in zip(encoding.offsets, untils, strict=True)
        ]
        return [
            FoundPiece(id - 1, start, stop)
            for id, start, stop in zip(encoding.ids, starts, stops, strict=True)
        ]

    def words(self, text: str) -> list[str]:
        """Return the normalised words that a text is cut into before pieces are sought."""
        text = _SURROGATE.sub("\ufffd", text)
        if self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text)
        if self._backend.pre_tokenizer is None:
            return [text] if text else []
        return [word for word, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)]


def _end_of_visible(text: str, start: int, until: int) -> int:
    """Return where the characters that normalisation joined to a piece end."""
    joined = _VISIBLE.match(text, start, max(start, until))
    assert joined
    return joined.end()


def spell(pieces: list[str]) -> str:
    """Return the text that pieces spell; a leading space stays."""
    return "".join(pieces).replace(" ", "").replace(BLANK, " ")
