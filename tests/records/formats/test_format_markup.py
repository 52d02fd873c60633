"""Kosmos-2 markup: the released model's own lines, on its own grid."""

from dataclasses import replace
from pathlib import Path

import pytest
from format_law import assert_law

from examples import entry, known_record
from kosmos2.errors import Kosmos2Error, MarkupError, RecordError
from kosmos2.records.formats.format import Reading, Writing
from kosmos2.records.formats.markup import GRID, MARKUP, read, without_overlap, write
from kosmos2.records.pictures import Pictures
from kosmos2.records.record import GroundedRecord


def written(records: list[GroundedRecord], folder: Path) -> Path:
    write(records, folder / "a.txt", Writing(pictures=Pictures(folder)))
    return folder / "a.txt"


def lines(*texts: str, folder: Path) -> list[GroundedRecord]:
    (folder / "theirs.txt").write_text("\n".join(texts), encoding="utf-8")
    return list(read(folder / "theirs.txt", Reading()))


def test_the_known_box_is_written_as_its_two_cells(tmp_path: Path) -> None:
    # 0.25 and 1/6 of 32 cells are 8 and 5.33; 0.75 and 2/3 are 24 and 21.33, the ends of 23 and 21.
    cells = f"<patch_index_{5 * 32 + 8:04d}><patch_index_{21 * 32 + 23:04d}>"
    text = written([known_record(tmp_path)], tmp_path).read_text(encoding="utf-8")
    square = f"<phrase> a white square</phrase><object>{cells}</object>"
    assert text == f"1-known.png\t<grounding>{square}\n"


def test_a_second_writing_changes_nothing(examples: list[GroundedRecord], tmp_path: Path) -> None:
    path = written(examples, tmp_path)
    again = list(read(path, Reading()))
    assert_law(MARKUP, examples, again)
    first = path.read_bytes()
    path.unlink()
    assert written(again, tmp_path).read_bytes() == first


def test_spans_words_and_captions_come_back(examples: list[GroundedRecord], tmp_path: Path) -> None:
    flat = [record for record in examples if record.id != 3]
    for old, new in zip(flat, read(written(flat, tmp_path), Reading()), strict=True):
        assert new.caption == old.caption
        spans = sorted((each.start, each.end) for each in old.entries)
        assert [(each.start, each.end) for each in new.entries] == spans


def test_of_spans_that_overlap_the_longest_is_kept(
    examples: list[GroundedRecord], tmp_path: Path
) -> None:
    (record,) = read(written([examples[2]], tmp_path), Reading())
    words = [record.caption[each.start : each.end] for each in record.entries]
    assert words == ["a dog in a field of flowers", "a dog"]
    assert without_overlap([(0, 3), (2, 8), (8, 9), (4, 5)]) == [(2, 8), (8, 9)]
    assert without_overlap([(0, 3), (2, 5)]) == [(0, 3)]


def test_tabs_and_line_breaks_become_blanks_and_spans_stay(tmp_path: Path) -> None:
    caption = "a\tdog\nand\u2028a cat"
    boxes = tuple(entry(caption, word, (0, 0, 1, 1)) for word in ("dog", "a cat"))
    record = replace(known_record(tmp_path), caption=caption, ref_exps=boxes)
    (again,) = read(written([record], tmp_path), Reading())
    assert again.caption == "a dog and a cat"
    assert [again.caption[each.start : each.end] for each in again.entries] == ["dog", "a cat"]


def test_the_line_of_the_model_card_is_read(tmp_path: Path) -> None:
    text = (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
        "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
        "<patch_index_0005><patch_index_0911></object>."
    )
    (record,) = lines(text, folder=tmp_path)
    assert record.image is None
    assert record.caption == "An image of a snowman warming himself by a fire."
    snowman, fire = record.entries
    assert record.caption[snowman.start : snowman.end] == "a snowman"
    assert snowman.box == GRID.decode(44, 863)
    assert fire.box == GRID.decode(5, 911)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a<phrase> dog</phrase> runs", MarkupError),
        (
            "<phrase> a dog</phrase><object><patch_index_0863><patch_index_0044></object>",
            MarkupError,
        ),
        ("<object><patch_index_0044><patch_index_0863></object>", RecordError),
    ],
)
def test_broken_markup_and_boxes_without_words_are_refused_not_repaired(
    text: str, error: type[Kosmos2Error], tmp_path: Path
) -> None:
    with pytest.raises(error):
        lines(text, folder=tmp_path)


def test_records_that_a_line_cannot_hold_are_refused_and_the_others_written(
    tmp_path: Path,
) -> None:
    good = known_record(tmp_path)
    tag = replace(good, id=2, caption="a <phrase> tag", ref_exps=())
    name = replace(good, id=3, image="a\tb.png")
    refused: list[str] = []
    write(
        [tag, good, name],
        tmp_path / "a.txt",
        Writing(pictures=Pictures(tmp_path), refuse=lambda where, error: refused.append(where)),
    )
    assert refused == ["record 2", "record 3"]
    assert len((tmp_path / "a.txt").read_text().splitlines()) == 1
