"""Segments <-> ids: a user's text, tags, cells and images as the numbers that the network reads.

Control comes from the type of a segment, never from the text of a user.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path

from kosmos2.errors import VocabularyError
from kosmos2.vocab.build import train_pieces
from kosmos2.vocab.files import read_folder, write_folder
from kosmos2.vocab.locations import LocationGrid
from kosmos2.vocab.pieces import PieceTable, Segmenter, spell
from kosmos2.vocab.segments import (
    Cell,
    Encoded,
    ImageSlot,
    Segment,
    Symbol,
    parse_markup_string,
)
from kosmos2.vocab.special import FIRST_PIECE, MASK_TOKEN, UNK_TOKEN, Tag, Vocabulary

__all__ = [
    "Cell",
    "Encoded",
    "ImageSlot",
    "Segment",
    "Symbol",
    "Tokenizer",
    "parse_markup_string",
    "train_tokenizer",
]


class Tokenizer:
    """The pieces of a vocabulary with its id map and location grid."""

    def __init__(self, table: PieceTable, *, bins: int) -> None:
        self.vocabulary = Vocabulary(num_pieces=len(table.pieces), bins=bins)
        self.grid = LocationGrid(bins)
        self._table = table
        self._segmenter = Segmenter(table)

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read `tokenizer.json`, or `sentencepiece.bpe.model` with `dict.txt`."""
        table, bins = read_folder(folder)
        return cls(table, bins=bins)

    @property
    def pieces(self) -> tuple[str, ...]:
        """Return the pieces in the order of their ids; `▁` stands for a space."""
        return tuple(piece for piece, _ in self._table.pieces)

    def with_bins(self, bins: int) -> "Tokenizer":
        """Return the same pieces with another location grid."""
        return Tokenizer(self._table, bins=bins)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, which transformers loads with the same ids."""
        write_folder(folder, self._table, self.vocabulary)

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a text, in which nothing is control: `<s>` is three characters."""
        return [FIRST_PIECE + found.index for found in self._segmenter.find(text)]

    def encode_text_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of a text, and for each its characters [start, stop) in `text`."""
        pieces = self._segmenter.find(text)
        ids = [FIRST_PIECE + found.index for found in pieces]
        return ids, [(found.start, found.stop) for found in pieces]

    def encode(self, segments: Sequence[Segment], *, num_latents: int) -> Encoded:
        """Return the ids of a prompt: begin of sequence, then each segment on its own, no end.

        Every text starts a new word and loses its outer spaces, as in both references.
        """
        ids = [self.vocabulary.bos]
        image_mask = [False]
        for segment in segments:
            segment_ids = self._encode_segment(segment, num_latents)
            ids.extend(segment_ids)
            if isinstance(segment, ImageSlot):
                image_mask.extend([False, *(True for _ in range(num_latents)), False])
            else:
                image_mask.extend(False for _ in segment_ids)
        return Encoded(tuple(ids), tuple(image_mask))

    @cached_property
    def blanks(self) -> frozenset[int]:
        """Return the ids of pieces in which nothing is visible, such as a lone mark of a space."""
        pieces = enumerate(self._table.pieces, start=FIRST_PIECE)
        return frozenset(id for id, (piece, _) in pieces if not spell([piece]).strip())

    def symbols(self, ids: Sequence[int]) -> tuple[Symbol, ...]:
        """Return what ids say: runs of text with their leading spaces, tags and cells.

        Begin, end and padding say nothing. The placeholders of an image read as words.
        """
        symbols: list[Symbol] = []
        positions = enumerate(ids)
        for kind, group in groupby(positions, key=lambda item: self._kind(item[1])):
            run = list(group)
            start, stop = run[0][0], run[-1][0] + 1
            if kind == "text":
                symbols.append(Symbol(spell([self._piece(id) for _, id in run]), start, stop))
            elif kind == "control":
                symbols.extend(Symbol(self._control(id), at, at + 1) for at, id in run)
        return tuple(symbols)

    def decode(self, ids: Sequence[int]) -> str:
        """Return text with literal tags and locations, without outer spaces."""
        return "".join(self._literal(symbol.value) for symbol in self.symbols(ids)).strip(" ")

    def _encode_segment(self, segment: Segment, num_latents: int) -> Sequence[int]:
        match segment:
            case Tag():
                return [self.vocabulary.tag(segment)]
            case Cell(index):
                return [self.vocabulary.location(index)]
            case ImageSlot():
                placeholders = self.vocabulary.placeholders(num_latents)
                begin, end = self.vocabulary.tag(Tag.IMAGE), self.vocabulary.tag(Tag.IMAGE_END)
                return [begin, *placeholders, end]
            case str():
                return self.encode_text(segment)

    def _kind(self, id: int) -> str:
        vocabulary = self.vocabulary
        if not 0 <= id < vocabulary.size:
            raise VocabularyError(
                f"token id {id} is outside the vocabulary of {vocabulary.size} ids. "
                f"Do the weights and the tokenizer belong together?"
            )
        if id in {vocabulary.bos, vocabulary.pad, vocabulary.eos}:
            return "silent"
        return "control" if id > vocabulary.mask else "text"

    def _piece(self, id: int) -> str:
        if id == self.vocabulary.unk:
            return UNK_TOKEN
        return MASK_TOKEN if id == self.vocabulary.mask else self._table.pieces[id - FIRST_PIECE][0]

    def _control(self, id: int) -> Tag | Cell:
        tag, cell = self.vocabulary.tag_of(id), self.vocabulary.cell_of(id)
        if tag is not None:
            return tag
        assert cell is not None
        return Cell(cell)

    def _literal(self, value: str | Tag | Cell) -> str:
        return self.vocabulary.location_token(value.index) if isinstance(value, Cell) else value


def train_tokenizer(texts: Iterable[str], *, num_pieces: int, bins: int) -> Tokenizer:
    """Learn a tokenizer of at most `num_pieces` pieces; equal texts give an equal tokenizer."""
    return Tokenizer(train_pieces(texts, num_pieces=num_pieces), bins=bins)
