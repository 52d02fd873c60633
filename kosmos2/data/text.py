"""Text packed into blocks: every block is full, none is padded.

    {"text": "A first line.\\nA second line."}

As published (B.6): lines that are not empty, each ended by `</line>`, the last of a document by
`</s>`; lines go into a block as long as they fit, behind one `<s>`; every token is learnt. The
published loader cuts a line that fills a block by itself, and lets documents of a block see one
another. Ours parts long lines instead, and lets a document see itself alone.

The corpus is tokenised once into a cache, so that any block is read at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from kosmos2.data.collate import Row, pack_all
from kosmos2.data.frames import Frames
from kosmos2.data.ledger import Rejected
from kosmos2.data.lessons import Lesson, Teacher
from kosmos2.data.lines import Lines, stamp
from kosmos2.data.recipe import SourceRecipe
from kosmos2.errors import ConfigError, RecordError
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokens of all lines in one file of int32, and where lines end in it."""

    tokens: Path
    ends: NDArray[np.int64]
    """Of each line, in tokens; its `</line>` or `</s>` counts."""
    rejected: tuple[Rejected, ...]
    """Rows without text."""


@dataclass(frozen=True, slots=True)
class TextSource:
    """Blocks of at most `block` tokens, `<s>` included."""

    corpus: Corpus
    blocks: NDArray[np.int64]
    """Where blocks begin and end, in tokens of the corpus: pairs."""
    teacher: Teacher
    frames: Frames
    compat: Literal["ours", "paper"]

    def __len__(self) -> int:
        return len(self.blocks)

    def sample(self, number: int, rng: np.random.Generator) -> Row | Rejected:
        """Return the row of a block."""
        start, stop = (int(place) for place in self.blocks[number])
        ids = np.memmap(self.corpus.tokens, np.int32, "r")[start:stop].tolist()
        documents = [ids] if self.compat == "paper" else list(_documents(ids, self.teacher))
        lessons = [Lesson(prompt=(), answer=tuple(document)) for document in documents]
        row = pack_all(self.frames.pictures([]), self.teacher.begin(), lessons)
        return replace(row, left_out=self._left_out(number, stop))

    def _left_out(self, number: int, stop: int) -> tuple[Rejected, ...]:
        """Return the end of a line that this block cuts; of the first block, all rows in fault."""
        ends = self.corpus.ends
        line = int(np.searchsorted(ends, stop))
        found = self.corpus.rejected if number == 0 else ()
        if self.compat == "paper" and ends[line] != stop:
            detail = f"block {number + 1}: {ends[line] - stop} tokens"
            return (*found, Rejected("line cut off", detail))
        return found


def text_source(
    lines: Lines,
    teacher: Teacher,
    frames: Frames,
    recipe: SourceRecipe,
    *,
    most_positions: int,
    cache: Path,
) -> TextSource:
    """Return the blocks of rows that have `text`, tokenised where the cache has nothing of it."""
    if recipe.block > most_positions:
        raise ConfigError(
            f"sources.block ({recipe.block}) is more than the model has positions: "
            f"model.text.max_positions is {most_positions}"
        )
    corpus = _corpus(lines, teacher.tokenizer, cache)
    if not len(corpus.ends):
        raise RecordError(f"{lines.name} has no text to train on")
    room = recipe.block - 1
    ends = corpus.ends if recipe.compat == "paper" else _parted(corpus.ends, room)
    return TextSource(corpus, packed(ends, room), teacher, frames, recipe.compat)


def packed(ends: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return where blocks begin and end: lines one after the other as long as they fit (greedy).

    Of a line longer than a block, the block has what fits.
    """
    blocks, first, start = [], 0, 0
    while first < len(ends):
        stop = int(np.searchsorted(ends, start + room, side="right"))
        end = int(ends[stop - 1]) if stop > first else start + room
        blocks.append((start, end))
        first = max(stop, first + 1)
        start = int(ends[first - 1])
    return np.array(blocks, np.int64).reshape(-1, 2)


def _parted(ends: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return the ends with further ones in lines that are longer than a block."""
    bounds = np.concatenate([np.zeros(1, np.int64), ends])
    more = [
        np.arange(start + room, end, room)
        for start, end in pairwise(bounds.tolist())
        if end - start > room
    ]
    return np.sort(np.concatenate([ends, *more])) if more else ends


def _documents(ids: list[int], teacher: Teacher) -> Iterator[list[int]]:
    start = 0
    for place, token in enumerate(ids, 1):
        if token == teacher.vocabulary.eos:
            yield ids[start:place]
            start = place
    if start < len(ids):
        yield ids[start:]


def _corpus(lines: Lines, tokenizer: Tokenizer, cache: Path) -> Corpus:
    name = stamp([lines.path], _of_vocabulary(tokenizer))
    folder = cache / "tokens" / name
    if not folder.exists():
        _tokenise(lines, tokenizer, folder)
    rejected = json.loads((folder / "rejected.json").read_text(encoding="utf-8"))
    return Corpus(
        folder / "tokens.bin",
        np.load(folder / "ends.npy"),
        tuple(Rejected(*case) for case in rejected),
    )


def _tokenise(lines: Lines, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a corpus; its folder appears whole, and another process may have been faster."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    lengths: list[int] = []
    rejected: list[tuple[str, str]] = []
    with (partial / "tokens.bin").open("wb") as file:
        for number in range(len(lines)):
            fields = lines.fields(number)
            text = fields if isinstance(fields, Rejected) else fields.get("text")
            if isinstance(text, str) and text.strip():
                lengths += _write(text, tokenizer, file)
            else:
                fault = text if isinstance(text, Rejected) else Rejected("no text", "")
                rejected.append((fault.reason, fault.detail or lines.where(number)))
    ends = np.cumsum(np.array(lengths, np.int64))
    np.save(partial / "ends.npy", ends)
    (partial / "rejected.json").write_text(json.dumps(rejected), encoding="utf-8")
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.exists():
            raise


def _write(text: str, tokenizer: Tokenizer, file: BinaryIO) -> list[int]:
    """Write the tokens of a document, and return how many each line has."""
    vocabulary = tokenizer.vocabulary
    rows = [tokenizer.encode_text(line) for line in text.split("\n") if line.strip()]
    for row in rows[:-1]:
        row.append(vocabulary.tag(Tag.LINE))
    rows[-1].append(vocabulary.eos)
    np.array([token for row in rows for token in row], np.int32).tofile(file)
    return [len(row) for row in rows]


def _of_vocabulary(tokenizer: Tokenizer) -> str:
    digest = hashlib.sha256()
    size = tokenizer.vocabulary.size
    for start in range(0, tokenizer.vocabulary.mask):
        digest.update(tokenizer.decode([start]).encode(errors="surrogatepass") + b"\0")
    return f"{size}-{digest.hexdigest()[:16]}"
