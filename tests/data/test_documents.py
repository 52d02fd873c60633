"""Documents of text and pictures: read in order, every picture in its place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from data_cases import MODEL, opened, ramp, rejection, row_of, save, square, write_lines

from kosmos2.data.collate import Row, collate
from kosmos2.data.lessons import Teacher
from kosmos2.model import Network
from kosmos2.model.config import TextConfig
from kosmos2.vocab.tokenizer import Tokenizer


@pytest.fixture
def teacher(tiny_tokenizer: Tokenizer) -> Teacher:
    return Teacher(tiny_tokenizer, num_latents=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(7):
        save(tmp_path / f"{number}.png", ramp(shift=number))
    return tmp_path


def mmc4(**changes: Any) -> dict[str, Any]:
    return {
        "url": "https://example.org/page",
        "text_list": ["A red car.", "A yellow bird.", "A dog."],
        # As released: not in the order of the text, without faces, with similarities.
        "image_info": [
            {"image_name": "1.png", "raw_url": "https://x.org/1", "matched_text_index": 2,
             "matched_sim": 0.31, "face_detections": None},
            {"image_name": "0.png", "raw_url": "https://x.org/0", "matched_text_index": 0,
             "matched_sim": 0.2, "face_detections": None},
        ],
        "similarity_matrix": [[0.1, 0.2, 0.31], [0.2, 0.1, 0.1]],
        "could_have_url_duplicate": 0,
        **changes,
    }  # fmt: skip


def obelics(images: list[str | None], texts: list[str | None]) -> dict[str, Any]:
    metadata = [None if image is None else {"src": image} for image in images]
    return {
        "images": images,
        "texts": texts,
        "metadata": json.dumps(metadata),
        "general_metadata": json.dumps({"url": "https://example.org"}),
    }


def one(folder: Path, teacher: Teacher, row: Any, **changes: Any) -> Any:
    return opened(write_lines(folder / "x.jsonl", [row]), teacher, "documents", **changes)


def told(row: Row, teacher: Teacher) -> str:
    """What is read, each picture as [n] by what it shows."""
    shown = [square(ramp(shift=n)).tolist() for n in range(7)]
    pictures = iter(row.pixels_ICYX.tolist())
    parts: list[str] = []
    text: list[int] = []
    for place, id in enumerate(row.ids):
        if row.image_mask[place]:
            if not row.image_mask[place - 1]:
                parts.append(teacher.tokenizer.decode(text))
                parts.append(f"[{shown.index(next(pictures))}]")
                text = []
        else:
            text.append(id)
    assert next(pictures, None) is None
    return " ".join([*parts, teacher.tokenizer.decode(text)])


def test_a_picture_of_mmc4_stands_before_the_sentence_that_it_matches(
    folder: Path, teacher: Teacher
) -> None:
    row = row_of(one(folder, teacher, mmc4()), 0)
    assert told(row, teacher) == (
        "<image> [0] </image> A red car. A yellow bird.<image> [1] </image> A dog."
    )
    assert row.left_out == ()


def test_every_word_and_the_end_is_learnt_and_nothing_of_pictures(
    folder: Path, teacher: Teacher
) -> None:
    row = row_of(one(folder, teacher, mmc4()), 0)
    words = [
        id for text in mmc4()["text_list"] for id in teacher.tokenizer.encode_text(text)
    ]  # fmt: skip
    assert row.targets == [*words, teacher.vocabulary.eos]
    # The first word behind a picture is predicted from its </image>.
    assert row.ids[row.sources[0]] == teacher.prefix()[0][-1]


def test_obelics_says_the_order_by_two_lists(folder: Path, teacher: Teacher) -> None:
    row = row_of(one(folder, teacher, obelics(["2.png", None, "0.png"], [None, "A dog.", None])), 0)
    assert told(row, teacher).startswith("<image> [2] </image> A dog.<image> [0]")
    assert row.targets[-1] == teacher.vocabulary.eos


def test_obelics_as_a_table_reads_as_its_lines(folder: Path, teacher: Teacher) -> None:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    rows = [obelics([None, "2.png"], ["A dog.", None]), obelics(["1.png", None], [None, "A cat."])]
    arrow.parquet.write_table(arrow.Table.from_pylist(rows), folder / "x.parquet")
    table = opened(folder / "x.parquet", teacher, "documents")
    lines = opened(write_lines(folder / "x.jsonl", rows), teacher, "documents")
    for number in (0, 1):
        assert row_of(table, number).ids == row_of(lines, number).ids


def test_the_network_puts_each_picture_where_the_row_has_it(folder: Path, teacher: Teacher) -> None:
    text = TextConfig(
        vocab_size=teacher.vocabulary.size, width=8, feedforward_width=16, num_layers=1, num_heads=2
    )
    network = Network(type(MODEL)(vision=MODEL.vision, text=text, num_latents=3)).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = write_lines(folder / "x.jsonl", [mmc4(), mmc4(image_info=[]), mmc4()])
    source = opened(path, teacher, "documents")
    rows = [row_of(source, number) for number in range(3)]
    batch = collate(rows, multiple=8)
    assert batch.pixels_ICYX.shape[0] == 4

    with torch.no_grad():
        latents_NQD = network.encode_images(batch.pixels_ICYX.double())
        embeds_BTD = network.embed(batch.ids_BT, batch.image_mask_BT, latents_NQD)
        for number, first in ((0, 0), (2, 2)):
            own_QD = embeds_BTD[number][batch.image_mask_BT[number]]
            torch.testing.assert_close(own_QD, latents_NQD[first : first + 2].flatten(0, 1))
        none = network.encode_images(torch.zeros(0, 3, 16, 16).double())
        alone = network.embed(batch.ids_BT[1:2], batch.image_mask_BT[1:2], none)
        torch.testing.assert_close(alone, embeds_BTD[1:2])


def test_pictures_that_cannot_be_had_are_left_out_and_counted(
    folder: Path, teacher: Teacher
) -> None:
    (folder / "1.png").write_bytes(b"")
    row = row_of(one(folder, teacher, mmc4(), min_similarity=0.24), 0)
    assert told(row, teacher) == "A red car. A yellow bird. A dog."
    reasons = [each.reason for each in row.left_out]
    assert reasons == ["matched_sim below min_similarity", "picture unreadable"]
    many = obelics([f"{n}.png" for n in (0, 2, 3, 4, 5, 6)] + [None], [None] * 6 + ["A dog."])
    row = row_of(one(folder, teacher, many, max_pictures=3), 0)
    assert row.pixels_ICYX.shape[0] == 3
    assert [each.reason for each in row.left_out] == ["more than max_pictures"] * 3


def test_of_a_long_document_the_beginning_is_learnt_and_its_end_is_none(
    folder: Path, teacher: Teacher
) -> None:
    row = row_of(one(folder, teacher, mmc4(text_list=["A dog. " * 60] * 3)), 0)
    assert max(row.positions) - 1 <= MODEL.text.max_positions
    assert teacher.vocabulary.eos not in row.targets
    assert [each.reason for each in row.left_out] == ["end cut off"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (obelics([None], ["a", "b"]), "lists of unequal length"),
        (obelics([None, None], ["a", None]), "neither text nor picture, or both"),
        (obelics(["0.png"], ["a"]), "neither text nor picture, or both"),
        (obelics(["0.png"], [None]), "no words"),
        (mmc4(text_list=[]), "no text"),
        ({"text": "a"}, "no layout that is known"),
    ],
)
def test_what_is_no_document_has_a_reason(
    folder: Path, teacher: Teacher, row: Any, reason: str
) -> None:
    assert rejection(one(folder, teacher, row), 0).reason == reason


def test_a_picture_that_matches_no_sentence_is_left_out(folder: Path, teacher: Teacher) -> None:
    info = {"image_name": "0.png", "matched_text_index": 9, "matched_sim": 0.3}
    row = row_of(one(folder, teacher, mmc4(image_info=[info, None])), 0)
    assert [each.reason for each in row.left_out] == ["picture without place"] * 2
