"""Text in blocks: packed as published, or with documents that do not see one another."""

from pathlib import Path

import numpy as np
import pytest
from data_cases import opened, row_of, write_lines
from hypothesis import given
from hypothesis import strategies as st

from kosmos2.data.collate import Row, collate
from kosmos2.data.lessons import Teacher
from kosmos2.data.text import packed
from kosmos2.errors import ConfigError, RecordError
from kosmos2.vocab.special import Tag
from kosmos2.vocab.tokenizer import Tokenizer

DOCUMENTS = [
    "A red car.\n\nA yellow bird on a table.",
    "A dog and a cat.",
    "It is the huge elephant under the orange umbrella.\nA snowman.\n  \nA fire.",
] * 4


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


def blocks(folder: Path, teacher: Teacher, texts: list[object], **changes: object) -> list[Row]:
    path = write_lines(folder / "x.jsonl", [{"text": text, "meta": {}} for text in texts])
    source = opened(path, teacher, "text", **changes)
    return [row_of(source, number) for number in range(len(source))]


def stream(teacher: Teacher) -> list[int]:
    """B.6, slowly: lines that are not empty, `</line>` between, `</s>` at the end of a document."""
    ids: list[int] = []
    for text in DOCUMENTS:
        lines = [line for line in text.split("\n") if line.strip()]
        for line in lines:
            ids += teacher.tokenizer.encode_text(line)
            ids.append(teacher.vocabulary.tag(Tag.LINE))
        ids[-1] = teacher.vocabulary.eos
    return ids


@pytest.mark.parametrize("compat", ["ours", "paper"])
def test_all_of_the_corpus_is_learnt_once_in_its_order(
    tmp_path: Path, teacher: Teacher, compat: str
) -> None:
    rows = blocks(tmp_path, teacher, list(DOCUMENTS), block=60, compat=compat)
    assert len(rows) > 2
    assert [target for row in rows for target in row.targets] == stream(teacher)
    assert max(len(row.targets) for row in rows) <= 59
    assert all(row.left_out == () for row in rows)


def test_the_published_block_is_one_sequence_behind_one_start(
    tmp_path: Path, teacher: Teacher
) -> None:
    for row in blocks(tmp_path, teacher, list(DOCUMENTS), block=60, compat="paper"):
        assert row.ids == [teacher.vocabulary.bos, *row.targets[:-1]]
        assert row.sources == list(range(len(row.targets)))
        assert row.positions == list(range(2, 2 + len(row.ids)))


def test_no_document_of_our_blocks_sees_another(tmp_path: Path, teacher: Teacher) -> None:
    (row, *_) = blocks(tmp_path, teacher, list(DOCUMENTS), block=60)
    batch = collate([row], multiple=1)
    sees_TT = batch.attention_mask()[0]
    lesson = np.array(row.lesson)
    assert lesson.max() >= 2
    for place in range(1, len(lesson)):
        seen = np.flatnonzero(sees_TT[place].numpy())
        assert set(lesson[seen]) <= {0, lesson[place]}
        assert row.positions[place] == 2 + (lesson[: place + 1] == lesson[place]).sum()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(1, 15))
def test_packing_is_greedy(lengths: list[int], room: int) -> None:
    # The slow way: a line goes into the block if it fits, else it begins the next one.
    expected: list[list[int]] = []
    for number, length in enumerate(lengths):
        last = sum(min(lengths[n], room) for n in expected[-1]) if expected else room
        if expected and last + length <= room:
            expected[-1].append(number)
        else:
            expected.append([number])
    ends = np.cumsum(np.array(lengths, np.int64))
    found = packed(ends, room)
    starts = ends - lengths
    assert found.tolist() == [
        [starts[block[0]], min(ends[block[-1]], starts[block[0]] + room)] for block in expected
    ]


def test_a_line_longer_than_a_block_is_cut_as_published_and_parted_by_ours(
    tmp_path: Path, teacher: Teacher
) -> None:
    long = "A dog and a cat. " * 20
    whole = [*teacher.tokenizer.encode_text(long), teacher.vocabulary.eos]
    ours = blocks(tmp_path, teacher, [long], block=33)
    assert [target for row in ours for target in row.targets] == whole
    (paper,) = blocks(tmp_path, teacher, [long], block=33, compat="paper")
    assert paper.targets == whole[:32]
    assert [each.reason for each in paper.left_out] == ["line cut off"]


def test_rows_without_text_are_counted_once_an_epoch(tmp_path: Path, teacher: Teacher) -> None:
    rows = blocks(tmp_path, teacher, ["A dog.", None, " \n ", "A cat."], block=12)
    left_out = [each.reason for row in rows for each in row.left_out]
    assert left_out == ["no text", "no text"]


def test_tokens_are_kept_and_made_again_when_file_or_vocabulary_change(
    tmp_path: Path, teacher: Teacher
) -> None:
    first = blocks(tmp_path, teacher, ["A dog."], block=12)
    folder = tmp_path / "cache/tokens"
    assert blocks(tmp_path, teacher, ["A dog."], block=12)[0].ids == first[0].ids
    (tmp_path / "cache/tokens").exists()
    before = set(folder.iterdir())
    other = blocks(tmp_path, teacher, ["A cat and a dog."], block=20)
    assert other[0].ids != first[0].ids
    assert set(folder.iterdir()) > before


def test_a_block_longer_than_the_model_and_a_file_without_text_are_refused(
    tmp_path: Path, teacher: Teacher
) -> None:
    with pytest.raises(ConfigError, match="max_positions"):
        blocks(tmp_path, teacher, ["A dog."], block=129)
    with pytest.raises(RecordError, match="no text"):
        blocks(tmp_path, teacher, [None], block=12)
