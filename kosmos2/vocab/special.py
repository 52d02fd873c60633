"""The id map: which ids are pieces, special tokens, tags and location tokens.

0..3         <s> <pad> </s> <unk>
4..          the pieces, in the order of the dictionary
next         <mask>, the eleven tags, then the bins x bins location tokens
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from kosmos2.errors import VocabularyError

FIRST_PIECE = 4
BOS_TOKEN, PAD_TOKEN, EOS_TOKEN, UNK_TOKEN = CONTROL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK_TOKEN = "<mask>"


class Tag(StrEnum):
    """The control words of grounded text, in the order of their ids."""

    DOC = "</doc>"
    IMAGE = "<image>"
    IMAGE_END = "</image>"
    CHUNK = "</chunk>"
    LINE = "</line>"
    PHRASE = "<phrase>"
    PHRASE_END = "</phrase>"
    OBJECT = "<object>"
    OBJECT_END = "</object>"
    DELIMITER = "</delimiter_of_multi_objects/>"
    GROUNDING = "<grounding>"


_TAGS = tuple(Tag)
_TAG_OFFSETS = {tag: offset for offset, tag in enumerate(_TAGS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Which id means what. Everything follows from two numbers."""

    num_pieces: int
    """63,997 in the released model."""
    bins: int = 32
    """Rows and columns of the location grid; it has bins x bins location tokens."""

    def __post_init__(self) -> None:
        if self.num_pieces < 1 or self.bins < 1:
            raise VocabularyError(
                f"a vocabulary needs at least one piece and one bin, "
                f"got num_pieces={self.num_pieces} and bins={self.bins}"
            )

    @property
    def bos(self) -> int:
        return 0

    @property
    def pad(self) -> int:
        return 1

    @property
    def eos(self) -> int:
        return 2

    @property
    def unk(self) -> int:
        return 3

    @property
    def mask(self) -> int:
        return FIRST_PIECE + self.num_pieces

    @property
    def first_location(self) -> int:
        return self.mask + 1 + len(_TAGS)

    @property
    def num_locations(self) -> int:
        return self.bins * self.bins

    @property
    def size(self) -> int:
        return self.first_location + self.num_locations

    def tag(self, tag: Tag) -> int:
        """Return the id of a tag."""
        return self.mask + 1 + _TAG_OFFSETS[tag]

    def tag_of(self, id: int) -> Tag | None:
        """Return the tag with this id, or None if the id is no tag."""
        return _TAGS[id - self.mask - 1] if self.mask < id < self.first_location else None

    def location(self, cell: int) -> int:
        """Return the id of a grid cell, counted row by row from the top left."""
        self._check_cell(cell)
        return self.first_location + cell

    def cell_of(self, id: int) -> int | None:
        """Return the grid cell with this id, or None if the id is no location token."""
        return id - self.first_location if self.first_location <= id < self.size else None

    def location_token(self, cell: int) -> str:
        """Return the literal of a grid cell, as in `<patch_index_0044>`."""
        self._check_cell(cell)
        return f"<patch_index_{cell:04d}>"

    def is_piece(self, id: int) -> bool:
        """Return whether the id is a piece of ordinary text."""
        return FIRST_PIECE <= id < self.mask

    def placeholders(self, count: int) -> range:
        """Return the ids that hold the places of `count` image latents.

        They are the ids of the first pieces, ordinary words, as in the original code: no three of
        them repeat, so an n-gram ban never trips over an image.
        """
        if not 0 <= count <= self.num_pieces:
            raise VocabularyError(
                f"an image of {count} latents needs as many pieces to hold its places, and this "
                f"vocabulary has {self.num_pieces}. Train a tokenizer with more pieces."
            )
        return range(FIRST_PIECE, FIRST_PIECE + count)

    def special_tokens(self) -> Iterator[tuple[int, str]]:
        """Yield (id, literal) of everything but the pieces, by id."""
        yield from enumerate(CONTROL_TOKENS)
        yield self.mask, MASK_TOKEN
        for tag in _TAGS:
            yield self.tag(tag), str(tag)
        for cell in range(self.num_locations):
            yield self.location(cell), self.location_token(cell)

    def _check_cell(self, cell: int) -> None:
        if not 0 <= cell < self.num_locations:
            raise VocabularyError(
                f"location cell {cell} is outside the grid of {self.bins}x{self.bins}, "
                f"whose cells are 0..{self.num_locations - 1}"
            )
