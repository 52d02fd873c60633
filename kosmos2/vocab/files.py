"""Tokenizer folders: `tokenizer.json`, or `sentencepiece.bpe.model` with `dict.txt`.

What is written here, `transformers` loads with the same ids.
"""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kosmos2.errors import VocabularyError
from kosmos2.vocab.pieces import BLANK, PieceTable
from kosmos2.vocab.sentencepiece import read_sentencepiece
from kosmos2.vocab.special import (
    BOS_TOKEN,
    CONTROL_TOKENS,
    EOS_TOKEN,
    FIRST_PIECE,
    MASK_TOKEN,
    PAD_TOKEN,
    UNK_TOKEN,
    Vocabulary,
)

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SENTENCEPIECE_FILE = "sentencepiece.bpe.model"
DICTIONARY_FILE = "dict.txt"
_BINS_OF_THE_RELEASED_MODEL = 32
_LOCATION_TOKEN = re.compile(r"<patch_index_[0-9]+>")


def read_folder(folder: Path) -> tuple[PieceTable, int]:
    """Return the pieces of a tokenizer folder and the bins of its location grid."""
    if (folder / TOKENIZER_FILE).is_file():
        return _read_tokenizer_file(folder / TOKENIZER_FILE)
    if (folder / SENTENCEPIECE_FILE).is_file() and (folder / DICTIONARY_FILE).is_file():
        return _read_original(folder), _BINS_OF_THE_RELEASED_MODEL
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no such folder"
    raise VocabularyError(
        f"{folder} holds no tokenizer: {found}. It needs {TOKENIZER_FILE}, or both "
        f"{SENTENCEPIECE_FILE} and {DICTIONARY_FILE}; put them beside the weights."
    )


def write_folder(folder: Path, table: PieceTable, vocabulary: Vocabulary) -> None:
    """Write `tokenizer.json` and the little file that tells transformers how to open it."""
    folder.mkdir(parents=True, exist_ok=True)
    document = _document(table, vocabulary)
    (folder / TOKENIZER_FILE).write_text(
        json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    config = {
        # Not XLMRobertaTokenizer: that class would replace the normaliser by its own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS_TOKEN,
        "pad_token": PAD_TOKEN,
        "eos_token": EOS_TOKEN,
        "unk_token": UNK_TOKEN,
        "mask_token": MASK_TOKEN,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def metaspace() -> dict[str, Any]:
    """Return the rule that writes a space as the blank, in front of every word."""
    return {"type": "Metaspace", "replacement": BLANK, "prepend_scheme": "always", "split": True}


def word_rules() -> dict[str, Any]:
    """Return the rule that cuts text at white space, as in XLM-RoBERTa."""
    return {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace()]}


def _read_original(folder: Path) -> PieceTable:
    """Return the pieces in the order of dict.txt, which decides the ids, with their scores."""
    model = read_sentencepiece(folder / SENTENCEPIECE_FILE)
    scores = dict(model.pieces)
    lines = (folder / DICTIONARY_FILE).read_text(encoding="utf-8").split("\n")
    names = [line.rsplit(" ", 1)[0] for line in lines if line]
    missing = [name for name in names if name not in scores]
    extra = scores.keys() - set(names)
    if missing or extra or len(set(names)) != len(names):
        raise VocabularyError(
            f"{DICTIONARY_FILE} and {SENTENCEPIECE_FILE} in {folder} are no pair: "
            f"{len(missing)} dictionary lines name no piece {missing[:3]}, {len(extra)} pieces "
            f"have no line {sorted(extra)[:3]}, {len(names) - len(set(names))} lines repeat. "
            f"Take both files from one release."
        )
    charsmap = base64.b64encode(model.charsmap).decode()
    return PieceTable(
        pieces=tuple((name, scores[name]) for name in names),
        normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap} if charsmap else None,
        pre_tokenizer=word_rules(),
    )


