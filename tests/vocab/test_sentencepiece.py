"""The sentencepiece file is read as the protobuf library reads it."""

import io
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as protobuf

from kosmos2.errors import VocabularyError
from kosmos2.vocab.sentencepiece import parse_sentencepiece, read_sentencepiece

NORMAL = 1


def small_model(model_type: str) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red dog and a blue cat", "the dog sat on a mat"] * 5),
        model_writer=written,
        model_type=model_type,
        vocab_size=30,
        hard_vocab_limit=model_type == "bpe",
        minloglevel=2,
    )
    return written.getvalue()


UNIGRAM = small_model("unigram")


def check_against_protobuf(path: Path) -> None:
    expected = protobuf.ModelProto()
    expected.ParseFromString(path.read_bytes())
    model = read_sentencepiece(path)
    assert list(model.pieces) == [
        (piece.piece, piece.score) for piece in expected.pieces if piece.type == NORMAL
    ]
    assert model.charsmap == expected.normalizer_spec.precompiled_charsmap


def test_the_released_file(shared_data: Path) -> None:
    path = shared_data / "kosmos2-tokenizer" / "sentencepiece.bpe.model"
    check_against_protobuf(path)
    assert len(read_sentencepiece(path).pieces) == 63_997


def test_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "small.model"
    path.write_bytes(UNIGRAM)
    check_against_protobuf(path)


@given(st.integers(0, len(UNIGRAM) - 1))
@settings(max_examples=60)
def test_a_shortened_file_is_read_or_refused_with_its_name(length: int) -> None:
    read_or_refuse(UNIGRAM[:length])


@given(st.binary(max_size=200))
def test_any_other_file_is_read_or_refused_with_its_name(content: bytes) -> None:
    read_or_refuse(content)


@given(st.integers(0, len(UNIGRAM) - 1), st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused_with_its_name(position: int, byte: int) -> None:
    read_or_refuse(UNIGRAM[:position] + bytes([byte]) + UNIGRAM[position + 1 :])


@pytest.mark.parametrize(
    "content", [b"", b"\x0a\x00", b"\x08\x01", b"\x0f", b"\x0a\x03\x0a\x01\xff"]
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(VocabularyError, match=r"broken\.model is no sentencepiece model"):
        parse_sentencepiece(content, source="broken.model")


def read_or_refuse(content: bytes) -> None:
    try:
        assert parse_sentencepiece(content, source="broken.model").pieces
    except VocabularyError as refusal:
        assert "broken.model" in str(refusal)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sentencepiece.bpe.model"
    path.write_bytes(small_model("bpe"))
    with pytest.raises(VocabularyError, match="only unigram models"):
        read_sentencepiece(path)
