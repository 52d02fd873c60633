"""Read a sentencepiece model file: a protobuf message, of which four fields matter here."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kosmos2.errors import VocabularyError

_UNIGRAM = 1
_NORMAL = 1

# Field numbers of sentencepiece_model.proto.
_MODEL_PIECES, _MODEL_TRAINER, _MODEL_NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_TYPE = 1, 2, 3
_TRAINER_MODEL_TYPE = 3
_NORMALIZER_CHARSMAP = 2


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The pieces of ordinary text with their scores, and the character map of the normaliser."""

    pieces: tuple[tuple[str, float], ...]
    charsmap: bytes


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Return the content of a unigram model file."""
    return parse_sentencepiece(path.read_bytes(), source=str(path))


def parse_sentencepiece(content: bytes, *, source: str) -> SentencePieceModel:
    """Return the content of the bytes of a unigram model file; errors name their source."""
    try:
        return _parse(content)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, _NotProtobufError) as error:
        raise VocabularyError(
            f"{source} is no sentencepiece model, or it is damaged ({error}). Copy it again."
        ) from error
    except VocabularyError as error:
        raise VocabularyError(f"{source}: {error}") from None


class _NotProtobufError(Exception):
    pass


def _parse(content: bytes) -> SentencePieceModel:
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    model_type = _UNIGRAM
    for number, value in _fields(content):
        if number == _MODEL_PIECES:
            pieces.extend(_normal_piece(_message(value)))
        elif number == _MODEL_TRAINER:
            model_type = _integer(_message(value).get(_TRAINER_MODEL_TYPE, _UNIGRAM))
        elif number == _MODEL_NORMALIZER:
            charsmap = _bytes(_message(value).get(_NORMALIZER_CHARSMAP, b""))
    if model_type != _UNIGRAM:
        raise VocabularyError(
            f"the sentencepiece model has type {model_type}, and only unigram models (type "
            f"{_UNIGRAM}) are read here. The file of Kosmos-2 is one, in spite of its name."
        )
    if not pieces:
        raise _NotProtobufError("it has no pieces")
    return SentencePieceModel(tuple(pieces), charsmap)


def _normal_piece(message: dict[int, int | bytes]) -> Iterator[tuple[str, float]]:
    if _integer(message.get(_PIECE_TYPE, _NORMAL)) == _NORMAL:
        (score,) = struct.unpack("<f", _bytes(message.get(_PIECE_SCORE, bytes(4))))
        yield _bytes(message[_PIECE_TEXT]).decode(), score


def _message(value: int | bytes) -> dict[int, int | bytes]:
    return dict(_fields(_bytes(value)))


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value): an integer for wire type 0, bytes for 1, 2 and 5."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(content, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(content, position)
        elif wire_type in {1, 5}:
            length = 8 if wire_type == 1 else 4
        else:
            raise _NotProtobufError(f"wire type {wire_type} at byte {position}")
        if position + length > len(content):
            raise _NotProtobufError(f"a field at byte {position} runs past the end")
        yield number, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise _NotProtobufError("a number stands where bytes should")


def _integer(value: int | bytes) -> int:
    if isinstance(value, int):
        return value
    raise _NotProtobufError("bytes stand where a number should")