def _read_tokenizer_file(path: Path) -> tuple[PieceTable, int]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        model = document["model"]
        added = {entry["content"]: entry["id"] for entry in document.get("added_tokens") or ()}
        if model.get("type") != "Unigram":
            raise VocabularyError(
                f"{path} has a model of type {model.get('type')!r}, and Kosmos-2 needs 'Unigram'. "
                f"Is this the tokenizer of another model?"
            )
        entries = [(str(piece), float(score)) for piece, score in model["vocab"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, VocabularyError):
            raise
        raise VocabularyError(
            f"{path} is no tokenizer file, or it is damaged ({error!r}). Copy it again."
        ) from error

    table = PieceTable(
        pieces=tuple(_pieces(path, entries)),
        normalizer=document.get("normalizer"),
        pre_tokenizer=document.get("pre_tokenizer"),
    )
    bins = _bins(path, added)
    _check_added(path, added, Vocabulary(num_pieces=len(table.pieces), bins=bins))
    return table, bins


def _pieces(path: Path, entries: Sequence[tuple[str, float]]) -> Sequence[tuple[str, float]]:
    first = tuple(name for name, _ in entries[:FIRST_PIECE])
    if first != CONTROL_TOKENS:
        raise VocabularyError(
            f"{path} starts with {list(first)}, and Kosmos-2 needs {list(CONTROL_TOKENS)}. "
            f"Is this the tokenizer of another model?"
        )
    has_mask = entries[-1][0] == MASK_TOKEN
    return entries[FIRST_PIECE:-1] if has_mask else entries[FIRST_PIECE:]


def _bins(path: Path, added: Mapping[str, int]) -> int:
    count = sum(1 for content in added if _LOCATION_TOKEN.fullmatch(content))
    if not count:
        return _BINS_OF_THE_RELEASED_MODEL
    bins = math.isqrt(count)
    if bins * bins != count:
        raise VocabularyError(
            f"{path} has {count} location tokens, which is no square grid "
            f"({bins}x{bins} would be {bins * bins})"
        )
    return bins


def _check_added(path: Path, added: Mapping[str, int], vocabulary: Vocabulary) -> None:
    expected = {content: id for id, content in vocabulary.special_tokens()}
    wrong = [
        f"{content!r} is {id}, expected {expected.get(content, 'nothing of this name')}"
        for content, id in added.items()
        if expected.get(content) != id
    ]
    if wrong:
        raise VocabularyError(
            f"{path} has {len(wrong)} added tokens outside the layout of Kosmos-2: "
            f"{'; '.join(wrong[:3])}. Is this the tokenizer of another model?"
        )


def _document(table: PieceTable, vocabulary: Vocabulary) -> dict[str, Any]:
    controls = [(token, 0.0) for token in CONTROL_TOKENS]
    bos, eos = vocabulary.bos, vocabulary.eos
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(id, content, vocabulary) for id, content in vocabulary.special_tokens()
        ],
        "normalizer": table.normalizer,
        "pre_tokenizer": table.pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": _template((BOS_TOKEN, "A", EOS_TOKEN)),
            "pair": _template((BOS_TOKEN, "A", EOS_TOKEN, EOS_TOKEN, "B", EOS_TOKEN)),
            "special_tokens": {
                token: {"id": token, "ids": [id], "tokens": [token]}
                for token, id in ((BOS_TOKEN, bos), (EOS_TOKEN, eos))
            },
        },
        "decoder": metaspace(),
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk,
            "vocab": [*controls, *table.pieces, (MASK_TOKEN, 0.0)],
            "byte_fallback": False,
        },
    }


def _added_token(id: int, content: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Tags and locations swallow the space before them and are not special, as in transformers."""
    return {
        "id": id,
        "content": content,
        "single_word": False,
        "lstrip": id >= vocabulary.mask,
        "rstrip": False,
        "normalized": False,
        "special": id <= vocabulary.mask,
    }


def _template(parts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"Sequence": {"id": part, "type_id": 0}}
        if part in {"A", "B"}
        else {"SpecialToken": {"id": part, "type_id": 0}}
        for part in parts
    ]
